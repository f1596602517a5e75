package dns

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	mdns "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// still is a Steer that costs nothing, so that the benchmarks show what this package costs.
type still struct{ Answer }

func (s still) Resolve([]netip.Addr, string, netip.Addr, bool, int) Answer { return s.Answer }

func benchServer(b *testing.B) *Server {
	o := testOptions()
	o.Steer = still{Answer{Known: true, Region: "west", Scope: 24,
		Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.129")}}}
	o.ResponseRate = 1 << 30
	o.Metrics = NewMetrics(prometheus.NewRegistry())
	return mustNew(b, o)
}

// BenchmarkRespond is the commonest query: A with a client subnet, over UDP.
func BenchmarkRespond(b *testing.B) {
	for _, query := range []string{
		"A www.edge.test. subnet=198.51.100.0/24", "A any.shop.edge.test.", "AAAA www.edge.test. edns",
		"NS edge.test. edns", "A elsewhere.example.",
	} {
		b.Run(query, func(b *testing.B) {
			s := benchServer(b)
			msg := wireOf(b, query)
			dst := make([]byte, 0, maxUDP)
			b.ReportAllocs()
			for b.Loop() {
				if res := s.Respond(dst[:0], msg, resolverAddr, false); res == nil {
					b.Fatal("no answer")
				}
			}
		})
	}
}

func BenchmarkRespondParallel(b *testing.B) {
	s := benchServer(b)
	msg := wireOf(b, "A www.edge.test. subnet=198.51.100.0/24")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		dst := make([]byte, 0, maxUDP)
		for pb.Next() {
			s.Respond(dst[:0], msg, resolverAddr, false)
		}
	})
}

// BenchmarkFind looks a name of 127 labels up among 1000 zones.
func BenchmarkFind(b *testing.B) {
	var zones []Zone
	for i := range 1000 {
		zones = append(zones, testZone(fmt.Sprintf("a.b.c.d.z%d.test", i)))
	}
	cfg, err := compile(zones, 0)
	if err != nil {
		b.Fatal(err)
	}
	var q query
	var long string
	for range 127 {
		long += "a."
	}
	q.parse(mustPack(b, new(mdns.Msg).SetQuestion(long, mdns.TypeA)))
	b.ReportAllocs()
	for b.Loop() {
		if z, _ := cfg.find(&q.name, 0); z != nil {
			b.Fatal("found")
		}
	}
}

// BenchmarkServeUDP is the whole serving loop on the loopback: a batch is read, answered and sent. One operation is one
// answer; what its client costs to send the query is in it.
func BenchmarkServeUDP(b *testing.B) {
	s := benchServer(b)
	conn, err := net.ListenUDP("udp", &net.UDPAddr{})
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	client, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", conn.LocalAddr().(*net.UDPAddr).Port))
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	p, err := newPackets(conn, newLocalAddr(conn).size)
	if err != nil {
		b.Fatal(err)
	}
	msg := wireOf(b, "A www.edge.test. subnet=198.51.100.0/24")
	refused := func() { b.Error("an answer could not be sent") }
	b.ReportAllocs()
	for left := b.N; left > 0; {
		for range min(batchSize, left) {
			if _, err := client.Write(msg); err != nil {
				b.Fatal(err)
			}
		}
		for want := min(batchSize, left); want > 0; {
			n, err := p.read()
			if err != nil {
				b.Fatal(err)
			}
			if answers := s.answerBatch(p, n); answers != n {
				b.Fatalf("%d answers to %d queries", answers, n)
			}
			p.write(n, refused)
			want -= n
			left -= n
		}
	}
}
