package upstream

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fleet is a CA and the nodes' certificates.
type fleet struct {
	t    *testing.T
	ca   *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{t: t, pool: x509.NewCertPool()}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "fleet"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	f.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &f.key.PublicKey, f.key)
	if err != nil {
		t.Fatal(err)
	}
	f.ca, _ = x509.ParseCertificate(der)
	f.pool.AddCert(f.ca)
	return f
}

func (f *fleet) config(node string) *tls.Config {
	f.t.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: node}, DNSNames: []string{node}, NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, f.ca, &key.PublicKey, f.key)
	if err != nil {
		f.t.Fatal(err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		RootCAs:      f.pool, ClientCAs: f.pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}
}

// node is a peer listener.
func (f *fleet) node(name string, h http.HandlerFunc) *httptest.Server {
	f.t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.TLS = f.config(name)
	s.StartTLS()
	f.t.Cleanup(s.Close)
	return s
}

// client is a PeerTransport that knows the listeners by node.
func (f *fleet) client(nodes map[string]string, change func(*PeerOptions)) *PeerTransport {
	config := f.config("self")
	o := PeerOptions{
		TLS: func() *tls.Config { return config },
		Resolve: func(node string) (netip.AddrPort, bool) {
			at, err := netip.ParseAddrPort(nodes[node])
			return at, err == nil
		},
	}
	if change != nil {
		change(&o)
	}
	t := NewPeerTransport(o)
	f.t.Cleanup(t.CloseIdleConnections)
	return t
}

func peerRequest(t *testing.T, node string) *http.Request {
	t.Helper()
	r := request(t, "GET", nil)
	r.URL.Scheme, r.URL.Host = "https", node+PeerDomain
	return r
}

func TestPeer(t *testing.T) {
	f := newFleet(t)
	s := f.node("eu-1", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %s for %s by %s", r.Proto, r.URL, r.Host, r.TLS.PeerCertificates[0].Subject.CommonName)
	})
	p := f.client(map[string]string{"eu-1": s.Listener.Addr().String()}, nil)
	for range 2 {
		resp, err := p.RoundTrip(peerRequest(t, "eu-1"))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if want := "HTTP/2.0 /path?q=1 for shop.example by self"; string(b) != want {
			t.Errorf("got %q, want %q", b, want)
		}
	}
}

// TestPeerOneDial: a crowd of requests to a node without a connection opens one.
func TestPeerOneDial(t *testing.T) {
	f := newFleet(t)
	s := f.node("eu-1", hello)
	var dials atomic.Int64
	p := f.client(map[string]string{"eu-1": s.Listener.Addr().String()}, func(o *PeerOptions) {
		o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials.Add(1)
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}
	})
	crowd := func() {
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				resp, err := p.RoundTrip(peerRequest(t, "eu-1"))
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			})
		}
		wg.Wait()
	}
	crowd()
	if n := dials.Load(); n != 1 {
		t.Errorf("%d dials for a crowd, want 1", n)
	}
	s.CloseClientConnections()
	waitFor(t, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.nodes) == 0
	})
	crowd()
	if n := dials.Load(); n != 2 {
		t.Errorf("%d dials after the connection broke, want 2", n)
	}
}

func TestPeerErrors(t *testing.T) {
	f, strangers := newFleet(t), newFleet(t)
	hang := hostile(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	reached := make(chan struct{}, 1)
	nodes := map[string]string{
		"stranger": strangers.node("stranger", hello).Listener.Addr().String(),
		"renamed":  f.node("other", hello).Listener.Addr().String(),
		"down":     strings.TrimPrefix(refusing(t), "http://"),
		"hung":     strings.TrimPrefix(hang, "http://"),
		"aborts":   f.node("aborts", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }).Listener.Addr().String(),
		"slow": f.node("slow", func(_ http.ResponseWriter, r *http.Request) {
			reached <- struct{}{}
			<-r.Context().Done()
		}).Listener.Addr().String(),
	}
	p := f.client(nodes, nil)
	for _, tt := range []struct {
		node, cause, text string
		sent              bool
	}{
		{"nobody", CauseConnect, "the mesh knows no such node", false},
		{"stranger", CauseConnect, "TLS: ", false},
		{"renamed", CauseConnect, "TLS: ", false},
		{"down", CauseConnect, "connection refused", false},
		{"aborts", CauseReset, "", true},
	} {
		_, err := p.RoundTrip(peerRequest(t, tt.node))
		if e := wantError(t, err, tt.cause, tt.text); e.Sent != tt.sent || e.Origin != tt.node {
			t.Errorf("%s: %+v, want sent %v", tt.node, e, tt.sent)
		}
	}
	_, err := p.RoundTrip(request(t, "GET", nil))
	wantError(t, err, CauseConnect, "a peer's URL is https://<node>.peer.invalid")

	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = p.RoundTrip(peerRequest(t, "hung").WithContext(ctx))
	if e := wantError(t, err, CauseTimeout, ""); e.Sent {
		t.Error("nothing was sent")
	}
	why := errors.New("left")
	ctx2, cancel2 := context.WithCancelCause(context.Background())
	go func() { <-reached; cancel2(why) }()
	_, err = p.RoundTrip(peerRequest(t, "slow").WithContext(ctx2))
	if e := wantError(t, err, CauseCanceled, "left"); !e.Sent {
		t.Error("it was sent")
	}
	waitFor(t, func() bool { // the dial to the node that hangs ends by its own limit
		p.CloseIdleConnections()
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.nodes) == 0
	})
}

// TestPeerWaitersShareTheError: who waited for a dial that failed isn't made to dial in turn.
func TestPeerWaitersShareTheError(t *testing.T) {
	f := newFleet(t)
	fail, dials := make(chan struct{}), atomic.Int64{}
	p := f.client(map[string]string{"eu-1": "127.0.0.1:9"}, func(o *PeerOptions) {
		o.Dial = func(context.Context, string, string) (net.Conn, error) {
			dials.Add(1)
			<-fail
			return nil, errors.New("no route")
		}
	})
	leader := make(chan error)
	go func() { _, err := p.RoundTrip(peerRequest(t, "eu-1")); leader <- err }()
	waitFor(t, func() bool { return dials.Load() == 1 })
	p.mu.Lock()
	n := p.nodes["eu-1"]
	p.mu.Unlock()
	waiter := make(chan error)
	go func() { _, err := p.RoundTrip(peerRequest(t, "eu-1")); waiter <- err }()
	waitFor(t, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return n.waiting > 0
	})
	close(fail)
	wantError(t, <-leader, CauseConnect, "no route")
	wantError(t, <-waiter, CauseConnect, "no route")
	if dials.Load() != 1 {
		t.Errorf("%d dials, want 1", dials.Load())
	}
}

// TestPeerDelay: a simulated distance slows a round trip by what is sent.
func TestPeerDelay(t *testing.T) {
	f := newFleet(t)
	s := f.node("ap-1", hello)
	const d = 30 * time.Millisecond
	p := f.client(map[string]string{"ap-1": s.Listener.Addr().String()}, func(o *PeerOptions) {
		o.Delay = func(node string) time.Duration {
			if node != "ap-1" {
				t.Errorf("asked for %q", node)
			}
			return d
		}
	})
	start := time.Now()
	resp, err := p.RoundTrip(peerRequest(t, "ap-1"))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if took := time.Since(start); took < 2*d { // the handshake's flight and the request's: never sooner
		t.Errorf("took %v, want at least %v", took, 2*d)
	}
}
