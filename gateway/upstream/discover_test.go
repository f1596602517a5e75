package upstream

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
)

// nameServer answers from a zone in master-file form, which may be changed; nil answers SERVFAIL.
func nameServer(t *testing.T, zone *atomic.Pointer[[]string]) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	up := make(chan struct{})
	s := &dns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(up) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		records := zone.Load()
		if records == nil {
			m.Rcode = dns.RcodeServerFailure
		} else {
			for _, line := range *records {
				rr, err := dns.NewRR(line)
				if err != nil {
					panic(err)
				}
				if rr.Header().Name == q.Question[0].Name && rr.Header().Rrtype == q.Question[0].Qtype {
					m.Answer = append(m.Answer, rr)
				}
			}
		}
		_ = w.WriteMsg(m)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.ActivateAndServe() }()
	<-up
	t.Cleanup(func() { _ = s.Shutdown(); <-done })
	return pc.LocalAddr().String()
}

// TestDiscovery: origins follow their names, and the last good ones stay when these can't be resolved.
func TestDiscovery(t *testing.T) {
	var zone atomic.Pointer[[]string]
	zone.Store(&[]string{
		"web.test. 1 IN A 127.0.0.1", "web.test. 1 IN A 127.0.0.2", "web.test. 1 IN AAAA ::1",
		"_s._tcp.test. 1 IN SRV 1 3 8080 a.test.", "_s._tcp.test. 1 IN SRV 2 1 8080 b.test.", "a.test. 1 IN A 10.0.0.1", "b.test. 1 IN A 10.0.0.2",
	})
	heard := &events{}
	var changed atomic.Int64
	p := newTestPool(t, PoolOptions{
		Origins: []string{"http+dns://web.test:81", "https+srv://_s._tcp.test", "http://10.9.9.9:80"}, nameServers: []string{nameServer(t, &zone)},
		OnEvent: heard.note, OnMembers: func() { changed.Add(1) }, Weights: map[string]int{"https+srv://_s._tcp.test": 2},
	})
	want := "http://10.9.9.9:80 http://127.0.0.1:81 http://127.0.0.2:81 http://[::1]:81 https://10.0.0.1:8080"
	if got := strings.Join(p.Origins(), " "); got != want {
		t.Fatalf("%s\nwant\n%s", got, want)
	}
	if c := p.TLS("https://10.0.0.1:8080"); c == nil || c.ServerName != "a.test" || p.TLS("http://127.0.0.1:81") != nil {
		t.Errorf("an origin that was looked up must prove its name, not its address: %+v", c)
	}
	if o := p.members.Load().byName["https://10.0.0.1:8080"]; o.weight.Load() != 6 {
		t.Errorf("weight %d, want 3 by its record times 2 by the config", o.weight.Load())
	}
	kept := p.members.Load().byName["http://127.0.0.2:81"]
	zone.Store(&[]string{"web.test. 1 IN A 127.0.0.2", "web.test. 1 IN A 127.0.0.3"})
	want = "http://10.9.9.9:80 http://127.0.0.2:81 http://127.0.0.3:81 https://10.0.0.1:8080" // the SRV records are gone: their last good stays
	waitFor(t, func() bool { return strings.Join(p.Origins(), " ") == want && changed.Load() > 0 })
	if p.members.Load().byName["http://127.0.0.2:81"] != kept {
		t.Error("an origin that stays lost what was known of it")
	}
	zone.Store(nil)
	waitFor(t, func() bool { return strings.Count(heard.String(), "pool.unresolved") >= 2 })
	if got := strings.Join(p.Origins(), " "); got != want {
		t.Errorf("with a name server that fails: %s", got)
	}
	zone.Store(&[]string{"web.test. 1 IN A 127.0.0.4"})
	waitFor(t, func() bool {
		return strings.Contains(strings.Join(p.Origins(), " "), "127.0.0.4") && strings.Contains(heard.String(), "pool.resolved")
	})
}

func TestParseSource(t *testing.T) {
	for raw, want := range map[string]bool{
		"http+dns://a.test:80": true, "https+srv://_a._tcp.test": true, "http://a.test:80": false, "ftp+dns://a.test": false,
		"http+mx://a.test": false, "http+dns://": false, ":": false,
	} {
		if _, ok := parseSource(raw); ok != want {
			t.Errorf("%s: %v", raw, ok)
		}
	}
}
