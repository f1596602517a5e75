package cache

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unique"
)

// field is a header field as it is written to clients. The slice may be shared by several responses: its capacity is its
// length, so that appending to it copies.
type field struct {
	name   string
	values []string
}

// meta is what is known of a response on its way into the store, but its body. It is immutable once prepared.
type meta struct {
	lifetimes
	status       int
	fields       []field  // ready to be written; without Age, Cache-Status and what section 3.1 excludes
	upstream     []string // Cache-Status of the caches behind, to be kept (RFC 9211 section 2)
	varyNames    []string
	etag         string
	lastModified time.Time // zero: none
	date         time.Time
	received     time.Time
	initialAge   time.Duration
	licensed     bool     // may answer requests with Authorization (section 3.5)
	aged         bool     // came with Age
	immutable    bool     // doesn't change while it is fresh (RFC 8246)
	coded        bool     // its content coding can be undone
	keys         []string // surrogate keys
	groups       []string // cache groups
	targeted     []string // Landfall-Cache-Control, which only this cache reads
	length       int64    // -1: not known yet
}

// object is a stored response. All but the atomics is immutable once it is in the store, and what the budget and the
// shard guard.
type object struct {
	head  string // see pack
	body  [][]byte
	cells []*cell // of its service, its host, its surrogate keys and its cache groups

	hash       uint64 // of its URL
	born       born
	received   int64 // Unix nanoseconds
	initialAge time.Duration
	fresh      time.Duration
	length     int64
	size       int64 // bytes it is charged with

	softAt   atomic.Int64  // when it was soft-purged, in Unix nanoseconds; 0: never
	failedAt atomic.Int64  // when its revalidation last failed, in Unix nanoseconds; 0: never
	seen     atomic.Uint64 // prefix purges up to this generation are regarded in dead and softAt

	chain      atomic.Pointer[object] // the next of its bucket, older if it is of the same URL
	prev, next *object                // in the policy's queue

	fieldsAt uint32
	state    atomic.Uint32 // bits, below
	uses     atomic.Uint32 // up to maxUses; eviction counts them down
	status   uint16
	queue    uint8 // of the policy; queueNone: it isn't in the budget
}

// Bits of an object's state. The first ones never change.
const (
	isLicensed  = 1 << iota // may answer requests with Authorization (RFC 9111 section 3.5)
	isNoCache               // is to be validated before each reuse
	hasUpstream             // has Cache-Status lines of caches behind
	isDead                  // a hard purge took it
	isGone                  // it has left the store
	isEvicted               // the budget dropped it
	isCoded                 // a Recoder applied its content coding; never changes either
	isImmutable             // is not refreshed while it is fresh (RFC 8246); nor this
	isVast                  // recoded, it was too large to store
)

func (o *object) is(bit uint32) bool { return o.state.Load()&bit != 0 }

// set sets a bit, and tells whether it was not set before.
func (o *object) set(bit uint32) bool { return o.state.Or(bit)&bit == 0 }

const maxUses = 3

// used notes a reuse. Hits of one object at once may count as one: it only orders the queue.
func (o *object) used() {
	if n := o.uses.Load(); n < maxUses { // what is hot is only read, so that cores don't fight for its cache line
		o.uses.Store(n + 1)
	}
}

// objectOverhead is what an object takes in its own structure and in its shard's table; chunkOverhead what a piece of its
// body takes beside the bytes.
const (
	objectOverhead = 192 + 16
	chunkOverhead  = 24
)

// newObject makes the object of a response whose body is whole, and links it to its cells.
func (c *Cache) newObject(k Key, m *meta, request http.Header, body [][]byte, b born) *object {
	head, fieldsAt := pack(k, m, request)
	o := &object{
		head: string(head), fieldsAt: uint32(fieldsAt), body: body, hash: k.url().hash(c.store.seed), born: b,
		received: m.received.UnixNano(), initialAge: m.initialAge, fresh: m.fresh, length: m.length, status: uint16(m.status),
	}
	if m.licensed {
		o.set(isLicensed)
	}
	if m.noCache {
		o.set(isNoCache)
	}
	if len(m.upstream) > 0 {
		o.set(hasUpstream)
	}
	if m.immutable {
		o.set(isImmutable)
	}
	if m.coded {
		o.set(isCoded)
	}
	c.link(o, k, m.keys, m.groups)
	o.size = headBytes(len(o.head), k, m) + bodyBytes(body)
	return o
}

// age is the current_age of RFC 9111 section 4.2.3.
func (m *meta) age(now time.Time) time.Duration { return m.initialAge + max(now.Sub(m.received), 0) }

// remaining is the freshness that is left; negative when stale.
func (m *meta) remaining(now time.Time) time.Duration { return m.fresh - m.age(now) }

func (o *object) age(now time.Time) time.Duration {
	return o.initialAge + max(time.Duration(now.UnixNano()-o.received), 0)
}

// remaining is the freshness that is left, soft purges regarded.
func (o *object) remaining(now time.Time) time.Duration {
	left := o.fresh - o.age(now)
	if at := o.softAt.Load(); at != 0 {
		left = min(left, time.Duration(at-now.UnixNano()), 0)
	}
	return left
}

