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
	asked  *name
	serial uint32
}

// write appends the answer to q that r describes. truncate leaves the records out and sets TC.
func (s *Server) write(dst []byte, q *query, r *reply, from netip.Addr, truncate bool) []byte {
	w := writer{buf: dst, base: len(dst), zone: r.zone, apexAt: headerSize + r.apexAt, asked: &q.name, serial: r.serial}
	flags := flagQR | q.flags&(0xF<<11|flagRD|flagCD) | uint16(r.rcode&0xF)
	if r.zone != nil && !r.referral {
		flags |= flagAA
	}
	w.buf = append(w.buf, make([]byte, headerSize)...)
	w.buf = append(w.buf, q.question...)

	limit := w.base + q.limit() - s.optSize(q)
	mark, counts := len(w.buf), [4]uint16{}
	if q.question != nil {
		counts[0] = 1
	}
	if !truncate {
		counts[1] = s.writeSets(&w, q, r.answer)
		counts[2] = s.writeSets(&w, q, r.authority)
		if truncate = len(w.buf) > limit; !truncate {
			counts[3], truncate = s.writeGlue(&w, r, limit)
		}
		if truncate {
			s.metrics.truncatedSize.Inc()
		}
	}
	if truncate {
		w.buf = w.buf[:mark]
		flags |= flagTC
		counts[1], counts[2], counts[3] = 0, 0, 0
	}
	if q.edns {
		s.opt(&w, q, r, from)
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

// writeSets writes the records without which the answer would be wrong, each set with its signatures where the client
// wants them and the zone has them; a delegation is not ours to sign. It returns how many records there are.
func (s *Server) writeSets(w *writer, q *query, sets []set) (records uint16) {
	for i := range sets {
		st := &sets[i]
		records += w.set(st)
		if q.do && st.zone.keys != nil && (st.rtype != mdns.TypeNS || st.owner.length == st.zone.apex.length) {
			records += s.sign(w, st)
		}
	}
	return records
}

// set writes a set's records and returns how many.
func (w *writer) set(st *set) (records uint16) {
	switch {
	case st.addrs != nil:
		for _, a := range st.addrs {
			w.owner(st.owner)
			w.address(a, st.ttl)
		}
		return uint16(len(st.addrs))
	case st.fixed != nil:
		for i, data := range st.fixed.data {
			w.owner(st.owner)
			w.head(st.rtype, st.ttl)
			if st.fixed.targets != nil {
				w.sized(func() { w.name(&st.fixed.targets[i]) })
				continue
			}
			w.u16(uint16(len(data)))
			w.buf = append(w.buf, data...)
		}
		return uint16(len(st.fixed.data))
	case st.rtype == mdns.TypeSOA:
		w.soa(st)
	default:
		w.owner(st.owner)
		w.head(st.rtype, st.ttl)
		w.u16(uint16(len(st.data)))
		w.buf = append(w.buf, st.data...)
	}
	return 1
}

// owner writes a record's owner: most often the question's name, which stands behind the header.
func (w *writer) owner(n *name) {
	if n == w.asked {
		w.pointer(headerSize)
		return
	}
	w.name(n)
}

// pointer refers to a name that stands at offset at of the message.
func (w *writer) pointer(at int) { w.u16(pointer | uint16(at)) }

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
func (w *writer) address(a netip.Addr, ttl uint32) {
	if a.Is4() || a.Is4In6() {
		b := a.As4()
		w.head(mdns.TypeA, ttl)
		w.u16(4)
		w.buf = append(w.buf, b[:]...)
		return
	}
	b := a.As16()
	w.head(mdns.TypeAAAA, ttl)
	w.u16(16)
	w.buf = append(w.buf, b[:]...)
}

// name writes a name; what it shares with the zone's apex becomes a pointer into the question.
func (w *writer) name(n *name) {
	apex := &w.zone.apex
	if i := n.nLabels - apex.nLabels; i >= 0 && bytes.Equal(n.suffix(i), apex.bytes()) {
		w.buf = append(w.buf, n.wire[:n.length-apex.length]...)
		w.pointer(w.apexAt)
		return
	}
	w.buf = append(w.buf, n.bytes()...)
}

// soa writes a zone's SOA record. Its minimum is the negative TTL (RFC 2308 §4).
func (w *writer) soa(st *set) {
	w.owner(st.owner)
	w.head(mdns.TypeSOA, st.ttl)
	w.sized(func() {
		w.name(&st.zone.nameservers[0])
		w.name(&st.zone.mailbox)
		w.buf = appendSOATimers(w.buf, st.zone, w.serial)
	})
}

func appendSOATimers(dst []byte, z *zone, serial uint32) []byte {
	for _, v := range [...]uint32{serial, soaRefresh, soaRetry, soaExpire, z.negTTL} {
		dst = binary.BigEndian.AppendUint32(dst, v)
	}
	return dst
}

// writeGlue writes the addresses of the name servers that the answer names. Behind the zone's own NS records they save a
// question, and go as far as there is room. In a referral there is no other way to learn them: cut tells that they did
// not fit (RFC 9471 §3.1).
func (s *Server) writeGlue(w *writer, r *reply, limit int) (records uint16, cut bool) {
	if len(r.answer) > 0 && r.answer[0].fixed == &r.zone.ns {
		return w.ownGlue(s.glue(), limit), false
	}
	if !r.referral {
		return 0, false
	}
	st := &r.authority[0]
	for i := range st.fixed.targets {
		target := &st.fixed.targets[i]
		e := st.zone.names[string(target.bytes())]
		for _, rtype := range []uint16{mdns.TypeA, mdns.TypeAAAA} {
			if rrs := e.set(rtype); rrs != nil {
				records += w.set(&set{owner: target, zone: st.zone, rtype: rtype, ttl: rrs.ttl, fixed: rrs})
			}
		}
	}
	return records, len(w.buf) > limit
}

// ownGlue writes the addresses of those of the zone's nameservers that lie in the zone, as far as they fit under limit.
func (w *writer) ownGlue(addrs []netip.Addr, limit int) (records uint16) {
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
			w.address(a, w.zone.ttl)
			if len(w.buf) > limit {
				w.buf = w.buf[:mark]
				return records
			}
			records++
		}
	}
	return records
}

