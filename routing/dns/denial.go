package dns

import (
	"slices"

	mdns "github.com/miekg/dns"
)

// types lists the types that n has records of, for its NSEC record. A name whose addresses are steered has those that it
// would be answered with now.
func (l *look) types(n *name, z *zone, e *entry) []uint16 {
	var out []uint16
	if e == &z.top {
		out = append(out, mdns.TypeSOA, mdns.TypeNS)
		now := l.s.now()
		for _, t := range []uint16{mdns.TypeDNSKEY, mdns.TypeCDS, mdns.TypeCDNSKEY} {
			if z.keySet(t, now) != nil {
				out = append(out, t)
			}
		}
	}
	if e != nil {
		for i := range e.sets {
			out = append(out, e.sets[i].rtype)
		}
		// An alias has nothing else, and a delegation no addresses of ours, even where Steer has the host.
		if e.set(mdns.TypeCNAME) != nil || e != &z.top && e.set(mdns.TypeNS) != nil {
			return out
		}
	}
	if e != nil && e.nameserver >= 0 {
		for t, v6 := range map[uint16]bool{mdns.TypeA: false, mdns.TypeAAAA: true} {
			if nth(l.s.glue(), e.nameserver, v6).IsValid() {
				out = append(out, t)
			}
		}
		return out
	}
	// A wildcard's name is asked for too: Steer may know it, and then it is not the wildcard that answers.
	v4, _ := l.resolve(n, e, false, 1)
	v6, _ := l.resolve(n, e, true, 1)
	if len(ofFamily(v4.Addrs, false, 1)) > 0 {
		out = append(out, mdns.TypeA)
	}
	if len(ofFamily(v6.Addrs, true, 1)) > 0 {
		out = append(out, mdns.TypeAAAA)
	}
	if v4.Known && z.https != nil {
		out = append(out, mdns.TypeHTTPS)
	}
	return out
}

// nsec is the record that proves that owner has no records but of the types given, and of RRSIG and NSEC. The next name
// is the one right behind it in canonical order, so that it says nothing of any other (RFC 9824 §3.1).
func nsec(owner *name, z *zone, types []uint16) set {
	types = append(types, mdns.TypeRRSIG, mdns.TypeNSEC)
	slices.Sort(types)
	data := appendNext(nil, owner)
	return set{owner: owner, zone: z, rtype: mdns.TypeNSEC, ttl: z.negTTL, data: appendTypes(data, slices.Compact(types))}
}

// appendNext appends the name that follows n: a child whose label is one zero byte, or, where that would be too long, n
// with a zero byte at the end of its first label or with the label's last byte one up (RFC 4471 §3.1.2).
func appendNext(dst []byte, n *name) []byte {
	if n.length+2 <= maxName {
		return append(append(dst, 1, 0), n.bytes()...)
	}
	at := len(dst)
	dst = append(dst, n.bytes()...)
	if size := int(dst[at]); size < 63 && n.length < maxName {
		dst[at]++
		return slices.Insert(dst, at+1+size, 0)
	}
	for i := at + int(dst[at]); i > at; i-- {
		if dst[i] < 0xFF {
			dst[i]++
			if 'A' <= dst[i] && dst[i] <= 'Z' { // capitals sort as small letters do
				dst[i] = 'Z' + 1
			}
			return dst
		}
	}
	return dst
}

// appendTypes appends the bitmap of types, which are sorted and distinct (RFC 4034 §4.1.2).
func appendTypes(dst []byte, types []uint16) []byte {
	for i := 0; i < len(types); {
		window := byte(types[i] >> 8)
		var bits [32]byte
		size := 0
		for ; i < len(types) && byte(types[i]>>8) == window; i++ {
			low := byte(types[i])
			bits[low/8] |= 0x80 >> (low % 8)
			size = int(low/8) + 1
		}
		dst = append(dst, window, byte(size))
		dst = append(dst, bits[:size]...)
	}
	return dst
}
