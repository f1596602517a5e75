package disk

import (
	"encoding/binary"
	"errors"

	"github.com/cespare/xxhash/v2"
)

// Record is what is kept.
type Record struct {
	Hash    uint64   // what it is found by; records of different things may share it
	Variant uint64   // a new record with the same Hash and Variant takes the place of the old one
	Born    uint64   // a number of the caller's; Store.MaxBorn is the largest
	Head    []byte   // at most MaxHead bytes
	Body    [][]byte // must not change until it is written
}

// MaxHead bounds the head of a record.
const MaxHead = 1 << 20

// A record begins with this, in little-endian order, then come head and body. The next one begins at a multiple of 8.
//
//	0  magic     4
//	4  head      4  length
//	8  body      8  length
//	16 hash      8
//	24 variant   8
//	32 born      8
//	40 body sum  8  xxHash of the body
//	48 head sum  8  xxHash of segment, offset, all of the above and the head
const (
	prefixSize = 56
	align      = 8
	magicPut   = 0x1f9d5a01
	magicDrop  = 0x1f9d5a02 // a removal: no head and no body
)

var errCorrupt = errors.New("the record's checksum doesn't match")

// prefix is the begin of a record.
type prefix struct {
	magic         uint32
	head          uint32
	body          uint64
	hash, variant uint64
	born, bodySum uint64
	headSum       uint64
}

func (p *prefix) encode(b []byte) {
	binary.LittleEndian.PutUint32(b[0:], p.magic)
	binary.LittleEndian.PutUint32(b[4:], p.head)
	binary.LittleEndian.PutUint64(b[8:], p.body)
	binary.LittleEndian.PutUint64(b[16:], p.hash)
	binary.LittleEndian.PutUint64(b[24:], p.variant)
	binary.LittleEndian.PutUint64(b[32:], p.born)
	binary.LittleEndian.PutUint64(b[40:], p.bodySum)
	binary.LittleEndian.PutUint64(b[48:], p.headSum)
}

func decodePrefix(b []byte) prefix {
	return prefix{
		magic: binary.LittleEndian.Uint32(b[0:]), head: binary.LittleEndian.Uint32(b[4:]), body: binary.LittleEndian.Uint64(b[8:]),
		hash: binary.LittleEndian.Uint64(b[16:]), variant: binary.LittleEndian.Uint64(b[24:]), born: binary.LittleEndian.Uint64(b[32:]),
		bodySum: binary.LittleEndian.Uint64(b[40:]), headSum: binary.LittleEndian.Uint64(b[48:]),
	}
}

// plausible tells whether a record with this begin can be whole within room bytes.
func (p *prefix) plausible(room int64) bool {
	if p.magic == magicDrop {
		return p.head == 0 && p.body == 0
	}
	return p.magic == magicPut && p.head <= MaxHead && p.body <= uint64(room) && p.size() <= room
}

// size is what the record takes in its segment.
func (p *prefix) size() int64 {
	return (prefixSize + int64(p.head) + int64(p.body) + align - 1) / align * align
}

// sum is the checksum of a begin and its head at a place.
func (p *prefix) sum(segment uint32, offset int64, head []byte) uint64 {
	var b [16 + prefixSize]byte
	binary.LittleEndian.PutUint64(b[0:], uint64(segment))
	binary.LittleEndian.PutUint64(b[8:], uint64(offset))
	q := *p
	q.headSum = 0
	q.encode(b[16:])
	d := xxhash.New()
	_, _ = d.Write(b[:])
	_, _ = d.Write(head)
	return d.Sum64()
}

func bodySum(body [][]byte) uint64 {
	d := xxhash.New()
	for _, chunk := range body {
		_, _ = d.Write(chunk)
	}
	return d.Sum64()
}
