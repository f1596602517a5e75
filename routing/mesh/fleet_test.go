package mesh

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
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// memberlist's Shutdown waits for none of its goroutines: a probe in progress ends with its own timeout.
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"),
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).handleIndirectPing.func3"),
	)
}

// limit is how long a test waits for what must happen. It is generous: the machine may be busy.
const limit = 30 * time.Second

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("within %s it did not come about that %s", limit, what)
		}
	}
}

// fleet is several meshes on loopback with a real peer channel, and a network that can be cut.
type fleet struct {
	t    *testing.T
	ca   *x509.Certificate
	key  *ecdsa.PrivateKey
	ring []byte
	uri  string                                         // put into certificates
	wrap func(name string, h http.Handler) http.Handler // put around a node's handler; nil: nothing

	mu    sync.Mutex
	sides map[string]string // node or region → side of the partition; absent: not cut off from anybody
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test fleet"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &fleet{t: t, ca: ca, key: key, ring: []byte("0123456789abcdef0123456789abcdef"), sides: map[string]string{}}
}

func (f *fleet) certificate(name string) tls.Certificate {
	f.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if f.uri != "" {
		u, err := url.Parse(f.uri)
		if err != nil {
			f.t.Fatal(err)
		}
		tmpl.URIs = []*url.URL{u}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, f.ca, &key.PublicKey, f.key)
	if err != nil {
		f.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// cut parts the named regions (which the tests name like their nodes) into sides that hear nothing of each other.
func (f *fleet) cut(sides map[string]string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sides = sides
}

func (f *fleet) apart(a, b string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sides[a] != f.sides[b]
}

// node is one mesh of a fleet, with what its owner heard.
type node struct {
	*Mesh
	name   string
	fleet  *fleet
	server *http.Server
	client *http.Client
	reg    *prometheus.Registry
	cancel context.CancelFunc
	done   chan error
	once   sync.Once

	mu        sync.Mutex
	events    []string
	registers []Register
	changes   int
}

// start runs a node; its region is its name with "r-" before it.
func (f *fleet) start(name string, edit func(*Options), seeds ...*node) *node {
	f.t.Helper()
	n, err := f.prepare(name, edit, seeds...)
	if err != nil {
		f.t.Fatal(err)
	}
	n.run()
	return n
}

func (f *fleet) prepare(name string, edit func(*Options), seeds ...*node) (*node, error) {
	f.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	n := &node{name: name, fleet: f, reg: prometheus.NewRegistry(), done: make(chan error, 1)}
	cert := f.certificate(name)
	n.client = n.newClient(cert)
	o := Options{
		Node: name, Region: "r-" + name, Fleet: "test", Version: "v1", ConfigHash: "c1", Boot: rand.Text(),
		Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		Bind:  netip.MustParseAddrPort("127.0.0.1:0"), Peer: ln.Addr().(*net.TCPAddr).AddrPort(),
		Keys: [][]byte{f.ring}, Client: n.client, Heartbeat: 50 * time.Millisecond, Metrics: NewMetrics(n.reg),
		OnRegister: n.onRegister, OnEvent: n.onEvent, OnChange: n.onChange,
		Delay: func(region string) time.Duration {
			if f.apart(name, strings.TrimPrefix(region, "r-")) {
				return -1
			}
			return 0
		},
		tune: func(c *memberlist.Config) {
			c.ProbeInterval, c.ProbeTimeout, c.SuspicionMult = 200*time.Millisecond, 150*time.Millisecond, 2
			c.GossipInterval, c.PushPullInterval, c.GossipToTheDeadTime = 50*time.Millisecond, time.Second, 300*time.Millisecond
		},
	}
	for _, s := range seeds {
		o.Join = append(o.Join, s.gossip.String())
	}
	if edit != nil {
		edit(&o)
	}
	if n.Mesh, err = New(o); err != nil {
		_ = ln.Close()
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(f.ca)
	handler := n.Handler()
	if f.wrap != nil {
		handler = f.wrap(name, handler)
	}
	n.server = &http.Server{
		Handler: handler, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: limit,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool},
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = n.server.ServeTLS(ln, "", "")
	}()
	f.t.Cleanup(func() {
		n.kill()
		<-served
	})
	return n, nil
}

func (n *node) run() {
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() { n.done <- n.Run(ctx) }()
}

// kill ends a node without a word, as SIGKILL does: its sockets are closed by the kernel.
func (n *node) kill() {
	n.once.Do(func() {
		_ = n.server.Close()
		if n.cancel == nil {
			_ = n.Close()
		} else {
			n.cancel()
			if err := <-n.done; err != nil {
				n.fleet.t.Errorf("%s did not stop in order: %v", n.name, err)
			}
		}
		n.client.CloseIdleConnections()
	})
}

func (n *node) newClient(cert tls.Certificate) *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(n.fleet.ca)
	return &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true,
		HTTP2:             &http.HTTP2Config{SendPingTimeout: time.Second, PingTimeout: time.Second},
		DialTLSContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			name, ok := PeerName(ctx)
			addr, known := n.PeerAddr(name)
			if !ok || !known {
				return nil, fmt.Errorf("no peer %q", name)
			}
			if n.fleet.apart(n.name, name) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			raw, err := new(net.Dialer).DialContext(ctx, network, addr.String())
			if err != nil {
				return nil, err
			}
			conn := tls.Client(&cuttable{Conn: raw, apart: func() bool { return n.fleet.apart(n.name, name) }}, &tls.Config{
				Certificates: []tls.Certificate{cert}, RootCAs: pool, ServerName: name, NextProtos: []string{"h2"},
			})
			if err := conn.HandshakeContext(ctx); err != nil {
				_ = raw.Close()
				return nil, err
			}
			return conn, nil
		},
	}}
}

// cuttable is a connection that a partition makes half-open for good: nothing passes any more, and nobody says so.
type cuttable struct {
	net.Conn
	apart func() bool
	mu    sync.Mutex
	lost  bool
}

func (c *cuttable) isLost() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = c.lost || c.apart()
	return c.lost
}

func (c *cuttable) Write(b []byte) (int, error) {
	if c.isLost() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *cuttable) Read(b []byte) (int, error) {
	for {
		k, err := c.Conn.Read(b)
		if !c.isLost() {
			return k, err
		}
		var nerr net.Error
		if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) || errors.As(err, &nerr) {
			return 0, err
		}
	}
}

func (n *node) onRegister(r Register) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.registers = append(n.registers, r)
}

func (n *node) onEvent(kind, subject, _ string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.events = append(n.events, kind+" "+subject)
}

func (n *node) onChange() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.changes++
}

func (n *node) saw(event string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Contains(n.events, event)
}

// told is the values that OnRegister was called with for a key.
func (n *node) told(key string) (values []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.registers {
		if r.Key == key {
			values = append(values, string(r.Value))
		}
	}
	return values
}

func (n *node) sees(name string) Member {
	for _, m := range n.Members() {
		if m.Name == name {
			return m
		}
	}
	return Member{}
}

// whole waits until all nodes see and reach each other, and gossip knows all of them.
func whole(t *testing.T, nodes ...*node) {
	t.Helper()
	for _, a := range nodes {
		for _, b := range nodes {
			eventually(t, a.name+" reaches "+b.name, func() bool {
				m := a.sees(b.name)
				return m.Reachable && m.State != Dead && m.Boot == b.opt.Boot && a.list.NumMembers() == len(nodes)
			})
		}
	}
}
