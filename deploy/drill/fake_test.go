package drill

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"landfall/deploy/lab"
	"landfall/gateway/admin"
	"landfall/gateway/certs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeLab is a fleet of two regions inside the test, whose faults can be planted. A region is a TLS server and a name
// server on one address; a control API and an admin API lead the fleet.
type fakeLab struct {
	fleet    lab.Fleet
	cert     tls.Certificate
	control  *httptest.Server
	stations []*station

	mu     sync.Mutex
	away   map[string]bool // killed or drained, as DNS sees it
	calls  []string        // of the control and admin API
	faults faults
	steering
}

// faults are what a broken fleet may do.
type faults struct {
	dnsStuck     bool // DNS goes on naming a region that is gone
	dnsSilent    bool // the other region's name server dies with the region
	damped       bool // DNS names it again 3 s after its return, and verdicts say that this is waited out
	dnsForgets   bool // DNS never names the region again
	answers503   bool // the other region answers 503 while the region is away
	keepsServing bool // a drained region keeps its connections
	cutsOnDrain  bool // a drained region breaks its connections instead of telling them to go
	hangs        bool // nobody answers any more once the region is struck, but connections are taken
	refusesKill  bool // the control API refuses to kill

	steeringFaults
}

type station struct {
	region string
	addr   netip.Addr
	lab    *fakeLab

	mu  sync.Mutex
	srv *http.Server
	dns *dns.Server
	end sync.WaitGroup
}

func newFakeLab(t *testing.T, f faults) *fakeLab {
	t.Helper()
	l := &fakeLab{away: map[string]bool{}, faults: f}
	ca, err := certs.NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	certPEM, keyPEM, err := ca.Issue([]string{"*." + lab.Zone}, nil, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if l.cert, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		t.Fatal(err)
	}
	l.control = httptest.NewServer(l.api())
	l.fleet = lab.Fleet{Host: lab.Host, Zone: lab.Zone, TTL: "0s", DNSWait: "100ms", Admin: l.control.URL, CA: filepath.Join(t.TempDir(), "ca.pem")}
	if err := os.WriteFile(l.fleet.CA, ca.CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	l.layOut(t)
	for _, r := range l.fleet.Regions {
		l.stations = append(l.stations, &station{region: r.Name, addr: r.Nodes[0].Addr, lab: l})
	}
	for _, s := range l.stations {
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		l.control.Close()
		for _, s := range l.stations {
			s.kill()
		}
	})
	return l
}

// layOut finds addresses and ports that are free.
func (l *fakeLab) layOut(t *testing.T) {
	t.Helper()
	for range 50 {
		n, ports := byte(10+rand.IntN(200)), []int{20000 + rand.IntN(10000), 30001 + rand.IntN(2000)}
		l.fleet.HTTPSPort, l.fleet.DNSPort, l.fleet.Regions = ports[0], ports[1], nil
		ok := true
		for i, name := range []string{"east", "west"} {
			addr := netip.AddrFrom4([4]byte{127, n, byte(i + 1), 1})
			for _, port := range ports {
				probe, err := net.Listen("tcp", netip.AddrPortFrom(addr, uint16(port)).String())
				if ok = ok && err == nil; err == nil {
					_ = probe.Close()
				}
			}
			prefix := netip.MustParsePrefix(fmt.Sprintf("192.0.%d.0/24", 2+i))
			l.fleet.Regions = append(l.fleet.Regions, lab.Region{
				Name: name, Prefix: prefix, Client: prefix.Addr().Next(), Up: true, Crowd: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(101 + i), 0, 0}), 16), Nodes: []lab.Node{{Name: name + "-1", Addr: addr, PID: 1}},
			})
		}
		if ok {
			return
		}
	}
	t.Skip("this system has no loopback addresses but 127.0.0.1")
}

// api is the lab's control API and a node's admin API, as far as drills use them.
func (l *fakeLab) api() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /lab", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(l.fleet) })
	do := func(verb string, act func(*station) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			l.takeOver(r.Body)
			l.mu.Lock()
			l.calls = append(l.calls, verb+" "+r.PathValue("region"))
			l.mu.Unlock()
			for _, s := range l.stations {
				if s.region == r.PathValue("region") {
					if err := act(s); err != nil {
						http.Error(w, err.Error(), http.StatusConflict)
						return
					}
				}
			}
			_, _ = io.WriteString(w, "{}")
		}
	}
	mux.HandleFunc("POST /lab/regions/{region}/kill", do("kill", l.kill))
	mux.HandleFunc("POST /lab/regions/{region}/start", do("start", l.start))
	mux.HandleFunc("PUT /v1/regions/{region}/drain", do("drain", l.drain))
	mux.HandleFunc("DELETE /v1/regions/{region}/drain", do("undrain", l.undrain))
	mux.HandleFunc("GET /v1/explain", l.explain)
	mux.HandleFunc("GET /v1/verdicts", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"verdicts": []admin.Verdict{{Region: "east", State: "down", Seen: "up", Kept: l.faults.damped && l.anyAway()}}, "forces": []any{}})
	})
	return mux
}

