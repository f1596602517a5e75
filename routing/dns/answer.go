package dns

import (
	"net/netip"

	mdns "github.com/miekg/dns"
)

// Steer chooses addresses for clients. Package gateway implements it over the current routing.Snapshot. It is called
// from many goroutines at once and must not wait for anything.
type Steer interface {
	// Resolve returns up to n addresses of one family for a host, which is in lower case and without a final dot: the
	// best region's first, then the next regions'. client is the resolver's address, or the client's prefix with its
	// other bits zero.
	Resolve(host string, client netip.Addr, v6 bool, n int) Answer
}

// Answer is what Steer says of a host.
type Answer struct {
	Known  bool         // false when no service has the host; then the rest is not looked at
	Addrs  []netip.Addr // in the order of preference; those of the other family are skipped
	Region string       // the region that was chosen, for the metric
	Scope  uint8        // bits of the client's address that the answer depends on; 0: the same for everyone
}

// kind is what sort of answer a query gets: a closed list. First a query is classified, then the answer is written.
type kind uint8

const (
	kindRefusal  kind = iota // an rcode, and no records
	kindAddrs                // A or AAAA
	kindNS                   // the apex's NS, with glue
	kindSOA                  // the apex's SOA
	kindAny                  // RFC 8482
	kindNegative             // no such name, or no such data: the SOA goes with it
)

// reply is the answer to a query, before it is written.
type reply struct {
	kind   kind
	rcode  int
	zone   *zone // nil when no zone of ours is meant
	apexAt int   // offset of the zone's apex in the question's name
	addrs  []netip.Addr
	region string
	scope  uint8
}

func (r *reply) negative(rcode int) { r.kind, r.rcode = kindNegative, rcode }

// answer classifies q, a query that parsed, and finds what there is to say.
func (s *Server) answer(cfg *config, q *query, resolver netip.Addr) (r reply) {
	if q.qclass != mdns.ClassINET {
		r.rcode = mdns.RcodeRefused
		return r
	}
	if rcode := refusal(q.qtype); rcode != mdns.RcodeSuccess {
		r.rcode = rcode
		return r
	}
	z, at := cfg.find(&q.name, 0)
	if z != nil && at == 0 && q.qtype == mdns.TypeDS {
		// The DS of a zone is the parent's to tell (RFC 4035 §3.1.4.1), where we have the parent too.
		if parent, i := cfg.find(&q.name, 1); parent != nil {
			z, at = parent, i
		}
	}
	if z == nil {
		r.rcode = mdns.RcodeRefused
		return r
	}
	r.zone, r.apexAt = z, int(q.name.starts[at])
	if at == 0 {
		switch q.qtype {
		case mdns.TypeNS:
			r.kind = kindNS
			return r
		case mdns.TypeSOA:
			r.kind = kindSOA
			return r
		}
	}
	s.answerName(cfg, q, at == 0, resolver, &r)
	return r
}

// refusal is the rcode of a type that is never answered with records.
func refusal(qtype uint16) int {
	switch qtype {
	case mdns.TypeAXFR, mdns.TypeIXFR:
		return mdns.RcodeRefused
	case mdns.TypeNone, mdns.TypeOPT, mdns.TypeTSIG:
		return mdns.RcodeFormatError // no one asks for these
	case mdns.TypeTKEY, mdns.TypeMAILA, mdns.TypeMAILB:
		return mdns.RcodeNotImplemented
	}
	return mdns.RcodeSuccess
}

// answerName answers for a name by what is there: addresses, nothing, or no such name.
func (s *Server) answerName(cfg *config, q *query, apex bool, resolver netip.Addr, r *reply) {
	v6 := q.qtype == mdns.TypeAAAA
	address := v6 || q.qtype == mdns.TypeA
	e := r.zone.names[string(q.name.bytes())]
	exists := apex || e != nil
	switch {
	case e != nil && e.nameserver >= 0:
		if address {
			if a := nth(s.glue(), e.nameserver, v6); a.IsValid() {
				r.addrs = []netip.Addr{a}
			}
		}
	default:
		// Other types ask too: whether a name exists must not depend on the type.
		ans, who := s.resolve(q, e, resolver, v6, cfg.answers)
		exists = exists || ans.Known
		if ans.Known && address {
			r.addrs = ofFamily(ans.Addrs, v6, cfg.answers)
		}
		if len(r.addrs) > 0 {
			// Negative answers are for everyone (RFC 7871 §7.4).
			r.region, r.scope = ans.Region, who.scopeOf(ans.Scope)
		}
	}
	switch {
	case len(r.addrs) > 0:
		r.kind = kindAddrs
	case !exists:
		r.negative(mdns.RcodeNameError)
	case q.qtype == mdns.TypeANY:
		r.kind = kindAny
	default:
		r.negative(mdns.RcodeSuccess)
	}
}

// resolve asks Steer for the name of q. e is the name's entry, if it has one.
func (s *Server) resolve(q *query, e *entry, resolver netip.Addr, v6 bool, n int) (Answer, client) {
	who := whom(&q.subnet, resolver)
	if e != nil && e.host != "" {
		return s.steer.Resolve(e.host, who.addr, v6, n), who
	}
	var buf [maxName]byte
	host, ok := q.name.host(buf[:0])
	if !ok {
		return Answer{}, who
	}
	return s.steer.Resolve(string(host), who.addr, v6, n), who
}

// ofFamily is the first n addresses of one family, in their order. Almost always that is all of them.
func ofFamily(addrs []netip.Addr, v6 bool, n int) []netip.Addr {
	for i, a := range addrs {
		if i == n {
			return addrs[:n]
		}
		if !isFamily(a, v6) {
			return filter(addrs, v6, n)
		}
	}
	return addrs
}

func filter(addrs []netip.Addr, v6 bool, n int) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if isFamily(a, v6) && len(out) < n {
			out = append(out, a)
		}
	}
	return out
}

// isFamily tells whether a belongs into an A (v6 false) or AAAA record.
func isFamily(a netip.Addr, v6 bool) bool {
	if v6 {
		return a.Is6() && !a.Is4In6()
	}
	return a.Is4() || a.Is4In6()
}

// nth is the address of nameserver i: the i-th of the family, beginning again when there are fewer, so that every
// nameserver has an address as long as there is one.
func nth(addrs []netip.Addr, i int, v6 bool) netip.Addr {
	count := 0
	for _, a := range addrs {
		if isFamily(a, v6) {
			count++
		}
	}
	if count == 0 {
		return netip.Addr{}
	}
	i %= count
	for _, a := range addrs {
		if isFamily(a, v6) {
			if i == 0 {
				return a
			}
			i--
		}
	}
	return netip.Addr{}
}
