package dns

import (
	"encoding/binary"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	mdns "github.com/miekg/dns"
)

// transferSize is about how large each message of a transfer gets, in bytes.
const transferSize = 16 << 10

// transferOf tells whether msg asks for a transfer that from may have (RFC 5936 §2.1), and of which zone. Any other
// query, and any other client's, is for Respond. Who asks for what changed gets everything (RFC 1995 §4).
func (s *Server) transferOf(q *query, msg []byte, from netip.Addr) *zone {
	if len(msg) < headerSize || binary.BigEndian.Uint16(msg[2:])&flagQR != 0 || q.parse(msg) != mdns.RcodeSuccess ||
		q.qtype != mdns.TypeAXFR && q.qtype != mdns.TypeIXFR || q.qclass != mdns.ClassINET {
		return nil
	}
	z, at := s.config.Load().find(&q.name, 0)
	if z == nil || at != 0 {
		return nil
	}
	from = from.Unmap().WithZone("")
	if slices.ContainsFunc(z.secondaries, func(p netip.Prefix) bool { return p.Contains(from) }) {
		return z
	}
	return nil
}

// transfer sends the part of a zone that the config fixes: the SOA record, what the records say, and the SOA record again
// (RFC 5936 §2.2). Steered names are not in it: a copy could not steer. Neither are signatures.
func (s *Server) transfer(conn net.Conn, q *query, z *zone) error {
	w := writer{zone: z, apexAt: headerSize, asked: &q.name, serial: s.serial()}
	records := 0
	begin := func() {
		w.buf = append(w.buf[:0], 0, 0) // the length
		w.base = len(w.buf)
		w.buf = append(w.buf, make([]byte, headerSize)...)
		w.buf = append(w.buf, q.question...)
		records = 0
	}
	flush := func() error {
		head := w.buf[w.base:]
		binary.BigEndian.PutUint16(head, q.id)
		binary.BigEndian.PutUint16(head[2:], flagQR|flagAA)
		binary.BigEndian.PutUint16(head[4:], 1)
		binary.BigEndian.PutUint16(head[6:], uint16(records))
		binary.BigEndian.PutUint16(w.buf, uint16(len(head)))
		_ = conn.SetWriteDeadline(time.Now().Add(tcpWrite))
		_, err := conn.Write(w.buf)
		begin()
		return err
	}
	begin()
	for _, st := range z.static() {
		// One record a time, so that a large set may be spread over messages.
		for one := range st.each() {
			mark := len(w.buf)
			w.set(&one)
			if len(w.buf)-w.base > transferSize && records > 0 {
				w.buf = w.buf[:mark]
				if err := flush(); err != nil {
					return err
				}
				w.set(&one)
			}
			records++
		}
	}
	s.metrics.transfers.Inc()
	return flush()
}

// static is what a transfer holds, in the order of the names.
func (z *zone) static() []set {
	soa := set{owner: &z.apex, zone: z, rtype: mdns.TypeSOA, ttl: z.negTTL}
	out := []set{soa, {owner: &z.apex, zone: z, rtype: mdns.TypeNS, ttl: z.ns.ttl, fixed: &z.ns}}
	add := func(owner *name, e *entry) {
		for i := range e.sets {
			out = append(out, set{owner: owner, zone: z, rtype: e.sets[i].rtype, ttl: e.sets[i].ttl, fixed: &e.sets[i]})
		}
	}
	add(&z.apex, &z.top)
	for _, wire := range slices.Sorted(maps.Keys(z.names)) {
		owner := new(name)
		if _, err := owner.parse([]byte(wire)); err == nil {
			add(owner, z.names[wire])
		}
	}
	return append(out, soa)
}

// each is the set's records, one by one.
func (st set) each() func(yield func(set) bool) {
	return func(yield func(set) bool) {
		if st.fixed == nil {
			yield(st)
			return
		}
		for _, d := range st.fixed.data {
			if !yield(set{owner: st.owner, zone: st.zone, rtype: st.rtype, ttl: st.ttl, data: d}) {
				return
			}
		}
	}
}
