package dns

import (
	"net/netip"
	"time"

	mdns "github.com/miekg/dns"
)

// Steer chooses addresses for clients. Package gateway implements it over the current routing.Snapshot. It is called
// from many goroutines at once and must not wait for anything.
type Steer interface {
	// Resolve returns up to n addresses of one family for a host, which is in lower case and without a final dot: the
	// best region's first, then the next regions'. client is the resolver's address, or the client's prefix with its
	// other bits zero. The addresses are appended to room, which is empty; nothing else of it is kept.
	Resolve(room []netip.Addr, host string, client netip.Addr, v6 bool, n int) Answer
}

// Answer is what Steer says of a host.
type Answer struct {
	Known  bool         // false when no service has the host; then the rest is not looked at
	Addrs  []netip.Addr // in the order of preference; those of the other family are skipped
	Region string       // the region that was chosen, for the metric
	Scope  uint8        // bits of the client's address that the answer depends on; 0: the same for everyone
	// Calm is how long the host's answers have stayed what they are; the TTL follows it, see TTL.
	Calm time.Duration
}

// maxChain bounds the aliases that are followed within our zones.
const maxChain = 8

// typeNXNAME stands in the NSEC record of a name that does not exist (RFC 9824 §2).
const typeNXNAME = 128

// reply is the answer to a query, before it is written.
type reply struct {
	rcode     int
	zone      *zone // that the question lies in; nil when none of ours is meant
	apexAt    int   // offset of the zone's apex in the question's name
	answer    []set
	authority []set
	referral  bool // the authority section names those who know, and nothing is answered here
	refused   bool // an rcode and no records
	region    string
	scope     uint8
	serial    uint32
}

// look is one lookup: what it needs and where it has got to.
type look struct {
	s        *Server
	cfg      *config
	q        *query
	resolver netip.Addr
	r        *reply
	rooms    *[2][maxAnswers]netip.Addr // for addresses of each family
	depth    int                        // aliases followed
}

// answer classifies q, a query that parsed, and finds what there is to say.
func (s *Server) answer(cfg *config, w *work, resolver netip.Addr) {
	q, r := &w.q, &w.r
	r.rcode, r.refused = mdns.RcodeRefused, true
	if q.qclass != mdns.ClassINET {
		return
	}
	if rcode := refusal(q.qtype); rcode != mdns.RcodeSuccess {
		r.rcode = rcode
		return
	}
	z, at := cfg.find(&q.name, 0)
	if z != nil && at == 0 && q.qtype == mdns.TypeDS {
		// The DS of a zone is the parent's to tell (RFC 4035 §3.1.4.1), where we have the parent too.
		if parent, i := cfg.find(&q.name, 1); parent != nil {
			z, at = parent, i
		}
	}
	if z == nil {
		return
	}
	r.rcode, r.refused = mdns.RcodeSuccess, false
	r.zone, r.apexAt, r.serial = z, int(q.name.starts[at]), s.serial()
	l := look{s: s, cfg: cfg, q: q, resolver: resolver, r: r, rooms: &w.rooms}
	l.name(&q.name, z, at)
}

// refusal is the rcode of a type that is never answered with records.
func refusal(qtype uint16) int {
	switch qtype {
	case mdns.TypeAXFR, mdns.TypeIXFR:
		return mdns.RcodeRefused
	case mdns.TypeNone, mdns.TypeOPT, mdns.TypeTSIG:
		return mdns.RcodeFormatError // no one asks for these
	case typeNXNAME:
		return mdns.RcodeFormatError // RFC 9824 §3.5
	case mdns.TypeTKEY, mdns.TypeMAILA, mdns.TypeMAILB:
		return mdns.RcodeNotImplemented
	}
	return mdns.RcodeSuccess
}

// name looks n up, whose labels from at on are the apex of z: by what is there, its records, an alias, addresses,
// nothing, or no such name.
func (l *look) name(n *name, z *zone, at int) {
	if l.refer(n, z, at) {
		return
	}
	e := z.names[string(n.bytes())]
	qtype := l.q.qtype
	if at == 0 {
		e = &z.top
		if l.apex(n, z) {
			return
		}
	}
	if e != nil && e.nameserver >= 0 {
		l.nameserver(n, z, e)
		return
	}
	if rrs := e.set(qtype); rrs != nil {
		l.fixed(n, z, rrs)
		return
	}
	if e.set(mdns.TypeCNAME) != nil {
		l.alias(n, z, e)
		return
	}
	l.steered(n, z, e, at)
}

