package dns

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// counter is the value of a metric that has these labels and no others, or 0.
func counter(t testing.TB, reg *prometheus.Registry, name string, labels ...string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if reflect.DeepEqual(values(m), labels) || len(labels) == 0 && len(m.GetLabel()) == 0 {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

func values(m *dto.Metric) (v []string) {
	for _, l := range m.GetLabel() { // sorted by name
		v = append(v, l.GetValue())
	}
	return v
}

func ask(t testing.TB, s *Server, name string, qtype uint16) *mdns.Msg {
	t.Helper()
	m := new(mdns.Msg).SetQuestion(name, qtype)
	var res mdns.Msg
	if err := res.Unpack(s.Respond(nil, mustPack(t, m), resolverAddr, false)); err != nil {
		t.Fatal(err)
	}
	return &res
}

func TestRespondAppends(t *testing.T) {
	s := mustNew(t, testOptions())
	q := mustPack(t, new(mdns.Msg).SetQuestion("edge.test.", mdns.TypeNS))
	plain := s.Respond(nil, q, resolverAddr, false)
	prefixed := s.Respond([]byte("before"), q, resolverAddr, false)
	if !bytes.Equal(prefixed, append([]byte("before"), plain...)) {
		t.Errorf("compression pointers depend on what stands before the message:\n%x\n%x", plain, prefixed)
	}
}

func TestSteerIsAskedForTheClient(t *testing.T) {
	var host string
	var client netip.Addr
	f := newFleet("*.edge.test")
	f.asked = func(h string, c netip.Addr) { host, client = h, c }
	s := mustNew(t, Options{Zones: []Zone{testZone("edge.test")}, Steer: f})
	for _, tc := range []struct{ query, host, client string }{
		{"A WWW.Edge.Test.", "www.edge.test", "203.0.113.53"},
		{"MX _x-1.edge.test. from=::ffff:192.0.2.9", "_x-1.edge.test", "192.0.2.9"},
		{"A www.edge.test. from=fe80::1%eth0", "www.edge.test", "fe80::1"},
		{"A www.edge.test. subnet=198.51.100.77/32", "www.edge.test", "198.51.100.0"},
		{"A www.edge.test. subnet=198.51.0.0/16", "www.edge.test", "198.51.0.0"},
		{"A www.edge.test. subnet=2001:db8:1:2ff::/64", "www.edge.test", "2001:db8:1:200::"},
		{"A www.edge.test. subnet=0.0.0.0/0", "www.edge.test", "203.0.113.53"},
	} {
		host, client = "", netip.Addr{}
		exchange(t, s, tc.query)
		if host != tc.host || client != netip.MustParseAddr(tc.client) {
			t.Errorf("%s: asked for %s and %s, want %s and %s", tc.query, host, client, tc.host, tc.client)
		}
	}
}

// An answer is never shuffled, has no address of the other family and no more than asked for.
func TestAnswersOrderAndNumber(t *testing.T) {
	f := newFleet("www.edge.test")
	f.extra = []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("::ffff:192.0.2.200"), {}}
	s := mustNew(t, Options{Zones: []Zone{testZone("edge.test")}, Steer: f, Answers: 5})
	want := "[192.0.2.1 192.0.2.129 192.0.2.200]"
	for range 20 {
		var got []string
		for _, rr := range ask(t, s, "www.edge.test.", mdns.TypeA).Answer {
			got = append(got, rr.(*mdns.A).A.String())
		}
		if fmt.Sprint(got) != want {
			t.Fatalf("got %v, want %s", got, want)
		}
	}
	if err := s.SetConfig([]Zone{testZone("edge.test")}, 0); err != nil {
		t.Fatal(err)
	}
	if n := len(ask(t, s, "www.edge.test.", mdns.TypeA).Answer); n != 2 {
		t.Errorf("%d addresses by default, want 2", n)
	}
}

func TestSteerThatGivesTooMany(t *testing.T) {
	steer := still{Answer{Known: true}}
	for i := range 40 {
		steer.Addrs = append(steer.Addrs, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
	}
	s := mustNew(t, Options{Zones: []Zone{testZone("edge.test")}, Steer: steer, Answers: 3})
	if n := len(ask(t, s, "www.edge.test.", mdns.TypeA).Answer); n != 3 {
		t.Errorf("%d addresses, want 3", n)
	}
}

// A nameserver of one zone that lies in another zone of ours is answered there.
func TestNameserverInAnotherZone(t *testing.T) {
	b := testZone("b.test")
	b.Nameservers = []string{"ns.a.test.", "ns9.a.test.", "ns.elsewhere.example."}
	o := testOptions()
	o.Zones = []Zone{b, testZone("a.test")}
	s := mustNew(t, o)
	if rr := ask(t, s, "ns9.a.test.", mdns.TypeA).Answer; len(rr) != 1 || rr[0].(*mdns.A).A.String() != "192.0.2.129" {
		t.Errorf("ns9.a.test has %v", rr)
	}
	m := ask(t, s, "b.test.", mdns.TypeNS)
	if len(m.Answer) != 3 || len(m.Extra) != 0 {
		t.Errorf("NS of b.test: %v", m)
	}
}

func TestNoLiveNode(t *testing.T) {
	s := mustNew(t, Options{Zones: []Zone{testZone("edge.test")}, Steer: newFleet()})
	if m := ask(t, s, "ns1.edge.test.", mdns.TypeA); m.Rcode != mdns.RcodeSuccess || len(m.Ns) != 1 {
		t.Errorf("a nameserver without an address must exist: %v", m)
	}
	if m := ask(t, s, "edge.test.", mdns.TypeNS); len(m.Answer) != 2 || len(m.Extra) != 0 {
		t.Errorf("NS without glue: %v", m)
	}
	if m := ask(t, s, "edge.test.", mdns.TypeSOA); m.Answer[0].(*mdns.SOA).Serial != 1 {
		t.Errorf("SOA: %v", m)
	}
}

func TestSetConfig(t *testing.T) {
	reg := prometheus.NewRegistry()
	o := testOptions()
	o.Metrics = NewMetrics(reg)
	s := mustNew(t, o)
	ask(t, s, "www.edge.test.", mdns.TypeA)
	if v := counter(t, reg, "landfall_dns_queries_total", "NOERROR", "west", "A", "edge.test"); v != 1 {
		t.Fatalf("counted %v queries", v)
	}
	bad := testZone("edge.test")
	bad.TTL = 0
	if err := s.SetConfig([]Zone{bad}, 2); err == nil || !strings.Contains(err.Error(), "ttl") {
		t.Fatalf("a bad zone was taken: %v", err)
	}
	if got := fmt.Sprint(s.Zones()); got != "[edge.test long.test many.test sub.inner.edge.test]" {
		t.Errorf("zones after a bad config: %s", got)
	}
	if err := s.SetConfig([]Zone{testZone("other.test")}, 1); err != nil {
		t.Fatal(err)
	}
	if m := ask(t, s, "www.edge.test.", mdns.TypeA); m.Rcode != mdns.RcodeRefused {
		t.Errorf("a zone that is gone is answered: %v", m)
	}
	if m := ask(t, s, "other.test.", mdns.TypeSOA); len(m.Answer) != 1 {
		t.Errorf("the new zone is not answered: %v", m)
	}
	if v := counter(t, reg, "landfall_dns_queries_total", "NOERROR", "west", "A", "edge.test"); v != 0 {
		t.Error("the series of a zone that is gone is still there")
	}
}

func TestNewRefuses(t *testing.T) {
	with := func(change func(*Zone)) []Zone {
		z := testZone("edge.test")
		change(&z)
		return []Zone{z}
	}
	for _, tc := range []struct {
		zones   []Zone
		answers int
		want    string
	}{
		{with(func(z *Zone) { z.Name = "." }), 0, "root"},
		{with(func(z *Zone) { z.Name = "" }), 0, "root"},
		{with(func(z *Zone) { z.Name = "a..b" }), 0, "no domain name"},
		{with(func(z *Zone) { z.Name = "a b.test" }), 0, "letters, digits"},
		{with(func(z *Zone) { z.Name = strings.Repeat("a", 64) + ".test" }), 0, "1 to 63 bytes"},
		{with(func(z *Zone) { z.MinTTL = time.Minute }), 0, "min_ttl is 1m0s, more than the ttl of 20s"},
		{with(func(z *Zone) { z.MinTTL = time.Millisecond }), 0, "min_ttl: 1ms"},
		{with(func(z *Zone) { z.TTL = 999 * time.Millisecond }), 0, "ttl: 999ms"},
		{with(func(z *Zone) { z.NegativeTTL = 1 << 62 }), 0, "negative_ttl"},
		{with(func(z *Zone) { z.Nameservers = nil }), 0, "0 nameservers"},
		{with(func(z *Zone) { z.Nameservers = make([]string, 14) }), 0, "14 nameservers"},
		{with(func(z *Zone) { z.Nameservers = []string{"ns1", "NS1.edge.test."} }), 0, "given twice"},
		{with(func(z *Zone) { z.Nameservers = []string{"*"} }), 0, "no hostname"},
		{with(func(z *Zone) { z.Nameservers = []string{"edge.test."} }), 0, "the zone itself"},
		{with(func(z *Zone) { z.Nameservers = []string{strings.Repeat("a.", 126) + "a"} }), 0, "nameserver"},
		{with(func(z *Zone) { z.Contact = "@example.net" }), 0, "no mail address"},
		{with(func(z *Zone) { z.Hosts = []string{"a..edge.test"} }), 0, "service host"},
		{[]Zone{testZone("edge.test"), testZone("Edge.Test.")}, 0, "given twice"},
		{nil, 17, "dns.answers"},
		{nil, -1, "dns.answers"},
	} {
		if _, err := New(Options{Zones: tc.zones, Answers: tc.answers, Steer: newFleet()}); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("got %v, want an error with %q", err, tc.want)
		}
	}
	if _, err := New(Options{}); err == nil {
		t.Error("a server without Steer was made")
	}
}

func TestContact(t *testing.T) {
	for contact, want := range map[string]string{
		"":                       "hostmaster.edge.test.",
		"ops":                    "ops.edge.test.",
		"first.last@example.net": `first\.last.example.net.`,
		"ops.example.net.":       "ops.example.net.",
	} {
		z := testZone("edge.test")
		z.Contact = contact
		s := mustNew(t, Options{Zones: []Zone{z}, Steer: newFleet()})
		if got := ask(t, s, "edge.test.", mdns.TypeSOA).Answer[0].(*mdns.SOA).Mbox; got != want {
			t.Errorf("%q: got %s, want %s", contact, got, want)
		}
	}
}

func TestResponseRate(t *testing.T) {
	reg := prometheus.NewRegistry()
	now := time.Unix(1700000000, 0)
	o := testOptions()
	o.Metrics, o.ResponseRate, o.Now = NewMetrics(reg), 10, func() time.Time { return now }
	s := mustNew(t, o)
	q := mustPack(t, new(mdns.Msg).SetQuestion("www.edge.test.", mdns.TypeA))
	// send sends n queries and tells how many were answered in full, truncated, and not at all.
	send := func(from string, tcp bool, n int) (full, cut, none int) {
		for range n {
			var m mdns.Msg
			res := s.Respond(nil, q, netip.AddrPortFrom(netip.MustParseAddr(from), 1), tcp)
			switch {
			case res == nil:
				none++
			case m.Unpack(res) != nil:
				t.Fatal("unreadable")
			case m.Truncated && len(m.Answer) == 0:
				cut++
			default:
				full++
			}
		}
		return full, cut, none
	}
	expect := func(from string, tcp bool, n, full, cut, none int) {
		t.Helper()
		if f, c, d := send(from, tcp, n); f != full || c != cut || d != none {
			t.Errorf("%s: got %d full, %d truncated, %d dropped; want %d, %d, %d", from, f, c, d, full, cut, none)
		}
	}
	expect("192.0.2.1", false, 20, 11, 4, 5) // a second's worth and the one that is due
	expect("192.0.2.200", false, 2, 0, 1, 1) // the same /24
	expect("192.0.3.1", false, 5, 5, 0, 0)
	expect("192.0.2.1", true, 20, 20, 0, 0) // TCP can't be forged
	expect("127.0.0.1", false, 50, 50, 0, 0)
	expect("2001:db8::1", false, 11, 11, 0, 0)
	expect("2001:db8:0:ff::1", false, 2, 0, 1, 1) // the same /56
	now = now.Add(500 * time.Millisecond)
	expect("192.0.2.1", false, 5, 5, 0, 0)
	now = now.Add(-time.Hour)
	expect("192.0.2.1", false, 1, 1, 0, 0) // a clock that is set back locks nobody out
	if cut, none := counter(t, reg, "landfall_dns_truncated_total", "rate"), counter(t, reg, "landfall_dns_dropped_total", "rate"); cut != 6 || none != 7 {
		t.Errorf("counted %v truncated and %v dropped", cut, none)
	}
}

// Past the rate a query that is refused anyway is not worth a truncated answer.
func TestResponseRateRefusals(t *testing.T) {
	o := testOptions()
	o.ResponseRate, o.Now = 1, func() time.Time { return time.Unix(1700000000, 0) }
	s := mustNew(t, o)
	q := mustPack(t, new(mdns.Msg).SetQuestion("elsewhere.example.", mdns.TypeA))
	answered := 0
	for range 20 {
		if s.Respond(nil, q, resolverAddr, false) != nil {
			answered++
		}
	}
	if answered != 2 {
		t.Errorf("%d answers, want 2", answered)
	}
}

func TestMetricsLabelsAreBounded(t *testing.T) {
	reg := prometheus.NewRegistry()
	o := testOptions()
	o.Metrics = NewMetrics(reg)
	s := mustNew(t, o)
	for i := range 1000 {
		exchange(t, s, fmt.Sprintf("%d h%d.edge.test. from=192.0.2.%d", 1+i*37%65000, i, i%256))
		exchange(t, s, fmt.Sprintf("A h%d.example.", i))
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if len(f.GetMetric()) > 30 {
			t.Errorf("%s has %d series", f.GetName(), len(f.GetMetric()))
		}
	}
	if v := counter(t, reg, "landfall_dns_queries_total", "REFUSED", "", "A", ""); v != 1000 {
		t.Errorf("%v refused", v)
	}
	exchange(t, s, "A www.edge.test. version=1")
	if v := counter(t, reg, "landfall_dns_queries_total", "BADVERS", "", "A", ""); v != 1 {
		t.Errorf("%v BADVERS", v)
	}
}
