package lab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"landfall/gateway/certs"
)

// town is two TLS servers on one port of two loopback addresses, a name server that names both, and clients.
type town struct {
	port          int
	first, second *station
	ns            *nameServer
	client        *Client
}

// station is a TLS server that does what the handler of the moment does.
type station struct {
	name    string
	addr    netip.Addr
	do      atomic.Pointer[http.HandlerFunc]
	served  atomic.Int64
	conns   atomic.Int64 // ever opened
	srv     *http.Server
	stopped chan struct{}
}

func newTown(t *testing.T) *town {
	t.Helper()
	ca, err := certs.NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertPEM())
	certPEM, keyPEM, err := ca.Issue([]string{Host}, nil, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	n := freeNet(t)
	f := plan(n, 2, 1, func(string, string) (time.Duration, bool) { return time.Millisecond, true })
	a, b := f.Regions[0].Nodes[0].Addr, f.Regions[1].Nodes[0].Addr
	var l1, l2 net.Listener
	for l2 == nil { // a port that is free on both
		if l1, err = net.Listen("tcp", net.JoinHostPort(a.String(), "0")); err != nil {
			t.Fatal(err)
		}
		f.HTTPSPort = l1.Addr().(*net.TCPAddr).Port
		if l2, err = net.Listen("tcp", net.JoinHostPort(b.String(), strconv.Itoa(f.HTTPSPort))); err != nil {
			_ = l1.Close()
		}
	}
	tn := &town{port: f.HTTPSPort, first: serve(t, f.Regions[0].Name, l1, cert), second: serve(t, f.Regions[1].Name, l2, cert)}
	tn.ns = newNameServer(t, 60, a.String(), b.String())
	tn.client = NewClient(f, f.Regions[0], roots, time.Now)
	tn.client.net.resolver.servers = []string{tn.ns.addr}
	t.Cleanup(tn.client.Close)
	return tn
}

func serve(t *testing.T, name string, l net.Listener, cert tls.Certificate) *station {
	s := &station{name: name, addr: l.Addr().(*net.TCPAddr).AddrPort().Addr(), stopped: make(chan struct{})}
	s.srv = &http.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}},
		ErrorLog:  log.New(t.Output(), "", 0),
		ConnState: func(_ net.Conn, st http.ConnState) {
			if st == http.StateNew {
				s.conns.Add(1)
			}
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Landfall-Region", name)
			(*s.do.Load())(w, r)
			s.served.Add(1)
		}),
	}
	s.behave(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })
	go func() { defer close(s.stopped); _ = s.srv.ServeTLS(l, "", "") }()
	t.Cleanup(s.close)
	return s
}

func (s *station) behave(do http.HandlerFunc) { s.do.Store(&do) }

// close ends the server as a SIGKILL would: its connections break and new ones are refused.
func (s *station) close() {
	_ = s.srv.Close()
	<-s.stopped
}

func wantServed(t *testing.T, r Result, by *station, retried bool) {
	t.Helper()
	if r.Err != nil || r.Region != by.name || r.Retried != retried || retried != (r.Why != nil) {
		t.Errorf("served by %q, retried %t (%v), error %v; want %s, retried %t", r.Region, r.Retried, r.Why, r.Err, by.name, retried)
	}
}

func TestClientFallsBackToTheSecondAddress(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for _, c := range []struct {
		name string
		hurt func(*station)
	}{
		{"refuses", (*station).close},
		{"breaks before the head", func(s *station) {
			s.behave(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		}},
		{"breaks in the middle of the body", func(s *station) {
			s.behave(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "1000")
				fmt.Fprint(w, "half of it")
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			})
		}},
		{"breaks in the middle of a body of unknown length", func(s *station) {
			s.behave(func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprint(w, "half of it")
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			})
		}},
		{"hangs", func(s *station) { s.behave(hang) }},
		{"hangs in the middle of the body", func(s *station) {
			s.behave(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, "half of it")
				_ = http.NewResponseController(w).Flush()
				hang(w, r)
			})
		}},
	} {
		for _, visitor := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/visitor %t", c.name, visitor), func(t *testing.T) {
				t.Parallel()
				tn := newTown(t)
				wantServed(t, tn.client.Get(t.Context(), "/", visitor), tn.first, false)
				c.hurt(tn.first)
				wantServed(t, tn.client.Get(t.Context(), "/", visitor), tn.second, true)
				// The browser remembers: the next request goes to the good address at once.
				r := tn.client.Get(t.Context(), "/", visitor)
				if r.Err != nil || r.Region != tn.second.name {
					t.Errorf("the next request: %+v", r)
				}
			})
		}
	}
}

// A server killed while it answers many at once: each is asked again, none is lost.
func TestClientSurvivesAKillUnderLoad(t *testing.T) {
	tn := newTown(t)
	asked := make(chan struct{}, 64)
	tn.first.behave(func(_ http.ResponseWriter, r *http.Request) { asked <- struct{}{}; <-r.Context().Done() })
	var flying sync.WaitGroup
	results := make(chan Result, 20)
	for i := range 20 {
		flying.Go(func() { results <- tn.client.Get(t.Context(), "/", i%2 == 0) })
	}
	for range 20 {
		<-asked
	}
	tn.first.close()
	flying.Wait()
	close(results)
	for r := range results {
		wantServed(t, r, tn.second, true)
	}
}

