package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"landfall/cache/disk"
)

const diskVersion = 1

// keptBits are those of an object's state that never change.
const keptBits = isLicensed | isNoCache | hasUpstream | isCoded | isImmutable

// diskHash is what the records of a URL are found by. Unlike the hash in memory it is the same after a restart, and can't
// be aimed at by who makes up URLs.
func diskHash(u urlKey) uint64 {
	var p packer
	for _, part := range [...]string{u.service, u.host, u.path, u.query} {
		p.text(part)
	}
	sum := sha256.Sum256(p.b)
	return binary.LittleEndian.Uint64(sum[:])
}

// diskRecord is an object in the form in which the disk has it.
func (o *object) diskRecord() disk.Record {
	k := o.key()
	keys, groups := o.tags()
	p := packer{make([]byte, 0, len(o.head)+256)}
	p.number(diskVersion)
	p.text(k.Service)
	p.text(k.Host)
	p.number(o.born.body)
	p.number(o.born.last)
	p.number(uint64(max(o.received, 0)))
	p.number(uint64(max(o.initialAge, 0)))
	p.number(uint64(max(o.fresh, 0)))
	p.number(uint64(max(o.softAt.Load(), 0)))
	p.number(uint64(o.length))
	p.number(uint64(o.state.Load() & keptBits))
	p.number(uint64(o.status))
	p.lines(keys)
	p.lines(groups)
	p.number(uint64(o.fieldsAt))
	p.text(o.head)
	return disk.Record{
		Hash: diskHash(k.url()), Variant: o.diskVariant(), Born: max(o.born.body, o.born.last), Head: p.b, Body: o.body,
	}
}

// diskVariant tells the records of a URL apart: by key and selecting fields.
func (o *object) diskVariant() uint64 {
	rest := o.afterVary()
	return xxhash.Sum64String(o.head[:len(o.head)-len(rest.s)])
}

// loaded is a record as the disk gave it.
type loaded struct {
	object
	service, host string
	keys, groups  []string
}

var errRecord = errors.New("the record is of another version or not whole")

// readRecord reads a record's head. It accepts any bytes, and gives out only what can be served without a further check.
func readRecord(b []byte) (*loaded, error) {
	c := cursor{s: string(b)}
	if c.number() != diskVersion {
		return nil, errRecord
	}
	l := &loaded{service: c.text(), host: c.text()}
	l.born = born{c.number(), c.number()}
	l.received, l.initialAge, l.fresh = int64(c.number()), time.Duration(c.number()), time.Duration(c.number())
	l.softAt.Store(int64(c.number()))
	l.length = int64(c.number())
	l.set(uint32(c.number()) & keptBits)
	l.status = uint16(c.number())
	l.keys, l.groups = c.lines(), c.lines()
	fieldsAt := c.number()
	l.head = c.text()
	bad := c.bad || c.s != "" || l.status < 200 || l.status > 999 || l.length < 0 || l.received < 0 || l.initialAge < 0 || l.fresh < 0
	if bad || len(l.keys) > maxKeys || len(l.groups) > maxGroups || fieldsAt > uint64(len(l.head)) || !wholeHead(l.head, int(fieldsAt)) {
		return nil, errRecord
	}
	l.fieldsAt = uint32(fieldsAt)
	return l, nil
}

// wholeHead tells whether a head can be read from begin to end, with its fields where they are said to be.
func wholeHead(head string, fieldsAt int) bool {
	c := cursor{s: head}
	for range 5 {
		c.text()
	}
	for range c.count() {
		c.selecting()
	}
	c.skipLines()
	c.skipLines()
	for range 4 {
		c.number()
	}
	if c.bad || len(head)-len(c.s) != fieldsAt {
		return false
	}
	for range c.count() {
		c.name()
		c.text()
	}
	return !c.bad && c.s == ""
}

// names are the cells of a record.
func (l *loaded) names(k Key) []cellName {
	names := []cellName{{l.service, ofService, ""}, {l.service, ofHost, l.host}, k.url().cell()}
	if n, ok := k.searchCell(); ok {
		names = append(names, n)
	}
	for _, key := range l.keys {
		names = append(names, cellName{l.service, ofKey, key})
	}
	for _, g := range l.groups {
		names = append(names, k.group(g))
	}
	return names
}

// key is the record's key; its cells are not there yet.
func (l *loaded) key() Key {
	l.cells = []*cell{{cellName: cellName{l.service, ofService, ""}}, {cellName: cellName{l.service, ofHost, l.host}}}
	return l.object.key()
}

// answers tells whether a record is the variant for a request.
func (l *loaded) answers(k *Key, header http.Header) (key, selected bool) {
	l.key()
	key, selected, _ = l.matches(k, header)
	return key, selected
}

// object links the record to its cells. size is of its body.
func (c *Cache) loadedObject(l *loaded, k Key, body [][]byte) *object {
	o := &object{
		head: l.head, fieldsAt: l.fieldsAt, body: body, hash: k.url().hash(c.store.seed), born: l.born, received: l.received,
		initialAge: l.initialAge, fresh: l.fresh, length: l.length, status: l.status,
	}
	o.state.Store(l.state.Load())
	o.softAt.Store(l.softAt.Load())
	c.link(o, k, l.keys, l.groups)
	o.size = l.headSize(k) + bodyBytes(body)
	return o
}

func (l *loaded) headSize(k Key) int64 {
	return headBytes(len(l.head), k, &meta{keys: l.keys, groups: l.groups})
}

// cell is the name of the cell in which purges of a URL are left for what is on disk.
func (u urlKey) cell() cellName {
	var p packer
	for _, part := range [...]string{u.host, u.path, u.query} {
		p.text(part)
	}
	return cellName{u.service, ofURL, string(p.b)}
}

// spoils tells whether purges took a record: hard, or at all.
func (g *generations) spoils(names []cellName, path string, b born) (f fate) {
	cells := make([]*cell, 0, len(names))
	for _, n := range names {
		if c := g.peek(n); c != nil {
			cells = append(cells, c)
		}
	}
	f, _ = fateOf(slices.Clip(cells), path, b, 0)
	return f
}
