package dns

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	mdns "github.com/miekg/dns"
)

// Timers of the SOA record, in seconds, for secondaries that copy zones; ours are never copied. Values as RFC 1912 §2.2
// has them.
const (
	soaRefresh = 7200
	soaRetry   = 900
	soaExpire  = 1209600
)

// pointer marks a compression pointer (RFC 1035 §4.1.4).
const pointer = 0xC000

// writer appends one message to buf.
type writer struct {
	buf    []byte
	base   int // where the message begins
	zone   *zone
	apexAt int // offset in the message where the zone's apex is written out: in the question
}

// write appends the answer to q that r describes. truncate leaves the records out and sets TC.
func (s *Server) write(dst []byte, q *query, r *reply, truncate bool) []byte {
	w := writer{buf: dst, base: len(dst), zone: r.zone, apexAt: headerSize + r.apexAt}
	flags := flagQR | q.flags&(0xF<<11|flagRD|flagCD) | uint16(r.rcode&0xF)
	if r.zone != nil {
		flags |= flagAA
	}
	w.buf = append(w.buf, make([]byte, headerSize)...)
	w.buf = append(w.buf, q.question...)

	limit := w.base + q.limit() - optSize(q)
	mark, counts := len(w.buf), [4]uint16{}
	if q.question != nil {
		counts[0] = 1
	}
	if !truncate {
		counts[1], counts[2] = s.writeRecords(&w, r)
		if truncate = len(w.buf) > limit; !truncate && r.kind == kindNS {
			counts[3] = w.glue(s.glue(), limit)
		} else if truncate {
			s.metrics.truncatedSize.Inc()
		}
	}
	if truncate {
		w.buf = w.buf[:mark]
		flags |= flagTC
		counts[1], counts[2] = 0, 0
	}
	if q.edns {
		w.opt(q, r)
		counts[3]++
	}
	head := w.buf[w.base:]
	binary.BigEndian.PutUint16(head, q.id)
	binary.BigEndian.PutUint16(head[2:], flags)
	for i, c := range counts {
		binary.BigEndian.PutUint16(head[4+2*i:], c)
	}
	return w.buf
}

// writeRecords writes the records without which the answer would be wrong. It returns how many went into the answer and
// the authority section.
func (s *Server) writeRecords(w *writer, r *reply) (answer, authority uint16) {
	switch r.kind {
	case kindAddrs:
		for _, a := range r.addrs {
			w.owner(headerSize)
			w.address(a)
		}
		return uint16(len(r.addrs)), 0
	case kindNS:
		for i := range r.zone.nameservers {
			w.owner(headerSize)
			w.head(mdns.TypeNS, r.zone.ttl)
			w.sized(func() { w.name(&r.zone.nameservers[i]) })
		}
		return uint16(len(r.zone.nameservers)), 0
	case kindSOA:
		w.soa(r.zone.ttl, s.serial())
		return 1, 0
	case kindAny:
		w.owner(headerSize)
		w.head(mdns.TypeHINFO, r.zone.ttl)
		w.sized(func() { w.buf = append(w.buf, "\x07RFC8482\x00"...) }) // RFC 8482 §4.2
		return 1, 0
	case kindNegative:
		// The SOA's own TTL is the negative one here, as RFC 2308 §3 wants.
		w.soa(r.zone.negTTL, s.serial())
		return 0, 1
	}
	return 0, 0
}

// owner writes an owner that stands at offset at of the message already.
func (w *writer) owner(at int) { w.u16(pointer | uint16(at)) }

func (w *writer) u16(v uint16) { w.buf = binary.BigEndian.AppendUint16(w.buf, v) }
func (w *writer) u32(v uint32) { w.buf = binary.BigEndian.AppendUint32(w.buf, v) }

// head writes type, class and TTL.
func (w *writer) head(rtype uint16, ttl uint32) {
	w.u16(rtype)
	w.u16(mdns.ClassINET)
	w.u32(ttl)
}

// sized writes what body writes with its length before it.
func (w *writer) sized(body func()) {
	at := len(w.buf)
	w.u16(0)
	body()
	binary.BigEndian.PutUint16(w.buf[at:], uint16(len(w.buf)-at-2))
}

// address writes an A or AAAA record after its owner.
func (w *writer) address(a netip.Addr) {
	if a.Is4() || a.Is4In6() {
		b := a.As4()
		w.head(mdns.TypeA, w.zone.ttl)
		w.u16(4)
		w.buf = append(w.buf, b[:]...)
		return
	}
	b := a.As16()
	w.head(mdns.TypeAAAA, w.zone.ttl)
	w.u16(16)
	w.buf = append(w.buf, b[:]...)
}

// name writes a name; what it shares with the zone's apex becomes a pointer into the question.
func (w *writer) name(n *name) {
	apex := &w.zone.apex
	if i := n.nLabels - apex.nLabels; i >= 0 && bytes.Equal(n.suffix(i), apex.bytes()) {
		w.buf = append(w.buf, n.wire[:n.length-apex.length]...)
		w.owner(w.apexAt)
		return
	}
	w.buf = append(w.buf, n.bytes()...)
}

// soa writes the zone's SOA record. Its minimum is the negative TTL (RFC 2308 §4).
func (w *writer) soa(ttl, serial uint32) {
	w.owner(w.apexAt)
	w.head(mdns.TypeSOA, ttl)
	w.sized(func() {
		w.name(&w.zone.nameservers[0])
		w.name(&w.zone.mailbox)
		w.u32(serial)
		w.u32(soaRefresh)
		w.u32(soaRetry)
		w.u32(soaExpire)
		w.u32(w.zone.negTTL)
	})
}

// glue writes the addresses of those of the zone's nameservers that lie in the zone, as far as they fit under limit: the
// NS records are the answer, the glue saves a question. It returns the number of records.
func (w *writer) glue(addrs []netip.Addr, limit int) (records uint16) {
	for i := range w.zone.nameservers {
		e := w.zone.names[string(w.zone.nameservers[i].bytes())]
		if e == nil || e.nameserver < 0 {
			continue
		}
		for _, v6 := range []bool{false, true} {
			a := nth(addrs, e.nameserver, v6)
			if !a.IsValid() {
				continue
			}
			mark := len(w.buf)
			w.name(&w.zone.nameservers[i])
			w.address(a)
			if len(w.buf) > limit {
				w.buf = w.buf[:mark]
				return records
			}
			records++
		}
	}
	return records
}

// optSize is the length of the OPT record that the answer to q needs.
func optSize(q *query) int {
	if !q.edns {
		return 0
	}
	if !q.subnet.present() {
		return 11
	}
	return 11 + 4 + len(q.subnet.raw)
}

// opt writes the OPT record (RFC 6891 §6.1.2): our own size, version 0, and DO as it came (RFC 3225 §3).
func (w *writer) opt(q *query, r *reply) {
	w.buf = append(w.buf, 0)
	w.u16(mdns.TypeOPT)
	w.u16(maxUDP)
	ttl := uint32(r.rcode>>4) << 24
	if q.do {
		ttl |= 1 << 15
	}
	w.u32(ttl)
	w.sized(func() {
		if q.subnet.present() {
			w.buf = appendSubnet(w.buf, &q.subnet, r.scope)
		}
	})
}
