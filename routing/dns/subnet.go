package dns

import (
	"encoding/binary"
	"net/netip"

	mdns "github.com/miekg/dns"
)

// What is used of a client's subnet at most, in bits: what RFC 7871 §11.1 recommends resolvers to send. More would
// split their caches into answers that are the same.
const (
	maxPrefix4 = 24
	maxPrefix6 = 56
)

// subnet is a query's client subnet option (RFC 7871 §6).
type subnet struct {
	raw    []byte     // as it came: the answer has the same family, source prefix and address (§7.2.1)
	addr   netip.Addr // invalid when the source prefix is 0
	source int        // bits
}

func (s *subnet) present() bool { return s.raw != nil }

// parseSubnet reads the option's data. ok is false where RFC 7871 §6 asks for FORMERR: an address of the wrong length,
// with bits set behind the source prefix, or of no known family, or a scope in a query.
func parseSubnet(b []byte) (s subnet, ok bool) {
	if len(b) < 4 {
		return s, false
	}
	family, source, scope, addr := binary.BigEndian.Uint16(b), int(b[2]), b[3], b[4:]
	if scope != 0 || len(addr) != (source+7)/8 {
		return s, false
	}
	s = subnet{raw: b, source: source}
	var full [16]byte
	switch {
	case family == 0: // dig +subnet=0 sends this: no address, no family
		return s, source == 0
	case family == 1 && source <= 32:
		copy(full[:4], addr)
		s.addr = netip.AddrFrom4([4]byte(full[:4]))
	case family == 2 && source <= 128:
		copy(full[:], addr)
		s.addr = netip.AddrFrom16(full)
	default:
		return s, false
	}
	if source == 0 {
		s.addr = netip.Addr{}
		return s, true
	}
	// Compared as it came: netip would see an IPv4 address in ::ffff:0:0/96.
	prefix, err := s.addr.Prefix(source)
	if err != nil || prefix.Addr() != s.addr {
		return s, false
	}
	return s, true
}

// client is whom an answer is for.
type client struct {
	addr netip.Addr
	// What the scope of an answer may be: fixed, or at most limit bits.
	fixed bool
	scope uint8
	limit uint8
}

// whom chooses between the client subnet and the resolver that sent the query.
func whom(s *subnet, resolver netip.Addr) client {
	switch {
	case !s.addr.IsValid():
		// No option, or source prefix 0: the client wants not to be looked at (§7.1.2). The resolver's own address is
		// what is left, and the answer is for all of its clients.
		return client{addr: resolver, fixed: true}
	case s.addr.IsPrivate() && !resolver.IsPrivate() && !resolver.IsLoopback():
		// §10: a private address that comes by way of the public Internet says nothing.
		return client{addr: resolver, fixed: true, scope: privateBits(s.addr)}
	}
	limit := maxPrefix6
	if s.addr.Is4() {
		limit = maxPrefix4
	}
	p, err := s.addr.Prefix(min(s.source, limit))
	if err != nil {
		return client{addr: resolver, fixed: true}
	}
	return client{addr: p.Addr().Unmap(), limit: uint8(limit)}
}

// scopeOf is the scope of an answer that depended on bits of the client's address. It may be longer than the query's
// source prefix: then a longer one would get a better answer (§7.2.1).
func (c client) scopeOf(bits uint8) uint8 {
	if c.fixed {
		return c.scope
	}
	return min(bits, c.limit)
}

// privateBits is the length of the private block that a lies in (RFC 1918, RFC 4193).
func privateBits(a netip.Addr) uint8 {
	switch b := a.AsSlice(); {
	case !a.Is4():
		return 7
	case b[0] == 10:
		return 8
	case b[0] == 172:
		return 12
	default:
		return 16
	}
}

// appendSubnet writes the option of an answer.
func appendSubnet(b []byte, s *subnet, scope uint8) []byte {
	b = binary.BigEndian.AppendUint16(b, mdns.EDNS0SUBNET)
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.raw)))
	at := len(b)
	b = append(b, s.raw...)
	b[at+3] = scope
	return b
}
