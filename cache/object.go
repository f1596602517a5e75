package cache

import (
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unique"
)

// field is a header field as it is written to clients: the slice is shared by all responses from the object, and its
// capacity is its length, so that appending to it copies.
type field struct {
	name   string
	values []string
}

// meta is what is known of a stored response but its body. It is immutable once prepared.
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
	keys         []string // surrogate keys
	groups       []string // cache groups
	targeted     []string // Landfall-Cache-Control, which only this cache reads
	length       int64    // -1: not known yet
}

// object is a stored response. All but the atomics is immutable once it is in the store, and the list's fields, which
// the budget guards.
type object struct {
	meta
	key  Key
	vary []varyField
	body [][]byte
	size int64 // bytes it is charged with

	born  born
	cells []*cell // of its service, its host and its surrogate keys

	visited  atomic.Bool  // reused since the eviction hand last passed
	softAt   atomic.Int64 // when it was soft-purged, in Unix nanoseconds; 0: never
	failedAt atomic.Int64 // when its revalidation last failed, in Unix nanoseconds; 0: never

	dead atomic.Bool   // a hard purge took it
	seen atomic.Uint64 // prefix purges up to this generation are regarded in dead and softAt
	gone atomic.Bool   // it has left the store

	prev, next *object
	linked     bool
	evicted    atomic.Bool
}

// The overheads are what the structures take on 64-bit machines, rounded up: an object with its places in map, variants
// and list; a header field with its slice and strings' headers.
const (
	objectOverhead = 768
	fieldOverhead  = 96
	chunkOverhead  = 24
)

// age is the current_age of RFC 9111 section 4.2.3.
func (m *meta) age(now time.Time) time.Duration { return m.initialAge + max(now.Sub(m.received), 0) }

// remaining is the freshness that is left; negative when stale.
func (m *meta) remaining(now time.Time) time.Duration { return m.fresh - m.age(now) }

// remaining is the freshness that is left, soft purges regarded.
func (o *object) remaining(now time.Time) time.Duration {
	left := o.meta.remaining(now)
	if at := o.softAt.Load(); at != 0 {
		left = min(left, time.Unix(0, at).Sub(now), 0)
	}
	return left
}

// isFresh tells whether the object may be reused without asking the origin.
func (o *object) isFresh(now time.Time) bool { return !o.noCache && o.remaining(now) > 0 }

// staleFor tells whether the object is stale for no longer than the window.
func (o *object) staleFor(now time.Time, window time.Duration) bool {
	return window > 0 && -o.remaining(now) <= window
}

// failedWithin tells whether a revalidation failed no longer than d ago.
func (o *object) failedWithin(now time.Time, d time.Duration) bool {
	at := o.failedAt.Load()
	return at != 0 && now.Sub(time.Unix(0, at)) < d
}

// purged brings what purges have made of the object up to date, and tells whether it must not be used any more.
func (o *object) purged() bool {
	if o.dead.Load() {
		return true
	}
	seen := o.seen.Load()
	f, prefixed := fateOf(o.cells, o.key.Path, o.born, seen)
	if f.hard {
		o.dead.Store(true)
		return true
	}
	if f.softAt != 0 {
		o.softAt.CompareAndSwap(0, f.softAt)
	}
	if prefixed > seen {
		o.seen.Store(prefixed)
	}
	return false
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

// prepare copies a response's header into the form in which it is stored and written.
func (m *meta) prepare(h http.Header, dated bool) {
	m.fields = make([]field, 0, len(h)+2)
	for name, values := range h {
		switch {
		case len(values) == 0, isHop(name), listedHop(h, name), name == "Age", name == "Set-Cookie":
		case name == "Landfall-Cache-Control":
			m.targeted = cloneValues(values)
		case isForCaches(name):
		case name == "Date" && !dated, name == "Content-Length":
		case name == "Cache-Status":
			m.upstream = cloneValues(values)
		default:
			m.fields = append(m.fields, field{name, values})
		}
	}
	m.pack()
	if !dated {
		m.fields = append(m.fields, field{"Date", []string{m.date.UTC().Format(http.TimeFormat)}})
	}
	if m.length >= 0 {
		m.setLength(m.length)
	}
	m.etag = strings.Clone(m.etag)
	m.keys, m.groups = cloneValues(m.keys), cloneValues(m.groups)
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

// pack replaces the fields' texts, which are cut out of a response's whole header block, by one copy of them all.
func (m *meta) pack() {
	size, count := 0, 0
	for _, f := range m.fields {
		for _, v := range f.values {
			size += len(v)
		}
		count += len(f.values)
	}
	var text strings.Builder
	text.Grow(size) // so that what it gives out stays in place
	values := make([]string, 0, count)
	for i := range m.fields {
		f := &m.fields[i]
		first := len(values)
		for _, v := range f.values {
			from := text.Len()
			text.WriteString(v)
			values = append(values, text.String()[from:])
		}
		f.name, f.values = interned(f.name), values[first:len(values):len(values)]
	}
}

func cloneValues(values []string) []string {
	c := make([]string, len(values))
	for i, v := range values {
		c[i] = strings.Clone(v)
	}
	return c
}

// header is the stored header as a map, for a revalidation to merge into.
func (m *meta) header() http.Header {
	h := make(http.Header, len(m.fields)+1)
	for _, f := range m.fields {
		h[f.name] = f.values
	}
	if m.upstream != nil {
		h["Cache-Status"] = m.upstream
	}
	if len(m.keys) > 0 {
		h[HeaderKey] = m.keys
	}
	if len(m.targeted) > 0 {
		h["Landfall-Cache-Control"] = m.targeted
	}
	return h
}

// headBytes is what an object is charged with besides its body.
func headBytes(m *meta, key Key, vary []varyField) int64 {
	n := objectOverhead + 2*key.bytes() + int64(len(m.etag))
	for _, f := range m.fields {
		n += fieldOverhead + int64(len(f.name))
		for _, v := range f.values {
			n += int64(len(v))
		}
	}
	for _, v := range m.upstream {
		n += fieldOverhead + int64(len(v))
	}
	for _, v := range vary {
		n += fieldOverhead + int64(len(v.name)+len(v.value))
	}
	for _, name := range m.varyNames {
		n += int64(len(name)) + 16
	}
	for _, k := range m.keys {
		n += int64(len(k)) + cellBytes
	}
	for _, name := range m.groups {
		n += int64(2*len(name)+len(key.Host)) + cellBytes
	}
	for _, line := range m.targeted {
		n += int64(len(line)) + 16
	}
	return n
}

func bodyBytes(body [][]byte) (n int64) {
	for _, chunk := range body {
		n += int64(cap(chunk)) + chunkOverhead
	}
	return n
}