// optSize is the length of the OPT record that the answer to q needs, at most.
func (s *Server) optSize(q *query) int {
	if !q.edns {
		return 0
	}
	size := 11
	if q.subnet.present() {
		size += 4 + len(q.subnet.raw)
	}
	if q.cookie != nil {
		size += 4 + clientCookie + serverCookie
	}
	if q.nsid && len(s.nsid) > 0 {
		size += 4 + len(s.nsid)
	}
	return size
}

// opt writes the OPT record (RFC 6891 §6.1.2): our own size, version 0, and DO and CO as they came (RFC 3225 §3,
// RFC 9824 §5.1).
func (s *Server) opt(w *writer, q *query, r *reply, from netip.Addr) {
	w.buf = append(w.buf, 0)
	w.u16(mdns.TypeOPT)
	w.u16(maxUDP)
	ttl := uint32(r.rcode>>4) << 24
	if q.do {
		ttl |= flagDO
	}
	if q.compactOK {
		ttl |= flagCO
	}
	w.u32(ttl)
	w.sized(func() {
		if q.subnet.present() {
			w.buf = appendSubnet(w.buf, &q.subnet, r.scope)
		}
		if q.cookie != nil {
			w.u16(mdns.EDNS0COOKIE)
			w.u16(clientCookie + serverCookie)
			if q.cookieFresh {
				w.buf = append(w.buf, q.cookie...)
			} else {
				w.buf = append(w.buf, q.cookie[:clientCookie]...)
				w.buf = s.cookies.make(w.buf, q.cookie, from, uint32(s.now().Unix()))
			}
		}
		if q.nsid && len(s.nsid) > 0 {
			w.u16(mdns.EDNS0NSID)
			w.u16(uint16(len(s.nsid)))
			w.buf = append(w.buf, s.nsid...)
		}
	})
}
