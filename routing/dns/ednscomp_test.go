package dns

import (
	"net"
	"slices"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
)

// comply is one query of ISC's EDNS compliance tester (DNS-Compliance-Testing, genreport) and what has to come back.
type comply struct {
	name  string
	query func(*mdns.Msg) // from a query for the zone's SOA without RD
	tcp   bool
	want  comp
}

// comp is what an answer has to be like. Whatever it says, no unknown option or flag is sent back, and EDNS is version 0.
type comp struct {
	rcode  int
	soa    bool // the SOA record is in the answer section, with AA
	opt    bool // there is an OPT record
	do     bool // its DO flag is set, and there is a signature
	within int  // bytes; 0: as many as UDP takes here
	dnskey bool // the DNSKEY set is in the answer section, or TC is set
	bare   bool // no question comes back
}

// edns adds an OPT record.
func edns(version uint8, size, z uint16, do bool, options ...mdns.EDNS0) func(*mdns.Msg) {
	return func(m *mdns.Msg) {
		o := &mdns.OPT{Hdr: mdns.RR_Header{Name: ".", Rrtype: mdns.TypeOPT, Class: size}, Option: options}
		o.SetVersion(version)
		o.Hdr.Ttl |= uint32(z)
		o.SetDo(do)
		m.Extra = append(m.Extra, o)
	}
}

func both(a, b func(*mdns.Msg)) func(*mdns.Msg) { return func(m *mdns.Msg) { a(m); b(m) } }

func asked(qtype uint16) func(*mdns.Msg) {
	return func(m *mdns.Msg) { m.Question[0].Qtype = qtype }
}

// unknown is an option that nobody has defined.
func unknown() mdns.EDNS0 { return &mdns.EDNS0_LOCAL{Code: 100} }

// knownOptions are those of the tester's optlist.
func knownOptions() []mdns.EDNS0 {
	return []mdns.EDNS0{
		&mdns.EDNS0_NSID{Code: mdns.EDNS0NSID}, &mdns.EDNS0_SUBNET{Code: mdns.EDNS0SUBNET, Family: 1, Address: net.IPv4zero},
		&mdns.EDNS0_LOCAL{Code: mdns.EDNS0EXPIRE}, &mdns.EDNS0_COOKIE{Code: mdns.EDNS0COOKIE, Cookie: "0123456789abcdef"},
		&mdns.EDNS0_LOCAL{Code: mdns.EDNS0TCPKEEPALIVE}, &mdns.EDNS0_PADDING{Padding: make([]byte, 8)},
	}
}

func complianceQueries() []comply {
	plain := comp{soa: true}
	with := comp{soa: true, opt: true}
	bad := comp{rcode: mdns.RcodeBadVers, opt: true}
	return []comply{
		{name: "dns", query: func(*mdns.Msg) {}, want: plain},
		{name: "aa flag", query: func(m *mdns.Msg) { m.Authoritative = true }, want: plain},
		{name: "ad flag", query: func(m *mdns.Msg) { m.AuthenticatedData = true }, want: plain},
		{name: "cd flag", query: func(m *mdns.Msg) { m.CheckingDisabled = true }, want: plain},
		{name: "ra flag", query: func(m *mdns.Msg) { m.RecursionAvailable = true }, want: plain},
		{name: "rd flag", query: func(m *mdns.Msg) { m.RecursionDesired = true }, want: plain},
		{name: "tc flag", query: func(m *mdns.Msg) { m.Truncated = true }, want: plain},
		{name: "z flag", query: func(m *mdns.Msg) { m.Zero = true }, want: plain},
		{name: "opcode 15", query: func(m *mdns.Msg) { m.Opcode, m.Question = 15, nil }, want: comp{rcode: mdns.RcodeNotImplemented, bare: true}},
		{name: "type 1000", query: asked(1000), want: comp{}},
		{name: "type 1000 with edns", query: both(asked(1000), edns(0, 4096, 0, false)), want: comp{opt: true}},
		{name: "edns", query: edns(0, 4096, 0, false), want: with},
		{name: "edns1", query: edns(1, 4096, 0, false), want: bad},
		{name: "edns@512", query: both(asked(mdns.TypeDNSKEY), edns(0, 512, 0, true)), want: comp{opt: true, do: true, dnskey: true, within: 512}},
		{name: "edns@100", query: edns(0, 100, 0, false), want: comp{soa: true, opt: true, within: 512}},
		{name: "ednsopt", query: edns(0, 4096, 0, false, unknown()), want: with},
		{name: "edns1opt", query: edns(1, 4096, 0, false, unknown()), want: bad},
		{name: "do", query: edns(0, 4096, 0, true), want: comp{soa: true, opt: true, do: true}},
		{name: "edns1do", query: edns(1, 4096, 0, true), want: bad},
		{name: "ednsflags", query: edns(0, 4096, 0x40, false), want: with},
		{name: "edns1flags", query: edns(1, 4096, 0x40, false), want: bad},
		{name: "all flags", query: edns(0, 4096, 0x3FFF, true), want: comp{soa: true, opt: true, do: true}},
		{name: "optlist", query: edns(0, 4096, 0, false, knownOptions()...), want: with},
		{name: "signed", query: both(asked(mdns.TypeDNSKEY), edns(0, 4096, 0, true)), want: comp{opt: true, do: true, dnskey: true}},
		{name: "dnstcp", query: func(*mdns.Msg) {}, tcp: true, want: plain},
		{name: "ednstcp", query: both(asked(mdns.TypeDNSKEY), edns(0, 4096, 0, true)), tcp: true, want: comp{opt: true, do: true, dnskey: true}},
		{name: "edns1tcp", query: edns(1, 4096, 0, false), tcp: true, want: bad},
		{name: "optlist tcp", query: edns(0, 4096, 0, false, knownOptions()...), tcp: true, want: with},
	}
}

