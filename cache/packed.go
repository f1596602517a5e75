package cache

import (
	"encoding/binary"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// An object's head is one text: its key but for service and host (which its cells name), the request fields that select
// it, its times, and its header fields ready to be written. One text instead of maps and slices is what makes a million
// small objects cheap to keep and to collect, and it is what the disk holds. Numbers are varints, texts have their length
// before them, and the names of common fields are numbers.
//
//	key     scheme, port, path, query, extra
//	vary    count, then name, 0 for absent or 1 + length, value
//	caches  count, then lines: Cache-Status of the caches behind; the same for Landfall-Cache-Control
//	times   date and 1 + last-modified (0: none) in seconds; stale-while-revalidate and stale-if-error in milliseconds
//	fields  count, then name, value

// packer writes a head.
type packer struct{ b []byte }

func (p *packer) number(n uint64) { p.b = binary.AppendUvarint(p.b, n) }

func (p *packer) text(s string) {
	p.number(uint64(len(s)))
	p.b = append(p.b, s...)
}

func (p *packer) name(name string) {
	id := nameID(name)
	p.number(id)
	if id == 0 {
		p.text(name)
	}
}

func (p *packer) lines(lines []string) {
	p.number(uint64(len(lines)))
	for _, line := range lines {
		p.text(line)
	}
}

// pack writes the head of a response to a request of this key and header. fieldsAt is where its fields begin.
func pack(k Key, m *meta, request http.Header) (head []byte, fieldsAt int) {
	p := packer{make([]byte, 0, 1024)}
	for _, part := range [...]string{k.Scheme, k.Port, k.Path, k.Query, k.Extra} {
		p.text(part)
	}
	p.number(uint64(len(m.varyNames)))
	for _, name := range m.varyNames {
		value, present := fieldValue(request, name)
		p.name(name)
		if !present {
			p.number(0)
			continue
		}
		p.number(uint64(len(value)) + 1)
		p.b = append(p.b, value...)
	}
	p.lines(m.upstream)
	p.lines(m.targeted)
	p.number(uint64(max(m.date.Unix(), 0)))
	if m.lastModified.IsZero() {
		p.number(0)
	} else {
		p.number(uint64(max(m.lastModified.Unix(), 0)) + 1)
	}
	p.number(uint64(m.swr.Milliseconds()))
	p.number(uint64(m.sie.Milliseconds()))
	fieldsAt = len(p.b)
	count := 0
	for _, f := range m.fields {
		count += len(f.values)
	}
	p.number(uint64(count))
	for _, f := range m.fields {
		for _, v := range f.values {
			p.name(f.name)
			p.text(v)
		}
	}
	return p.b, fieldsAt
}

// cursor reads a head. What is cut short or overlong reads as nothing, and sets bad.
type cursor struct {
	s   string
	bad bool
}

func (c *cursor) number() (n uint64) {
	for shift := 0; shift < 64; shift += 7 {
		if len(c.s) == 0 {
			break
		}
		b := c.s[0]
		c.s = c.s[1:]
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return n
		}
	}
	c.bad = true
	return 0
}

func (c *cursor) bytes(n uint64) string {
	if n > uint64(len(c.s)) {
		c.bad, c.s = true, ""
		return ""
	}
	s := c.s[:n]
	c.s = c.s[n:]
	return s
}

func (c *cursor) text() string { return c.bytes(c.number()) }

func (c *cursor) name() string {
	if id := c.number(); id != 0 {
		name := commonName(id)
		c.bad = c.bad || name == ""
		return name
	}
	return c.text()
}

// count reads how many things follow, each of which takes at least a byte.
func (c *cursor) count() int {
	n := c.number()
	if n > uint64(len(c.s)) {
		c.bad, c.s = true, ""
		return 0
	}
	return int(n)
}

func (c *cursor) lines() (lines []string) {
	for range c.count() {
		lines = append(lines, c.text())
	}
	return lines
}

func (c *cursor) skipLines() {
	for range c.count() {
		c.text()
	}
}

// selecting reads one field of a secondary key.
func (c *cursor) selecting() (name, value string, present bool) {
	name = c.name()
	if n := c.number(); n > 0 {
		return name, c.bytes(n - 1), true
	}
	return name, "", false
}

// key is the object's key.
func (o *object) key() Key {
	c := cursor{s: o.head}
	return o.keyAt(&c)
}

func (o *object) keyAt(c *cursor) Key {
	k := Key{Service: o.cells[0].service, Host: o.cells[1].name}
	k.Scheme, k.Port, k.Path, k.Query, k.Extra = c.text(), c.text(), c.text(), c.text(), c.text()
	return k
}