// An answer is an answer: browsers show a 503, they don't ask the second address.
func TestClientTakesAnErrorForAnAnswer(t *testing.T) {
	for _, status := range []int{404, 421, 500, 502, 503} {
		tn := newTown(t)
		tn.first.behave(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		r := tn.client.Get(t.Context(), "/", false)
		var code statusError
		if !errors.As(r.Err, &code) || int(code) != status || r.Retried || tn.second.served.Load() != 0 {
			t.Errorf("status %d: %+v", status, r)
		}
	}
}

func TestClientFailsWhenNobodyAnswers(t *testing.T) {
	tn := newTown(t)
	tn.first.close()
	tn.second.close()
	r := tn.client.Get(t.Context(), "/", true)
	if r.Err == nil || strings.Count(r.Err.Error(), "refused") != 2 || r.Place != "eu-west" || r.Path != "/" || !r.Visitor {
		t.Errorf("%+v", r)
	}
	tn = newTown(t)
	tn.ns.set(func() { tn.ns.silent = true })
	if r := tn.client.Get(t.Context(), "/", true); r.Err == nil || !strings.Contains(r.Err.Error(), "no name server answers") {
		t.Errorf("%+v", r)
	}
}

func TestClientRefusesAForeignCertificate(t *testing.T) {
	tn := newTown(t)
	tn.client.net.roots = x509.NewCertPool()
	if r := tn.client.Get(t.Context(), "/", false); r.Err == nil || !strings.Contains(r.Err.Error(), "TLS") || r.Region != "" {
		t.Errorf("%+v", r)
	}
}

// Who stays keeps the connection whatever DNS says; newcomers follow DNS; after GOAWAY both look the name up anew.
func TestClientKeepsConnectionsAsBrowsersDo(t *testing.T) {
	tn := newTown(t)
	clk := &clock{t: time.Now()}
	tn.client.now, tn.client.net.now, tn.client.net.resolver.now = clk.now, clk.now, clk.now
	for range 5 {
		wantServed(t, tn.client.Get(t.Context(), "/", false), tn.first, false)
	}
	if n := tn.first.conns.Load(); n != 1 {
		t.Errorf("%d connections for one who stays", n)
	}
	tn.ns.set(func() { tn.ns.addrs = []string{tn.second.addr.String(), tn.first.addr.String()} })
	clk.add(2 * time.Minute) // longer than the TTL
	wantServed(t, tn.client.Get(t.Context(), "/", false), tn.first, false)
	wantServed(t, tn.client.Get(t.Context(), "/", true), tn.second, false)

	// A graceful stop: GOAWAY, no retry, the next connection goes where DNS says.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := tn.first.srv.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	wantServed(t, tn.client.Get(t.Context(), "/", false), tn.second, false)
}

func TestClientVisitsAnewEachSecond(t *testing.T) {
	tn := newTown(t)
	clk := &clock{t: time.Now()}
	tn.client.now = clk.now
	for range 3 {
		wantServed(t, tn.client.Get(t.Context(), "/", true), tn.first, false)
		wantServed(t, tn.client.Get(t.Context(), "/", true), tn.first, false)
		clk.add(visitLasts)
	}
	if n := tn.first.conns.Load(); n != 3 {
		t.Errorf("%d connections for three visits", n)
	}
}

func TestClientRunIsSteadyAndEnds(t *testing.T) {
	tn := newTown(t)
	var slow atomic.Int64
	release := make(chan struct{})
	tn.first.behave(func(w http.ResponseWriter, r *http.Request) {
		if slow.Add(1) == 3 { // one answer that waits does not hold up the others
			<-release
		}
		w.WriteHeader(http.StatusOK)
	})
	stop, results := make(chan struct{}), make(chan Result, 1000)
	var running sync.WaitGroup
	running.Go(func() {
		tn.client.Run(t.Context(), stop, 200, rand.New(rand.NewPCG(1, 1)), func(r Result) { results <- r })
	})
	paths, visitors := map[string]bool{}, 0
	for range 30 {
		r := <-results
		if r.Err != nil || r.Place != "eu-west" {
			t.Errorf("%+v", r)
		}
		paths[r.Path] = true
		if r.Visitor {
			visitors++
		}
	}
	close(release)
	close(stop)
	running.Wait()
	if len(paths) != 4 || visitors == 0 || visitors == 30 {
		t.Errorf("asked for %v, %d visitors of 30", paths, visitors)
	}
	if left := int(slow.Load()) - 30 - len(results); left != 0 {
		t.Errorf("%d requests were not reported", left)
	}
}

// The end of the context cuts what hangs, at once, and does not take it for a failure of the fleet.
func TestClientRunIsCutByItsContext(t *testing.T) {
	tn := newTown(t)
	asked := make(chan struct{}, 1000)
	tn.first.behave(func(_ http.ResponseWriter, r *http.Request) { asked <- struct{}{}; <-r.Context().Done() })
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		tn.client.Run(ctx, nil, 100, rand.New(rand.NewPCG(1, 1)), func(r Result) { t.Errorf("reported %+v", r) })
	})
	for range 5 {
		<-asked
	}
	cancel()
	running.Wait()
}

func TestClosedClientOpensNothing(t *testing.T) {
	tn := newTown(t)
	tn.client.Close()
	if r := tn.client.Get(t.Context(), "/", false); r.Err == nil || !errors.Is(r.Err, net.ErrClosed) {
		t.Errorf("a closed client: %+v", r)
	}
}