// TestCompliance asks as ISC's tester does, over real sockets, for a signed zone and one that is not.
func TestCompliance(t *testing.T) {
	r := start(t, "127.0.0.1:0", func(o *Options) {
		rich := signedOptions(t, time.Now())
		o.Zones, o.NSID, o.Now = append(o.Zones, rich.Zones...), "node-1", nil
	})
	for zone, signed := range map[string]bool{"rich.test.": true, "edge.test.": false} {
		for _, c := range complianceQueries() {
			t.Run(zone+" "+c.name, func(t *testing.T) {
				m := new(mdns.Msg).SetQuestion(zone, mdns.TypeSOA)
				m.RecursionDesired = false
				c.query(m)
				checkCompliance(t, m, c, signed, exchangeRaw(t, r.addr, mustPack(t, m), c.tcp))
			})
		}
	}
}

// exchangeRaw sends bytes and returns the bytes that come back.
func exchangeRaw(t *testing.T, addr string, query []byte, tcp bool) []byte {
	t.Helper()
	if tcp {
		c := dial(t, "tcp", addr)
		if _, err := c.Write(framed(query)); err != nil {
			t.Fatal(err)
		}
		return mustPack(t, readFramed(t, c))
	}
	c := dial(t, "udp", addr)
	b := make([]byte, 65535)
	for range 3 { // UDP may lose a packet
		if _, err := c.Write(query); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := c.Read(b); err == nil {
			return b[:n]
		}
	}
	t.Fatal("no answer")
	return nil
}

func checkCompliance(t *testing.T, query *mdns.Msg, c comply, signed bool, raw []byte) {
	t.Helper()
	var m mdns.Msg
	if err := m.Unpack(raw); err != nil {
		t.Fatal(err)
	}
	opt := m.IsEdns0()
	has := func(rtype uint16) bool {
		return slices.ContainsFunc(m.Answer, func(rr mdns.RR) bool { return rr.Header().Rrtype == rtype })
	}
	limit := maxUDP
	if c.want.within > 0 {
		limit = c.want.within
	}
	switch {
	case m.Id != query.Id || !m.Response || m.Opcode != query.Opcode:
		t.Errorf("no answer to this query: %v", m.MsgHdr)
	case m.Rcode != c.want.rcode:
		t.Errorf("rcode %s", mdns.RcodeToString[m.Rcode])
	case m.RecursionAvailable || m.Zero || m.AuthenticatedData || m.RecursionDesired != query.RecursionDesired:
		t.Errorf("flags %v", m.MsgHdr)
	case !c.want.bare && (len(m.Question) != 1 || m.Question[0] != query.Question[0]) || c.want.bare && len(m.Question) > 0:
		t.Errorf("question %v", m.Question)
	case has(mdns.TypeSOA) != c.want.soa || c.want.soa && !m.Authoritative:
		t.Errorf("answer %v", m.Answer)
	case (opt != nil) != c.want.opt:
		t.Errorf("OPT: %v", opt)
	case !c.tcp && len(raw) > limit:
		t.Errorf("%d bytes, more than %d", len(raw), limit)
	case c.tcp && m.Truncated:
		t.Error("truncated by TCP")
	case c.want.do && signed && !m.Truncated && !has(mdns.TypeRRSIG):
		t.Error("no signature")
	case c.want.dnskey && signed && !m.Truncated && !has(mdns.TypeDNSKEY):
		t.Errorf("no DNSKEY: %v", m.Answer)
	}
	if opt == nil {
		return
	}
	z := opt.Hdr.Ttl & 0xFFFF &^ (flagDO | flagCO)
	if opt.Version() != 0 || z != 0 || c.want.do && !opt.Do() || opt.UDPSize() < minUDP {
		t.Errorf("OPT: %v", opt)
	}
	sent := query.IsEdns0()
	for _, o := range opt.Option {
		if o.Option() == unknown().Option() || !slices.ContainsFunc(sent.Option, func(s mdns.EDNS0) bool { return s.Option() == o.Option() }) {
			t.Errorf("option %d was not asked for, or is not known", o.Option())
		}
	}
}