// isFresh tells whether the object may be reused without asking the origin.
func (o *object) isFresh(now time.Time) bool { return !o.is(isNoCache) && o.remaining(now) > 0 }

// staleFor tells whether the object is stale for no longer than the window.
func (o *object) staleFor(now time.Time, window time.Duration) bool {
	return window > 0 && -o.remaining(now) <= window
}

// mayRefresh and mayHide tell whether the object may be served stale while it is refreshed, and when the origin fails.
func (o *object) mayRefresh(now time.Time) bool {
	swr, _ := o.windows()
	return o.staleFor(now, swr)
}

func (o *object) mayHide(now time.Time) bool {
	_, sie := o.windows()
	return o.staleFor(now, sie)
}

// failedWithin tells whether a revalidation failed no longer than d ago.
func (o *object) failedWithin(now time.Time, d time.Duration) bool {
	at := o.failedAt.Load()
	return at != 0 && now.Sub(time.Unix(0, at)) < d
}

// purged brings what purges have made of the object up to date, and tells whether it must not be used any more.
func (o *object) purged() bool {
	if o.is(isDead) {
		return true
	}
	seen := o.seen.Load()
	f, prefixed := fateOf(o.cells, o.path(), o.born, seen)
	if f.hard {
		o.set(isDead)
		return true
	}
	if f.softAt != 0 {
		o.softAt.CompareAndSwap(0, f.softAt)
	}
	if prefixed > seen {
		o.seen.Store(prefixed)
	}
	return o.is(isDead) // a sweep that forgot the purge meanwhile has said so here before
}

func (m *meta) validatable() bool { return m.etag != "" || !m.lastModified.IsZero() }

// isHop tells the fields that are of one connection or of this gateway's making, and never stored or passed on.
func isHop(name string) bool {
	switch name {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Proxy-Authenticate", "Proxy-Authorization", "Proxy-Authentication-Info":
		return true
	}
	return false
}

// listedHop tells whether Connection names the field (RFC 9110 section 7.6.1).
func listedHop(h http.Header, name string) bool {
	for _, line := range h["Connection"] {
		for listed := range strings.SplitSeq(line, ",") {
			if http.CanonicalHeaderKey(strings.Trim(listed, " \t")) == name {
				return true
			}
		}
	}
	return false
}

// prepare picks what of a response's header is stored.
func (m *meta) prepare(h http.Header, dated bool) {
	m.fields = make([]field, 0, len(h)+2)
	m.coded = h[HeaderCoded] != nil
	for name, values := range h {
		switch {
		case len(values) == 0, isHop(name), listedHop(h, name), name == "Age", name == "Set-Cookie":
		case name == "Landfall-Cache-Control":
			m.targeted = values
		case isForCaches(name):
		case name == "Date" && !dated, name == "Content-Length":
		case name == "Cache-Status":
			m.upstream = values
		default:
			m.fields = append(m.fields, field{name, values[:len(values):len(values)]})
		}
	}
	if !dated {
		m.fields = append(m.fields, field{"Date", []string{m.date.UTC().Format(http.TimeFormat)}})
	}
	if m.length >= 0 {
		m.setLength(m.length)
	}
}

// setLength adds Content-Length. The fields of a meta that others already read must have been cloned before.
func (m *meta) setLength(n int64) {
	m.length = n
	if m.status == http.StatusNoContent {
		return // RFC 9110 section 8.6
	}
	m.fields = append(m.fields, field{"Content-Length", []string{strconv.FormatInt(n, 10)}})
}

// interned is one copy of a text that many objects have: a field's name, a host.
func interned(s string) string { return unique.Make(s).Value() }

// headBytes is what an object is charged with besides its body: its head of n bytes, the object, and its cells.
func headBytes(n int, k Key, m *meta) int64 {
	size := objectOverhead + heapBytes(int64(n)) + heapBytes(int64(8*(3+len(m.keys)+len(m.groups))))
	for _, key := range m.keys {
		size += int64(len(key)) + cellBytes
	}
	for _, name := range m.groups {
		size += int64(2*len(name)+len(k.Host)) + cellBytes
	}
	return size
}

func bodyBytes(body [][]byte) (n int64) {
	for _, chunk := range body {
		n += heapBytes(int64(cap(chunk)))
	}
	return n + heapBytes(int64(len(body)*chunkOverhead))
}

// heapBytes is what the allocator takes for n bytes: up to 32 KiB it has sizes of its own, above whole pages.
func heapBytes(n int64) int64 {
	const page = 8 << 10
	sizes := [...]uint16{
		0, 8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320, 352, 384, 416, 448, 480,
		512, 576, 640, 704, 768, 896, 1024, 1152, 1280, 1408, 1536, 1792, 2048, 2304, 2688, 3072, 3200, 3456, 4096, 4864, 5376,
		6144, 6528, 6784, 6912, 8192, 9472, 9728, 10240, 10880, 12288, 13568, 14336, 16384, 18432, 19072, 20480, 21760, 24576,
		27264, 28672, 32768,
	}
	if n > 32768 {
		return (n + page - 1) / page * page
	}
	i, _ := slices.BinarySearch(sizes[:], uint16(n))
	return int64(sizes[i])
}