func (l *fakeLab) kill(s *station) error {
	if l.faults.refusesKill {
		return fmt.Errorf("the lab is stopping")
	}
	l.setAway(s.region, true)
	if !l.faults.hangs {
		s.kill()
	}
	if l.faults.dnsSilent {
		for _, other := range l.stations {
			other.stopDNS()
		}
	}
	return nil
}

func (l *fakeLab) start(s *station) error {
	switch {
	case l.faults.damped:
		time.AfterFunc(3*time.Second, func() { l.setAway(s.region, false) })
	case !l.faults.dnsForgets:
		l.setAway(s.region, false)
	}
	if l.faults.hangs {
		return nil
	}
	return s.start()
}

func (l *fakeLab) drain(s *station) error {
	if l.drainsOver(s.region) {
		return nil
	}
	l.setAway(s.region, true)
	switch {
	case l.faults.cutsOnDrain:
		s.kill()
		return s.start()
	case !l.faults.keepsServing:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.srv.SetKeepAlivesEnabled(false) // GOAWAY to all, requests in flight finish
	}
	return nil
}

func (l *fakeLab) undrain(s *station) error {
	l.setAway(s.region, false)
	l.drainsOver("")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.srv.SetKeepAlivesEnabled(true)
	return nil
}

func (l *fakeLab) setAway(region string, away bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.away[region] = away
}

// called tells what the APIs were asked to do.
func (l *fakeLab) called() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.calls, ", ")
}

// anyAway tells whether a region is away.
func (l *fakeLab) anyAway() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.away["east"] || l.away["west"]
}

func (s *station) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := net.Listen("tcp", net.JoinHostPort(s.addr.String(), strconv.Itoa(s.lab.fleet.HTTPSPort)))
	if err != nil {
		return err
	}
	pc, err := net.ListenPacket("udp", net.JoinHostPort(s.addr.String(), strconv.Itoa(s.lab.fleet.DNSPort)))
	if err != nil {
		_ = l.Close()
		return err
	}
	s.srv = &http.Server{Handler: s, ErrorLog: log.New(io.Discard, "", 0), TLSConfig: &tls.Config{Certificates: []tls.Certificate{s.lab.cert}, NextProtos: []string{"h2", "http/1.1"}}}
	started := make(chan struct{})
	s.dns = &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(s.answer), NotifyStartedFunc: func() { close(started) }}
	srv, names := s.srv, s.dns
	s.end.Go(func() { _ = srv.ServeTLS(l, "", "") })
	s.end.Go(func() { _ = names.ActivateAndServe() })
	<-started
	return nil
}

func (s *station) kill() {
	s.stopDNS()
	s.mu.Lock()
	srv := s.srv
	s.mu.Unlock()
	_ = srv.Close()
	s.end.Wait()
}

func (s *station) stopDNS() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.dns.Shutdown() // says so when it had been shut down before
}

func (s *station) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := s.lab.faults
	if f.hangs && s.lab.anyAway() {
		<-r.Context().Done()
		return
	}
	if s.lab.steers(w, r, s.region) {
		return
	}
	if r.URL.Path == "/slow" { // so that something is in flight at any moment
		wait := time.NewTimer(100 * time.Millisecond)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-r.Context().Done():
			return
		}
	}
	w.Header().Set("X-Landfall-Region", s.region)
	if f.answers503 && s.lab.anyAway() {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = io.WriteString(w, "hello")
}

// answer names the client's own region first, then the other, unless one is away.
func (s *station) answer(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	if s.lab.steeredAnswer(m, q) {
		_ = w.WriteMsg(m)
		return
	}
	home := "east"
	if o := q.IsEdns0(); o != nil && len(o.Option) == 1 && strings.HasPrefix(o.Option[0].String(), "192.0.3.") {
		home = "west"
	}
	s.lab.mu.Lock()
	defer s.lab.mu.Unlock()
	for _, own := range []bool{true, false} {
		for _, o := range s.lab.stations {
			if (o.region == home) == own && (!s.lab.away[o.region] || s.lab.faults.dnsStuck) {
				m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: o.addr.AsSlice()})
			}
		}
	}
	_ = w.WriteMsg(m)
}
