package dns

import (
	"bytes"
	"net/netip"
	"slices"

	mdns "github.com/miekg/dns"
)

// rrset is the records of one owner and type that the config fixes.
type rrset struct {
	rtype   uint16
	ttl     uint32
	data    [][]byte // canonical (RFC 4034 §6.2): not compressed, names in lower case; sorted, none twice (§6.3)
	targets []name   // NS and CNAME: what each data names
}

func (s *rrset) add(data []byte) error {
	at, found := slices.BinarySearchFunc(s.data, data, bytes.Compare)
	if found {
		return nil
	}
	var target name
	if s.hasTargets() {
		if _, err := target.parse(data); err != nil {
			return err
		}
		s.targets = slices.Insert(s.targets, at, target)
	}
	s.data = slices.Insert(s.data, at, data)
	return nil
}

func (s *rrset) hasTargets() bool { return s.rtype == mdns.TypeNS || s.rtype == mdns.TypeCNAME }

// set is one set of records of an answer, before it is written: addrs, or fixed, or data (one record made for this
// answer), or, for type SOA, none of them.
type set struct {
	owner *name
	zone  *zone // it lies in, which signs it
	rtype uint16
	ttl   uint32
	addrs []netip.Addr
	fixed *rrset
	data  []byte
}

// appendData appends the data of the set's records to dst, each as it is signed: with the owner, type, class and TTL
// before it and its length (RFC 4034 §3.1.8.1).
func (s *set) appendSigned(dst []byte, serial uint32) []byte {
	head := func(size int) {
		dst = append(dst, s.owner.bytes()...)
		dst = append(dst, byte(s.rtype>>8), byte(s.rtype), 0, mdns.ClassINET, byte(s.ttl>>24), byte(s.ttl>>16), byte(s.ttl>>8), byte(s.ttl),
			byte(size>>8), byte(size))
	}
	switch {
	case s.addrs != nil:
		var buf [maxAnswers]netip.Addr
		for i, a := range sorted(buf[:0], s.addrs) {
			if i > 0 && a == buf[i-1] {
				continue
			}
			if a.Is4() {
				b := a.As4()
				head(4)
				dst = append(dst, b[:]...)
			} else {
				b := a.As16()
				head(16)
				dst = append(dst, b[:]...)
			}
		}
	case s.fixed != nil:
		for _, d := range s.fixed.data {
			head(len(d))
			dst = append(dst, d...)
		}
	case s.rtype == mdns.TypeSOA:
		size := s.zone.nameservers[0].length + s.zone.mailbox.length + 20
		head(size)
		dst = append(dst, s.zone.nameservers[0].bytes()...)
		dst = append(dst, s.zone.mailbox.bytes()...)
		dst = appendSOATimers(dst, s.zone, serial)
	default:
		head(len(s.data))
		dst = append(dst, s.data...)
	}
	return dst
}

// sorted appends addrs, sorted, to dst. All are of one family, of which IPv4 may come in its IPv6 form.
func sorted(dst, addrs []netip.Addr) []netip.Addr {
	for _, a := range addrs {
		a = a.Unmap()
		i := len(dst)
		dst = append(dst, a)
		for ; i > 0 && a.Less(dst[i-1]); i-- {
			dst[i] = dst[i-1]
		}
		dst[i] = a
	}
	return dst
}

// set returns the records of a type that the config fixes at a name, or nil. A nil entry has none.
func (e *entry) set(rtype uint16) *rrset {
	if e == nil {
		return nil
	}
	for i := range e.sets {
		if e.sets[i].rtype == rtype {
			return &e.sets[i]
		}
	}
	return nil
}
