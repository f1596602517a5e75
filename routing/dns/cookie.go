package dns

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"time"
)

// Sizes of cookies, in bytes (RFC 7873 §4, RFC 9018 §4).
const (
	clientCookie = 8
	serverCookie = 16
)

// How old a server cookie may be, how far ahead of our clock, and when a client gets a new one (RFC 9018 §4.3).
const (
	cookieAge   = time.Hour
	cookieAhead = 5 * time.Minute
	cookieRenew = 30 * time.Minute
)

// cookies makes and checks server cookies. Its secret is this process's own: each node has its own address, so nobody
// brings it a cookie of another node.
type cookies struct{ k0, k1 uint64 }

func newCookies() cookies {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return cookies{binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])}
}

// validCookieSize tells whether a COOKIE option may have this size (RFC 7873 §4).
func validCookieSize(n int) bool { return n == clientCookie || n >= 16 && n <= 40 }

// make appends the server cookie for a client's cookie: version 1, three bytes reserved, the time, a hash of all that
// and the client's address (RFC 9018 §4).
func (c cookies) make(dst, client []byte, from netip.Addr, at uint32) []byte {
	var in [clientCookie + 8 + 16]byte
	copy(in[:], client[:clientCookie])
	in[clientCookie] = 1
	binary.BigEndian.PutUint32(in[clientCookie+4:], at)
	n := clientCookie + 8 + copy(in[clientCookie+8:], from.Unmap().AsSlice())
	dst = append(dst, in[clientCookie:clientCookie+8]...)
	return binary.LittleEndian.AppendUint64(dst, sipHash24(c.k0, c.k1, in[:n]))
}

// check tells whether a COOKIE option, of a valid size, has a server cookie that we gave this client lately.
func (c cookies) check(cookie []byte, from netip.Addr, now time.Time) (valid, fresh bool) {
	if len(cookie) != clientCookie+serverCookie || cookie[clientCookie] != 1 {
		return false, false
	}
	at := binary.BigEndian.Uint32(cookie[clientCookie+4:])
	age := time.Duration(int32(uint32(now.Unix())-at)) * time.Second // serial arithmetic (RFC 1982)
	if age > cookieAge || age < -cookieAhead {
		return false, false
	}
	var buf [serverCookie]byte
	want := c.make(buf[:0], cookie, from, at)
	return string(want) == string(cookie[clientCookie:]), age < cookieRenew
}

// sipHash24 is SipHash-2-4 (Aumasson and Bernstein 2012), a keyed hash for short inputs.
func sipHash24(k0, k1 uint64, p []byte) uint64 {
	v0, v1, v2, v3 := k0^0x736f6d6570736575, k1^0x646f72616e646f6d, k0^0x6c7967656e657261, k1^0x7465646279746573
	round := func() {
		v0 += v1
		v1 = bits.RotateLeft64(v1, 13) ^ v0
		v0 = bits.RotateLeft64(v0, 32)
		v2 += v3
		v3 = bits.RotateLeft64(v3, 16) ^ v2
		v0 += v3
		v3 = bits.RotateLeft64(v3, 21) ^ v0
		v2 += v1
		v1 = bits.RotateLeft64(v1, 17) ^ v2
		v2 = bits.RotateLeft64(v2, 32)
	}
	last := uint64(len(p)) << 56
	for ; len(p) >= 8; p = p[8:] {
		m := binary.LittleEndian.Uint64(p)
		v3 ^= m
		round()
		round()
		v0 ^= m
	}
	for i, b := range p {
		last |= uint64(b) << (8 * i)
	}
	v3 ^= last
	round()
	round()
	v0 ^= last
	v2 ^= 0xff
	for range 4 {
		round()
	}
	return v0 ^ v1 ^ v2 ^ v3
}