// apex answers with the sets that the apex alone has.
func (l *look) apex(n *name, z *zone) bool {
	switch l.q.qtype {
	case mdns.TypeSOA:
		l.r.answer = append(l.r.answer, set{owner: n, zone: z, rtype: mdns.TypeSOA, ttl: z.negTTL})
	case mdns.TypeNS:
		l.fixed(n, z, &z.ns)
	case mdns.TypeDNSKEY, mdns.TypeCDS, mdns.TypeCDNSKEY:
		made := z.keySet(l.q.qtype, l.s.now())
		if made == nil {
			return false
		}
		l.fixed(n, z, made)
	default:
		return false
	}
	return true
}

// refer answers for a name at or below a delegation: with those who know (RFC 1034 §4.3.2 3b).
func (l *look) refer(n *name, z *zone, at int) bool {
	if !z.delegates {
		return false
	}
	for i := at - 1; i >= 0; i-- {
		e := z.names[string(n.suffix(i))]
		if e == nil {
			return false
		}
		ns := e.set(mdns.TypeNS)
		if ns == nil {
			continue
		}
		if i == 0 && l.q.qtype == mdns.TypeDS {
			return false // ours to tell
		}
		cut := n
		if i > 0 {
			cut = new(name)
			_, _ = cut.parse(n.suffix(i)) // a suffix of a name is a name
		}
		l.r.referral = len(l.r.answer) == 0
		l.r.authority = append(l.r.authority, set{owner: cut, zone: z, rtype: mdns.TypeNS, ttl: ns.ttl, fixed: ns})
		if ds := e.set(mdns.TypeDS); ds != nil && l.signed(z) {
			l.r.authority = append(l.r.authority, set{owner: cut, zone: z, rtype: mdns.TypeDS, ttl: ds.ttl, fixed: ds})
		} else if l.signed(z) {
			l.r.authority = append(l.r.authority, nsec(cut, z, []uint16{mdns.TypeNS}))
		}
		return true
	}
	return false
}

// signed tells whether the answer's sets of z carry signatures.
func (l *look) signed(z *zone) bool { return l.q.do && z.keys != nil }

func (l *look) fixed(n *name, z *zone, rrs *rrset) {
	l.r.answer = append(l.r.answer, set{owner: n, zone: z, rtype: rrs.rtype, ttl: rrs.ttl, fixed: rrs})
}

// nameserver answers for a name server of the zone: with the address of a live node.
func (l *look) nameserver(n *name, z *zone, e *entry) {
	if rrs := e.set(l.q.qtype); rrs != nil {
		l.fixed(n, z, rrs)
		return
	}
	v6 := l.q.qtype == mdns.TypeAAAA
	if v6 || l.q.qtype == mdns.TypeA {
		if a := nth(l.s.glue(), e.nameserver, v6); a.IsValid() {
			l.r.answer = append(l.r.answer, set{owner: n, zone: z, rtype: l.q.qtype, ttl: z.ttl, addrs: []netip.Addr{a}})
			return
		}
	}
	l.nothing(n, z, e, true)
}

// alias answers with a CNAME, and goes on at what it names where that is ours (RFC 1034 §3.6.2).
func (l *look) alias(n *name, z *zone, e *entry) {
	if l.q.qtype == mdns.TypeANY || l.q.qtype == mdns.TypeNSEC || l.q.qtype == mdns.TypeRRSIG {
		l.nothing(n, z, e, true)
		return
	}
	rrs := e.set(mdns.TypeCNAME)
	l.fixed(n, z, rrs)
	target := &rrs.targets[0]
	next, at := l.cfg.find(target, 0)
	if l.depth++; next == nil || l.depth > maxChain || l.loops(target) {
		return
	}
	l.name(target, next, at)
}

func (l *look) loops(target *name) bool {
	for i := range l.r.answer {
		if string(l.r.answer[i].owner.bytes()) == string(target.bytes()) {
			return true
		}
	}
	return false
}

