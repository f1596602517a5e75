package proxy

import (
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"landfall/cache"
)

// hopByHop are the headers that end at each hop (RFC 9110 section 7.6.1), beside those that Connection names.
var hopByHop = []string{"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// stripHopByHop removes what ends at this hop. TE: trailers survives where the client sent it, since both our sides can
// carry trailers.
func stripHopByHop(h http.Header) {
	trailers := httpguts.HeaderValuesContainsToken(h["Te"], "trailers")
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			if name = strings.TrimSpace(name); name != "" {
				h.Del(name)
			}
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
	if trailers {
		h.Set("Te", "trailers")
	}
}

// clean makes a client's headers what the phases behind head may rely on: nothing that ends at this hop, nothing that only
// nodes say, nothing that an origin could take for a word of ours. What the cache selects variants by is then exactly
// what the origin gets.
func (x *exchange) clean(h http.Header) {
	stripHopByHop(h)
	delete(h, headerProtocol)
	stripInternal(h)
	stripLookalikes(h)
	if !x.p.isTrusted(x.conn.Remote.Unmap()) {
		stripForwarding(h)
	}
	delete(h, headerHome)
	delete(h, headerMovedFrom)
	x.recentWriter(h)
	h.Del("X-Client-Country")
	if x.head.country != "" {
		h.Set("X-Client-Country", x.head.country)
	}
}

// lookalike are the fields that tell an origin of the client, with underscores: CGI and its kin make no difference between
// X_Real_IP, which a client may have written, and our X-Real-IP (RFC 3875 section 4.1.18).
var lookalike = map[string]bool{
	"FORWARDED": true, "X_REAL_IP": true, "X_REQUEST_ID": true, "X_CLIENT_COUNTRY": true, "CDN_LOOP": true,
}

func stripLookalikes(h http.Header) {
	for name := range h {
		if strings.IndexByte(name, '_') < 0 {
			continue
		}
		if plain := strings.ToUpper(strings.ReplaceAll(name, "-", "_")); lookalike[plain] || strings.HasPrefix(plain, "X_FORWARDED_") {
			delete(h, name)
		}
	}
}

// stripForwarding removes what an untrusted client says of how it came here: fields that frameworks build links and paths
// from (X-Forwarded-Port, -Prefix, -Server, -Ssl and whatever comes next), and would believe of the gateway.
func stripForwarding(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, "X-Forwarded-") || name == "Front-End-Https" {
			delete(h, name)
		}
	}
}

// stripInternal removes what only nodes may say to each other. Called on what clients send and on what origins answer.
func stripInternal(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, headerPrefix) {
			delete(h, name)
		}
	}
}

// headerTargeted is the one Landfall- field that an origin may send (RFC 9213): it is for the cache, which ends it.
const headerTargeted = "Landfall-Cache-Control"

// outbound is the request as it goes to an origin of this region or to another region's node, coding being the
// Accept-Encoding that was negotiated. toCache: to another node's cache, which does the rest. It carries the context of the request it is made from; the body is the caller's
// to set.
func (x *exchange) outbound(from *http.Request, coding string, toCache bool) *http.Request {
	out := from.Clone(from.Context())
	out.RequestURI = ""
	out.Trailer = from.Trailer // not a copy: the server fills it in when the body has ended
	out.Close = false
	out.Host = x.head.authority
	if x.head.upgrade != "" {
		out.Method = x.head.method // the peer channel carries an upgrade as a POST
	}
	out.URL.Scheme, out.URL.Host, out.URL.Opaque = "", "", ""
	out.URL.RawQuery = from.URL.RawQuery // a fetch that may be stored has only what the cache key has
	setEscapedPath(out.URL, x.head.path)
	h := out.Header
	if x.head.hop == 0 {
		x.setForwarding(h) // the rest was cleaned before the cache
	} else {
		stripHopByHop(h)
		stripInternal(h)
	}
	h.Set("X-Request-Id", x.head.id)
	if coding != "" {
		h.Set("Accept-Encoding", coding)
	} else if x.cacheHere() {
		h.Del("Accept-Encoding")
	}
	if h["User-Agent"] == nil {
		h["User-Agent"] = []string{""} // or net/http would add its own
	}
	if x.cacheHere() && !toCache {
		x.p.o.Compressor.PrepareRequest(h)
	}
	return out
}

