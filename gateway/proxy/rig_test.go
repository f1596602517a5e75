package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"landfall/cache"
	"landfall/configs"
	"landfall/gateway/certs"
	"landfall/gateway/compress"
	"landfall/gateway/homes"
	"landfall/gateway/upstream"
	"landfall/routing"
	"landfall/routing/geo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	// long bounds what must happen, in tests that would otherwise hang.
	long   = 20 * time.Second
	testID = "0123456789abcdef0123456789abcdef"
)

// rig is one node's handler chain with everything real around it but the listeners, which are net/http's own: package
// gateway tests the chain behind gateway/server.
type rig struct {
	t      testing.TB
	proxy  *Proxy
	cache  *cache.Cache
	reg    *prometheus.Registry
	access lockedBuffer
	h1, h2 *httptest.Server

	mu     sync.Mutex
	remote netip.Addr // of every client, when set
	purged []string
	purge  func(url string) (int, []string, error)
	place  geo.Place

	beforeCut func(func()) func()
}

// Lookup implements Locator.
func (g *rig) Lookup(netip.Addr) (geo.Place, bool) { return g.place, g.place.Country != "" }

// PurgeURL implements Purger: on this node's cache alone.
func (g *rig) PurgeURL(_ context.Context, service, url string, soft bool) (int, []string, error) {
	g.mu.Lock()
	g.purged = append(g.purged, service+" "+url)
	g.mu.Unlock()
	if g.purge != nil {
		return g.purge(url)
	}
	host, path, query, err := g.proxy.NormalURL(url)
	if err != nil {
		return 0, nil, err
	}
	removed, _ := g.cache.Purge(cache.Purge{Service: service, Host: host, Path: path, RawQuery: query, Soft: soft})
	return removed, nil, nil
}

// newRig builds a chain from a config; edit changes its options before they are used.
func newRig(t testing.TB, yaml string, edit func(*Options)) *rig {
	t.Helper()
	c, err := configs.Parse("test.yaml", []byte(yaml), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	g := &rig{t: t, reg: prometheus.NewRegistry()}
	g.cache = cache.New(cache.Options{MaxBytes: 8 << 20, Now: time.Now})
	t.Cleanup(g.cache.Close)
	region := c.RegionNames()[0]
	o := Options{
		Config: c, Node: region + "-1", Region: region, Cache: g.cache, Pools: map[string]*upstream.Pool{}, Homes: map[string]*homes.Directory{},
		Compressor: compress.New(compress.Options{Algorithms: c.Compression.Algorithms, MinSize: int64(c.Compression.MinSize), Types: c.Compression.Types}),
		Snapshot:   sync.OnceValue(func() *routing.Snapshot { return allUp(c) }),
		Locator:    g, Purger: g, HasCert: func(string) bool { return false }, Logger: slog.New(slog.DiscardHandler),
		Lasting: NewLasting(),
		Access:  NewAccessLog(slog.New(slog.NewJSONHandler(&g.access, nil)), 1), Metrics: NewMetrics(g.reg), Now: time.Now,
	}
	if edit != nil {
		edit(&o)
	}
	for name, s := range c.Services {
		if a := s.Affinity; a != nil && o.Homes[name] == nil {
			o.Homes[name] = homes.New(homes.Options{Service: name, Regions: a.Regions, Next: a.Next, Handover: a.Handover.D(), Lookup: a.Lookup})
			t.Cleanup(o.Homes[name].Close)
		}
	}
	for name := range c.Services {
		if pool, ok := c.PoolFor(name, o.Region); ok && o.Pools[name] == nil {
			o.Pools[name] = upstream.NewPool(upstream.OptionsFrom(name, o.Region, pool, c.Services[name].Pool))
			t.Cleanup(o.Pools[name].Close)
		}
	}
	t.Cleanup(o.Lasting.Close)
	if g.proxy, err = New(o); err != nil {
		t.Fatal(err)
	}
	g.h1 = httptest.NewServer(g)
	g.h2 = httptest.NewUnstartedServer(g)
	g.h2.EnableHTTP2 = true
	g.h2.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	g.h2.StartTLS()
	g.h2.Client().Transport.(*http.Transport).DisableCompression = true
	t.Cleanup(func() { g.h1.Close(); g.h2.Close() })
	return g
}

// ServeHTTP stands in for gateway/server.
func (g *rig) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := netip.MustParseAddrPort(r.RemoteAddr).Addr()
	g.mu.Lock()
	if g.remote.IsValid() {
		at = g.remote
	}
	g.mu.Unlock()
	conn := Conn{Remote: at, TLS: r.TLS != nil, RequestID: testID, BeforeCut: g.beforeCut}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		conn.Peer = r.TLS.PeerCertificates[0].DNSNames[0]
	}
	g.proxy.Serve(w, r, conn)
}

func (g *rig) from(addr string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.remote = netip.MustParseAddr(addr)
}

// allUp is a snapshot in which every region has one node and every pool is up.
func allUp(c *configs.Config) *routing.Snapshot {
	s := routing.Snapshot{Panic: 0.5, AllDown: -1}
	for _, name := range c.RegionNames() {
		s.Regions = append(s.Regions, routing.Region{Name: name, Nodes: []routing.Node{{Name: name + "-1"}}})
	}
	for _, name := range ServiceNames(c) {
		svc := routing.Service{Name: name}
		for _, r := range s.Regions {
			_, has := c.PoolFor(name, r.Name)
			svc.Places = append(svc.Places, routing.Place{HasPool: has, Weight: 1})
		}
		s.Services = append(s.Services, svc)
	}
	return routing.NewSnapshot(s)
}