func (o *object) path() string {
	c := cursor{s: o.head}
	c.text()
	c.text()
	return c.text()
}

// isOf tells whether the object is of a URL, in whatever scheme and port.
func (o *object) isOf(u urlKey) bool { return o.key().url() == u }

// matches tells whether the object is of a key, and if so, whether it is the variant for a request: by the fields that its
// Vary names, or as it has none.
func (o *object) matches(k *Key, request http.Header) (key, selected, varies bool) {
	c := cursor{s: o.head}
	if o.keyAt(&c) != *k {
		return false, false, false
	}
	fields := c.count()
	for range fields {
		name, value, present := c.selecting()
		if v, have := fieldValue(request, name); v != value || have != present {
			return true, false, true
		}
	}
	return true, true, fields > 0
}

// afterKey is a cursor behind the key.
func (o *object) afterKey() cursor {
	c := cursor{s: o.head}
	for range 5 {
		c.text()
	}
	return c
}

// varyNames are the request fields that select the object.
func (o *object) varyNames() (names []string) {
	c := o.afterKey()
	for range c.count() {
		name, _, _ := c.selecting()
		names = append(names, name)
	}
	return names
}

// details are what of a head a hit doesn't need.
type details struct {
	upstream, targeted []string
	date, lastModified time.Time
	swr, sie           time.Duration
}

func (o *object) afterVary() cursor {
	c := o.afterKey()
	for range c.count() {
		c.selecting()
	}
	return c
}

// upstream are the Cache-Status lines of the caches behind.
func (o *object) upstream() []string {
	if o.state.Load()&hasUpstream == 0 {
		return nil
	}
	c := o.afterVary()
	return c.lines()
}

// windows are the times after expiry in which the object may be served stale (RFC 5861).
func (o *object) windows() (swr, sie time.Duration) {
	c := o.afterVary()
	c.skipLines()
	c.skipLines()
	c.number()
	c.number()
	return time.Duration(c.number()) * time.Millisecond, time.Duration(c.number()) * time.Millisecond
}

func (o *object) details() (d details) {
	c := o.afterVary()
	d.upstream, d.targeted = c.lines(), c.lines()
	d.date = time.Unix(int64(c.number()), 0)
	if at := c.number(); at > 0 {
		d.lastModified = time.Unix(int64(at-1), 0)
	}
	d.swr, d.sie = time.Duration(c.number())*time.Millisecond, time.Duration(c.number())*time.Millisecond
	return d
}

func (o *object) date() time.Time {
	c := o.afterVary()
	c.skipLines()
	c.skipLines()
	return time.Unix(int64(c.number()), 0)
}

// validators are what conditions are compared with.
func (o *object) validators() validators {
	d := o.details()
	return validators{status: int(o.status), etag: o.etag(), lastModified: d.lastModified, date: d.date}
}

// field is the first value of a stored field.
func (o *object) field(name string) string {
	c := cursor{s: o.head[o.fieldsAt:]}
	for range c.count() {
		n, v := c.name(), c.text()
		if n == name {
			return v
		}
	}
	return ""
}

func (o *object) etag() string { return validETag(o.field("Etag")) }

func (o *object) validatable() bool { return o.etag() != "" || !o.details().lastModified.IsZero() }

// header is the stored header as a map, for a revalidation to merge into.
func (o *object) header() http.Header {
	c := cursor{s: o.head[o.fieldsAt:]}
	n := c.count()
	h := make(http.Header, n+1)
	for range n {
		name, v := c.name(), c.text()
		h[name] = append(h[name], v)
	}
	d := o.details()
	if len(d.upstream) > 0 {
		h["Cache-Status"] = d.upstream
	}
	if len(d.targeted) > 0 {
		h["Landfall-Cache-Control"] = d.targeted
	}
	if o.is(isCoded) {
		h[HeaderCoded] = []string{"1"}
	}
	keys, groups := o.tags()
	if len(keys) > 0 {
		h[HeaderKey] = keys
	}
	if len(groups) > 0 {
		quoted := make([]string, len(groups))
		for i, g := range groups {
			quoted[i] = strconv.Quote(g) // a structured field's string, whose characters are printable ASCII
		}
		h["Cache-Groups"] = []string{strings.Join(quoted, ", ")}
	}
	return h
}

// tags are the surrogate keys and the cache groups.
func (o *object) tags() (keys, groups []string) {
	for _, c := range o.cells {
		switch c.kind {
		case ofKey:
			keys = append(keys, c.name)
		case ofGroup:
			_, name, _ := strings.Cut(c.name, "\n")
			groups = append(groups, name)
		}
	}
	return keys, groups
}
