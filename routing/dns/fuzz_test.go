package dns

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
)

// seeds are the queries of the transcripts.
func seeds(f *testing.F) {
	for _, msg := range transcriptQueries(f) {
		f.Add(msg)
	}
}

// FuzzRespond holds every answer to what must be true of it, whatever was asked.
func FuzzRespond(f *testing.F) {
	seeds(f)
	s := fuzzedServer(f)
	f.Fuzz(func(t *testing.T, msg []byte) {
		for _, tcp := range []bool{false, true} {
			checkAnswer(t, s, msg, tcp)
		}
	})
}

// fuzzedServer has the zones of all transcripts, one of them signed.
func fuzzedServer(t testing.TB) *Server {
	o := testOptions()
	o.ResponseRate = -1
	rich := signedOptions(t, time.Unix(1_800_000_000, 0))
	o.Zones = append(o.Zones, rich.Zones...)
	for h := range rich.Steer.(*fleet).hosts {
		o.Steer.(*fleet).hosts[h] = true
	}
	return mustNew(t, o)
}

// checkAnswer asks, and returns the answer or nil.
func checkAnswer(t *testing.T, s *Server, msg []byte, tcp bool) []byte {
	before := bytes.Clone(msg)
	res := s.Respond(nil, msg, resolverAddr, tcp)
	if !bytes.Equal(before, msg) {
		t.Fatal("the query was changed")
	}
	if query := len(msg) >= headerSize && msg[2]&0x80 == 0; query != (res != nil) {
		t.Fatalf("answered: %t, is a query: %t", res != nil, query)
	}
	if res == nil {
		return nil
	}
	var m mdns.Msg
	if err := m.Unpack(res); err != nil {
		t.Fatalf("the library can't read the answer: %v\n%x", err, res)
	}
	switch {
	case m.Id != binary.BigEndian.Uint16(msg):
		t.Error("another id")
	case !m.Response || m.RecursionAvailable || m.Zero || m.AuthenticatedData:
		t.Error("flags that an answer of ours never has, or lacks")
	case m.Opcode != int(msg[2]>>3)&0xF:
		t.Error("another opcode")
	case m.Truncated && (tcp || len(m.Answer)+len(m.Ns) > 0):
		t.Error("truncated by TCP, or with records")
	}
	checkSize(t, &m, msg, res, tcp)
	checkSections(t, &m, msg, res)
	return res
}

func checkSize(t *testing.T, m *mdns.Msg, msg, res []byte, tcp bool) {
	if tcp {
		return
	}
	limit := minUDP
	var q mdns.Msg
	if q.Unpack(msg) == nil && q.IsEdns0() != nil {
		limit = min(max(int(q.IsEdns0().UDPSize()), minUDP), maxUDP)
	} else if m.IsEdns0() != nil {
		limit = maxUDP // the library is stricter with the query than we are
	}
	if len(res) > limit {
		t.Errorf("%d bytes for a client that takes %d", len(res), limit)
	}
}

func checkSections(t *testing.T, m *mdns.Msg, msg, res []byte) {
	if len(m.Question) == 1 {
		end := len(res)
		if len(m.Answer)+len(m.Ns)+len(m.Extra) > 0 {
			for i := headerSize; ; i += 1 + int(res[i]) { // a label may hold zeros
				if res[i] == 0 {
					end = i + 5
					break
				}
			}
		}
		if !bytes.HasPrefix(msg[headerSize:], res[headerSize:end]) {
			t.Errorf("another question: %x, asked %x", res[headerSize:end], msg[headerSize:])
		}
	} else if cookie := m.Rcode == mdns.RcodeSuccess && m.IsEdns0() != nil; !cookie && m.Rcode != mdns.RcodeFormatError && m.Rcode != mdns.RcodeNotImplemented {
		t.Errorf("no question, and rcode %d", m.Rcode)
	}
	records := len(m.Answer) + len(m.Ns)
	referral := !m.Authoritative && len(m.Answer) == 0 && len(m.Ns) > 0 && m.Ns[0].Header().Rrtype == mdns.TypeNS
	alias := len(m.Answer) > 0 && m.Answer[0].Header().Rrtype == mdns.TypeCNAME
	switch {
	case referral:
	case m.Authoritative && records == 0 && !m.Truncated:
		t.Error("authoritative without a record")
	case !m.Authoritative && records > 0:
		t.Error("records without authority")
	case m.Rcode == mdns.RcodeNameError && (len(m.Answer) > 0 && !alias || len(m.Ns) == 0 && !m.Truncated):
		t.Error("NXDOMAIN with an answer, or without SOA")
	}
	for _, rr := range m.Answer {
		if !alias && !strings.EqualFold(rr.Header().Name, m.Question[0].Name) {
			t.Errorf("answer of another name: %v", rr)
		}
	}
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if sub, ok := o.(*mdns.EDNS0_SUBNET); ok && sub.SourceScope > 56 {
				t.Errorf("scope %d", sub.SourceScope)
			}
		}
	}
}

// FuzzSubnet holds the option against its RFC, by another way than the parser.
func FuzzSubnet(f *testing.F) {
	for _, b := range [][]byte{{0, 1, 24, 0, 198, 51, 100}, {0, 2, 56, 0, 32, 1, 13, 184, 0, 14, 0}, {0, 0, 0, 0}, {0, 1, 23, 0, 1, 2, 3}} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := parseSubnet(b)
		if !ok {
			return
		}
		if s.source == 0 {
			if s.addr.IsValid() {
				t.Error("an address of no bits")
			}
			return
		}
		p, err := s.addr.Prefix(s.source)
		if err != nil || p.Masked() != netip.PrefixFrom(s.addr, s.source) {
			t.Errorf("%v/%d has bits behind the prefix", s.addr, s.source)
		}
		who := whom(&s, resolverAddr.Addr())
		if who.addr.Is4() && who.addr != resolverAddr.Addr() && who.addr.As4()[3] != 0 {
			t.Errorf("more than a /24 of %v is used", s.addr)
		}
		if scope := who.scopeOf(255); scope > maxPrefix6 || s.addr.Is4() && scope > maxPrefix4 {
			t.Errorf("scope %d for %v", scope, s.addr)
		}
		out := appendSubnet(nil, &s, 9)
		want := append([]byte{0, mdns.EDNS0SUBNET, 0, byte(len(b))}, b...)
		want[7] = 9
		if !bytes.Equal(out, want) {
			t.Errorf("got %x, want %x", out, want)
		}
	})
}