// steered answers for a name by Steer, which alone knows the services' hosts, else by a wildcard of the zone.
func (l *look) steered(n *name, z *zone, e *entry, at int) {
	q, v6 := l.q, l.q.qtype == mdns.TypeAAAA
	// Other types ask too: whether a name exists must not depend on the type.
	ans, who := l.resolve(n, e, v6, l.cfg.answers)
	if ans.Known {
		st := set{owner: n, zone: z, rtype: q.qtype, ttl: z.ttlAfter(ans.Calm)}
		switch {
		case v6 || q.qtype == mdns.TypeA:
			st.addrs = ofFamily(ans.Addrs, v6, l.cfg.answers)
		case q.qtype == mdns.TypeHTTPS && z.https != nil:
			other, _ := l.resolve(n, e, true, l.cfg.answers)
			st.data = z.https.data(ofFamily(ans.Addrs, false, l.cfg.answers), ofFamily(other.Addrs, true, l.cfg.answers))
		}
		if len(st.addrs) > 0 || st.data != nil {
			// Negative answers are for everyone (RFC 7871 §7.4).
			l.r.region, l.r.scope = ans.Region, who.scopeOf(ans.Scope)
			l.r.answer = append(l.r.answer, st)
			return
		}
	} else if e == nil && z.wildcards && l.wildcard(n, z, at) {
		return
	}
	l.nothing(n, z, e, e != nil || ans.Known)
}

// wildcard answers by the wildcard at the closest name that exists (RFC 4592 §3.3.1). Its records are sent, and signed,
// as the name's own: they are made for the question.
func (l *look) wildcard(n *name, z *zone, at int) bool {
	for i := 1; i <= at; i++ {
		if i < at && z.names[string(n.suffix(i))] == nil {
			continue
		}
		var buf [maxName + 2]byte
		key := append(append(buf[:0], 1, '*'), n.suffix(i)...)
		e := z.names[string(key)]
		if e == nil || len(e.sets) == 0 {
			return false
		}
		switch rrs := e.set(l.q.qtype); {
		case rrs != nil:
			l.fixed(n, z, rrs)
		case e.set(mdns.TypeCNAME) != nil:
			l.alias(n, z, e)
		default:
			l.nothing(n, z, e, true)
		}
		return true
	}
	return false
}

// nothing says that there are no such records, or no such name. With DNSSEC it is proved by one NSEC record that is made
// for the question (RFC 9824 §3).
func (l *look) nothing(n *name, z *zone, e *entry, exists bool) {
	r, q := l.r, l.q
	if exists && (q.qtype == mdns.TypeANY || q.qtype == mdns.TypeRRSIG && z.keys != nil) {
		r.answer = append(r.answer, set{owner: n, zone: z, rtype: mdns.TypeHINFO, ttl: z.ttl, data: []byte("\x07RFC8482\x00")}) // RFC 8482 §4.2
		return
	}
	types := []uint16{typeNXNAME}
	if exists && z.keys != nil {
		types = l.types(n, z, e)
	}
	if q.qtype == mdns.TypeNSEC && z.keys != nil {
		r.answer = append(r.answer, nsec(n, z, types))
		return
	}
	if !exists && (!l.signed(z) || q.compactOK) {
		r.rcode = mdns.RcodeNameError // else no error: the proof says that the name has no records at all
	}
	// The SOA has the negative TTL wherever it stands, so that this is neither more than its own (RFC 2308 §3) nor less
	// than the proof's (RFC 9077), and one set has one TTL.
	r.authority = append(r.authority, set{owner: &z.apex, zone: z, rtype: mdns.TypeSOA, ttl: z.negTTL})
	if l.signed(z) {
		r.authority = append(r.authority, nsec(n, z, types))
	}
}

// resolve asks Steer for n. e is the name's entry, if it has one.
func (l *look) resolve(n *name, e *entry, v6 bool, count int) (Answer, client) {
	who := whom(&l.q.subnet, l.resolver)
	room := l.rooms[0][:0]
	if v6 {
		room = l.rooms[1][:0]
	}
	if e != nil && e.host != "" {
		return l.s.steer.Resolve(room, e.host, who.addr, v6, count), who
	}
	var buf [maxName]byte
	host, ok := n.host(buf[:0])
	if !ok {
		return Answer{}, who
	}
	return l.s.steer.Resolve(room, string(host), who.addr, v6, count), who
}