// cacheHere tells whether this node's cache stands before the request.
func (x *exchange) cacheHere() bool { return x.head.hop == 0 || x.head.role != "" }

// setEscapedPath sets a URL's path from its escaped form, which head has checked to unescape. It is not parsed as a
// reference: a path that begins with // would lose its first segment to the authority.
func setEscapedPath(u *url.URL, escaped string) {
	path, err := url.PathUnescape(escaped)
	if err != nil {
		path = escaped
	}
	u.Path, u.RawPath = path, escaped
}

// setForwarding tells the origin who the client is. What a client wrote itself is replaced, unless it came through a
// trusted proxy, whose chain is continued (RFC 7239 and the X- headers that came before it).
func (x *exchange) setForwarding(h http.Header) {
	direct := x.conn.Remote.Unmap()
	f := fields{h, make([]string, 0, 8)}
	forwardedFor, forwarded := direct.String(), x.forwarded(direct)
	if x.p.isTrusted(direct) {
		forwardedFor, forwarded = joinList(h["X-Forwarded-For"], forwardedFor), joinList(h["Forwarded"], forwarded)
	}
	f.set("X-Forwarded-For", forwardedFor)
	f.set("Forwarded", forwarded)
	f.set("X-Forwarded-Proto", x.head.scheme)
	f.set("X-Forwarded-Host", x.head.authority)
	f.set("X-Real-Ip", x.head.client.String())
	f.set("Cdn-Loop", joinList(x.head.loops, cdnID))
	f.set("Via", joinList(h["Via"], strconv.Itoa(x.in.ProtoMajor)+"."+strconv.Itoa(x.in.ProtoMinor)+" "+cdnID))
	if !validTraceparent(h.Get("Traceparent")) {
		// The request id is 128 random bits in hex, as a trace id is; half of it serves as the parent id.
		if id := x.conn.RequestID; len(id) == 32 {
			f.set("Traceparent", "00-"+id+"-"+id[16:]+"-00")
		}
		h.Del("Tracestate")
	}
}

// fields sets header fields of one value whose names are canonical, without an allocation for each.
type fields struct {
	h    http.Header
	room []string
}

func (f *fields) set(name, value string) {
	f.room = append(f.room, value)
	n := len(f.room)
	f.h[name] = f.room[n-1 : n : n]
}

// forwarded is our element of Forwarded (RFC 7239 section 4).
func (x *exchange) forwarded(direct netip.Addr) string {
	node := direct.String()
	if direct.Is6() {
		node = `"[` + node + `]"`
	}
	host := x.head.authority
	if !httpguts.ValidHeaderFieldName(host) { // not a token: a port or an IPv6 literal
		host = `"` + host + `"`
	}
	return "for=" + node + ";host=" + host + ";proto=" + x.head.scheme
}

// validTraceparent checks the form of W3C Trace Context, version 00.
func validTraceparent(s string) bool {
	if len(s) != 55 || s[:3] != "00-" || s[35] != '-' || s[52] != '-' {
		return false
	}
	for i := 3; i < len(s); i++ {
		c := s[i]
		if i != 35 && i != 52 && !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return s[3:35] != strings.Repeat("0", 32) && s[36:52] != strings.Repeat("0", 16)
}

func joinList(have []string, add string) string {
	if len(have) == 0 {
		return add
	}
	return strings.Join(have, ", ") + ", " + add
}

// inbound cleans the headers of an origin's or peer's response for the client. cached: another node's cache answers, which
// may say what only caches of the fleet say to each other.
func inbound(resp *http.Response, cached bool) {
	h := resp.Header
	stripHopByHop(h)
	delete(h, "Te")
	delete(h, "Alt-Svc") // of the origin's own ports, which our clients must not go to (RFC 7838)
	kept := [...]string{headerTargeted, cache.HeaderKey, cache.HeaderStale, cache.HeaderCoded}
	var values [len(kept)][]string
	for i, name := range kept {
		if cached || name == headerTargeted {
			values[i] = h[name]
		}
	}
	stripInternal(h)
	for i, name := range kept {
		if values[i] != nil {
			h[name] = values[i]
		}
	}
	h.Set("Via", joinList(h["Via"], strconv.Itoa(resp.ProtoMajor)+"."+strconv.Itoa(resp.ProtoMinor)+" "+cdnID))
}
