package cache

import (
	"net/http"
	"strings"
	"time"
)

// refusal is why a response is not stored: a closed list, for the log and the tests. "" is stored.
type refusal string

const (
	storable      refusal = ""
	byStatus      refusal = "status"
	byNoStore     refusal = "no-store"
	byPrivate     refusal = "private"
	bySetCookie   refusal = "set-cookie"
	byVary        refusal = "vary"
	byCredentials refusal = "authorization"
	bySize        refusal = "too-large"
	byTrailers    refusal = "trailers"
	byStream      refusal = "event-stream"
	byFreshness   refusal = "no-freshness" // neither freshness nor anything to validate with
	byMemory      refusal = "memory"       // no room: fills in flight hold what they may
	byKeys        refusal = "surrogate-keys"
	bySearch      refusal = "no-vary-search" // fetched by a rule that it doesn't follow
	byPeer        refusal = "peer"           // a node nearby keeps it
	byStale       refusal = "stale"          // given for want of an answer of the origin's
)

// answer is a response to a GET without body as judge needs to see it.
type answer struct {
	status     int
	header     http.Header
	length     int64 // of the body, -1 unknown
	trailers   bool
	asked      time.Time // when the request was sent
	received   time.Time // when the response's header came
	credential bool      // the request had Authorization
	maxObject  int64
}

// judgement is what may be done with a response. A response that may be stored need not be shared: one that is to be
// validated before each reuse answers only the request that it was fetched for.
type judgement struct {
	refusal refusal
	shared  bool
	meta    meta
}

// judge decides by RFC 9111 sections 3 and 4.2 whether a response is stored, and for how long it is reused.
func judge(a answer, p Policy) judgement {
	cc, targeted := responseDirectives(a.header)
	licensed := cc.public || cc.mustRevalidate || cc.sMaxAge != absent // section 3.5
	names, varies := varyNames(a.header)
	date, dated := dateOf(a.header, a.received)
	life := lifetimesOf(a.header, cc, targeted, a.status, p, date)
	m := meta{
		status: a.status, date: date, received: a.received, length: a.length,
		initialAge: initialAge(a.header, date, a.asked, a.received), lifetimes: life,
		etag: validETag(a.header.Get("Etag")), varyNames: names,
		licensed: licensed, aged: len(a.header["Age"]) > 0, immutable: cc.immutable,
	}
	m.lastModified, _ = parseDate(a.header.Get("Last-Modified"))
	keys, purgeable := surrogateKeys(a.header)
	m.keys, m.groups = keys, groups(a.header["Cache-Groups"])
	m.fresh = p.jittered(m.fresh, a.received)
	j := judgement{meta: m}
	switch {
	case neverStored(a.status) || cc.mustUnderstand && http.StatusText(a.status) == "":
		j.refusal = byStatus
	case cc.noStore && !cc.mustUnderstand: // section 5.2.2.3: beside it, no-store is for caches that don't know the status
		j.refusal = byNoStore
	case cc.private:
		j.refusal = byPrivate
	case len(a.header["Set-Cookie"]) > 0:
		j.refusal = bySetCookie
	case !varies:
		j.refusal = byVary
	case !purgeable:
		j.refusal = byKeys
	case a.credential && !licensed:
		j.refusal = byCredentials
	case a.length > a.maxObject:
		j.refusal = bySize
	case a.trailers:
		j.refusal = byTrailers
	case isEventStream(a.header):
		j.refusal = byStream
	case !life.explicit && !life.noCache && !p.givesTTL(a.status):
		j.refusal = byFreshness
	case (life.noCache || m.remaining(a.received) <= 0) && !policyStatus(a.status):
		j.refusal = byFreshness // an error is stored to be reused, never to be validated
	case m.remaining(a.received) <= 0 && life.swr == 0 && life.sie == 0 && !m.validatable():
		j.refusal = byFreshness
	}
	if j.refusal == storable {
		j.shared = !life.noCache && m.remaining(a.received)+life.swr > 0
		j.meta.prepare(a.header, dated)
	}
	return j
}

// neverStored tells the statuses that are not final, that this cache combines with nothing (206) or takes for a word on what
// it has (304), and those of which RFC 6585 says so.
func neverStored(status int) bool {
	switch status {
	case http.StatusPartialContent, http.StatusNotModified, http.StatusPreconditionRequired, http.StatusTooManyRequests,
		http.StatusRequestHeaderFieldsTooLarge, http.StatusNetworkAuthenticationRequired:
		return true
	}
	return status < 200
}

// policyStatus tells the statuses whose freshness a policy may give. RFC 9110 section 15.1 also allows 404, 405, 410,
// 414 and 501; an error that outlives its cause is the dearer mistake, so those need freshness of their own.
func policyStatus(status int) bool {
	switch status {
	case 200, 203, 204, 300, 301, 308:
		return true
	}
	return false
}

// isOriginError tells the statuses that stale-if-error covers (RFC 5861 section 4).
func isOriginError(status int) bool {
	switch status {
	case 500, 502, 503, 504:
		return true
	}
	return false
}

func isEventStream(h http.Header) bool {
	media, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return lowerASCII(strings.Trim(media, " \t")) == "text/event-stream"
}