// one is the config of one service with one region.
func one(routes string, origins ...string) string {
	return `
listen: {http: [":0"], trusted_proxies: [10.0.0.0/8]}
services:
  web:
    hosts: [shop.test, "*.shop.test"]
    debug: true
    purgers: [127.0.0.0/8]
    pools: {any: {origins: [` + strings.Join(origins, ", ") + `]}}
` + routes
}

// origin is an honest origin.
func origin(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// refusing is the URL of an origin that refuses connections.
func refusing(t testing.TB) string {
	t.Helper()
	// An address of its own where the system has one: a port that is given back on 127.0.0.1 may be another test's next.
	l, err := net.Listen("tcp", "127.0.77.1:0")
	if err != nil {
		l, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return "http://" + l.Addr().String()
}

// request makes a request for shop.test to the plain listener, or with https:// as the target to the other.
func (g *rig) request(method, target string, body io.Reader, header ...string) *http.Request {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), long)
	g.t.Cleanup(cancel)
	base := g.h1.URL
	if rest, ok := strings.CutPrefix(target, "https://"); ok {
		base, target = g.h2.URL, rest
	}
	r, err := http.NewRequestWithContext(ctx, method, base+target, body)
	if err != nil {
		g.t.Fatal(err)
	}
	r.Host = "shop.test"
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			r.Host = value
			continue
		}
		r.Header.Add(name, value)
	}
	return r
}

// send makes a request and leaves its body open.
func (g *rig) send(r *http.Request) *http.Response {
	g.t.Helper()
	resp, err := g.client().Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

func (g *rig) client() *http.Client {
	c := *g.h2.Client()
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}

// get makes a request and reads its response to the end.
func (g *rig) get(method, target string, header ...string) (*http.Response, string) {
	g.t.Helper()
	return read(g.t, g.send(g.request(method, target, nil, header...)))
}

func read(t testing.TB, resp *http.Response) (*http.Response, string) {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// eventually polls a condition, for what no channel tells.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(long)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("did not happen: %s", what)
		case <-tick.C:
		}
	}
}

// receive takes a value that must come.
func receive[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(long):
		t.Fatalf("did not come: %s", what)
		panic("unreachable")
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// pair is two regions, eu and us, with one node each: a client of eu-1 may be served by us-1 over the peer channel.
type pair struct {
	eu, us *rig
	peers  *upstream.PeerTransport
}

func newPair(t testing.TB, yaml string) *pair { return newPairOf(t, yaml, yaml, func(*Options) {}) }

// newPairOf is a pair whose nodes have configs of their own, as during a rollout. edit changes the options of both.
func newPairOf(t testing.TB, eu, us string, edit func(*Options)) *pair {
	t.Helper()
	dir := t.TempDir()
	ca, err := certs.NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	errs := []error{os.WriteFile(filepath.Join(dir, "ca.pem"), ca.CertPEM(), 0o600)}
	creds := map[string]*certs.PeerCreds{}
	files := configs.MeshTLS{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "${NODE}.pem"), Key: filepath.Join(dir, "${NODE}.key")}
	for _, node := range []string{"eu-1", "us-1"} {
		cert, key, err := ca.Issue([]string{node}, nil, time.Now(), time.Hour)
		errs = append(errs, err, os.WriteFile(filepath.Join(dir, node+".pem"), cert, 0o600), os.WriteFile(filepath.Join(dir, node+".key"), key, 0o600))
		creds[node], err = certs.PeerTLS(files, node)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	p := &pair{}
	listeners := map[string]*httptest.Server{}
	transport := func(self string) *upstream.PeerTransport {
		tr := upstream.NewPeerTransport(upstream.PeerOptions{TLS: creds[self].Client, Resolve: func(node string) (netip.AddrPort, bool) {
			l := listeners[node]
			if l == nil {
				return netip.AddrPort{}, false
			}
			return netip.MustParseAddrPort(l.Listener.Addr().String()), true
		}})
		t.Cleanup(tr.CloseIdleConnections)
		return tr
	}
	p.peers = transport("eu-1")
	p.eu = newRig(t, eu, func(o *Options) { o.Region, o.Node, o.Peers = "eu", "eu-1", p.peers; edit(o) })
	p.us = newRig(t, us, func(o *Options) { o.Region, o.Node, o.Peers = "us", "us-1", transport("us-1"); edit(o) })
	for node, g := range map[string]*rig{"eu-1": p.eu, "us-1": p.us} {
		l := httptest.NewUnstartedServer(g)
		l.EnableHTTP2 = true
		l.TLS = creds[node].Server()
		l.StartTLS()
		t.Cleanup(func() { p.peers.CloseIdleConnections(); l.CloseClientConnections(); l.Close() })
		listeners[node] = l
	}
	return p
}

// two is the config of one service in two regions.
func two(eu, us string) string {
	return `
regions: {eu: {jurisdictions: [eu]}, us: {}}
services:
  web:
    hosts: [shop.test]
    debug: true
    pools: {eu: {origins: [` + eu + `]}, us: {origins: [` + us + `]}}
    pool: {breaker: {min_requests: 1000}}
`
}

// trust is a TLS config that trusts a test server.
func trust(s *httptest.Server) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return &tls.Config{RootCAs: pool, ServerName: "example.com"}
}

// valueOf is a counter's or gauge's value.
func valueOf(t testing.TB, m prometheus.Metric) float64 {
	t.Helper()
	var d dto.Metric
	if err := m.Write(&d); err != nil {
		t.Fatal(err)
	}
	return d.GetCounter().GetValue() + d.GetGauge().GetValue()
}
