package dns

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fleet is a Steer with two regions: clients of 198.51.100.0/24 and 2001:db8:e::/48 are in the east, all others in the
// west. Its answers tell which client it was asked for.
type fleet struct {
	hosts map[string]bool
	extra []netip.Addr // in every answer, after those of the region
	asked func(host string, client netip.Addr)
}

var (
	eastV4 = netip.MustParsePrefix("198.51.100.0/24")
	eastV6 = netip.MustParsePrefix("2001:db8:e::/48")
)

func newFleet(hosts ...string) *fleet {
	f := &fleet{hosts: map[string]bool{}}
	for _, h := range hosts {
		f.hosts[h] = true
	}
	return f
}

func (f *fleet) known(host string) bool {
	if f.hosts[host] || f.hosts["*"] {
		return true
	}
	for h := range f.hosts {
		if suffix, ok := strings.CutPrefix(h, "*"); ok && strings.HasSuffix(host, suffix) {
			return true
		}
	}
	return false
}

func (f *fleet) Resolve(_ []netip.Addr, host string, client netip.Addr, v6 bool, n int) Answer {
	if f.asked != nil {
		f.asked(host, client)
	}
	if !f.known(host) {
		return Answer{}
	}
	west := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.129")}
	if v6 {
		west = []netip.Addr{netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:2::1")}
	}
	if strings.HasPrefix(host, "v4only.") && v6 {
		return Answer{Known: true, Region: "west", Scope: 24}
	}
	a := Answer{Known: true, Addrs: append(west, f.extra...), Region: "west", Scope: 20}
	if eastV4.Contains(client) || eastV6.Contains(client) {
		a.Addrs[0], a.Addrs[1] = a.Addrs[1], a.Addrs[0]
		a.Region, a.Scope = "east", 32
		if client.Is6() {
			a.Scope = 128
		}
	}
	if strings.HasPrefix(host, "same.") {
		a.Scope = 0
	}
	a.Addrs = a.Addrs[:min(n, len(a.Addrs))]
	return a
}

func testZone(name string, hosts ...string) Zone {
	return Zone{
		Name: name, TTL: 20 * time.Second, NegativeTTL: 30 * time.Second, Nameservers: []string{"ns1", "ns2"},
		Contact: "host.master@example.net", Hosts: hosts,
	}
}

// testHosts are the hosts of the fleet that the transcripts are about.
var testHosts = []string{
	"www.edge.test", "same.edge.test", "v4only.edge.test", "edge.test", "a.deep.down.edge.test", "*.shop.edge.test",
	"www.sub.inner.edge.test", "elsewhere.example",
}

func testOptions() Options {
	long := testZone("long.test", "*.long.test")
	long.Nameservers = nil
	for _, c := range "abcdefghijklm" {
		long.Nameservers = append(long.Nameservers, strings.Repeat(string(c), 60)+"."+strings.Repeat(string(c), 60))
	}
	steer := newFleet(append(testHosts, "*.long.test", "*.many.test")...)
	for i := range 6 {
		steer.extra = append(steer.extra, netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i)}))
	}
	return Options{
		Zones:   []Zone{testZone("edge.test", testHosts...), testZone("sub.inner.edge.test", testHosts...), long, testZone("many.test", "*.many.test")},
		Answers: 8,
		Steer:   steer,
		Glue: func() []netip.Addr {
			return []netip.Addr{
				netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("192.0.2.129"),
			}
		},
		Serial: func() uint32 { return 42 },
	}
}

func mustNew(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var resolverAddr = netip.MustParseAddrPort("203.0.113.53:4242")

// mustPack is the wire form of a query that the library packs.
func mustPack(t testing.TB, m *mdns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}
