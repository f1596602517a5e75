package gateway

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"go.uber.org/goleak"

	"landfall/gateway/admin"
	"landfall/gateway/certs"
)

// TestMain looks for leaks. A connection that net/http has given up lingers for half a second of its own accord, and a probe
// of memberlist ends with its timeout, a second or two after the rest.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"),
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probe"),
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).handleIndirectPing.func2"),
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).handleIndirectPing.func3"))
}

// long bounds what must happen, in tests that would otherwise hang.
const long = 20 * time.Second

// process is a node that runs, as a process of `landfall run` does.
type process struct {
	t      testing.TB
	n      *Node
	stop   chan struct{}
	cut    context.CancelFunc
	ended  chan error
	admin  *admin.Client
	ready  chan struct{}
	listen map[string]string // the first address of each kind of listener

	mu       sync.Mutex
	stopping bool
}

// start runs a node until the test ends, and waits until it is ready.
func start(t testing.TB, o Options) *process {
	t.Helper()
	p := launch(t, o)
	p.awaitReady()
	return p
}

// launch builds a node and runs it until the test ends.
func launch(t testing.TB, o Options) *process {
	t.Helper()
	p := &process{t: t, stop: make(chan struct{}), ended: make(chan error, 1), ready: make(chan struct{}), listen: map[string]string{}}
	o = withDefaults(o)
	o.Print = func(line string) {
		if line == "ready" {
			close(p.ready)
		}
	}
	n, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	p.n = n
	for _, l := range n.listeners {
		if p.listen[l.kind] == "" {
			p.listen[l.kind] = l.addr
		}
	}
	p.admin = admin.NewClient(p.listen["admin"], "", nil)
	ctx, cut := context.WithCancel(context.Background())
	p.cut = cut
	go func() { p.ended <- n.Run(ctx, p.stop) }()
	t.Cleanup(func() {
		p.admin.Close()
		p.kill()
	})
	return p
}

func (p *process) awaitReady() {
	p.t.Helper()
	select {
	case <-p.ready:
	case err := <-p.ended:
		p.ended <- err
		p.t.Fatalf("%s ended before it was ready: %v", p.n.id.name, err)
	case <-time.After(long):
		p.t.Fatalf("%s did not become ready", p.n.id.name)
	}
}

func withDefaults(o Options) Options {
	if o.Lookup == nil {
		o.Lookup = func(string) (string, bool) { return "", false }
	}
	if o.Name == "" {
		o.Name = "node-1"
	}
	if o.Admin == "" {
		o.Admin = "127.0.0.1:0"
	}
	o.Version, o.Now, o.Logger, o.Print = "test", time.Now, slog.New(slog.DiscardHandler), func(string) {}
	return o
}

// leave begins a stop in stages, as SIGTERM does.
func (p *process) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.stopping {
		p.stopping = true
		close(p.stop)
	}
}

// kill ends a node without a word to anybody, as far as one process can, and waits for it.
func (p *process) kill() error {
	p.cut()
	return p.wait()
}

func (p *process) wait() error {
	select {
	case err := <-p.ended:
		p.ended <- err
		return err
	case <-time.After(long):
		p.t.Errorf("the node did not end")
		return errors.New("did not end")
	}
}

// write writes a file into a folder of the test's and returns its path.
func write(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// origin is an honest origin.
func origin(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func eventually(t testing.TB, what string, ok func() bool) time.Duration {
	t.Helper()
	begun := time.Now()
	deadline := time.NewTimer(long)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("did not happen: %s", what)
		case <-tick.C:
		}
	}
	return time.Since(begun)
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

// browser is a client that resolves every name to one address, and trusts the test's CA.
func browser(t testing.TB, addr string, trust *x509.CertPool) *http.Client {
	tr := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		},
		TLSClientConfig:    &tls.Config{RootCAs: trust},
		ForceAttemptHTTP2:  true,
		DisableCompression: true,
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: long, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// get makes a request and reads its response to the end.
func get(t testing.TB, c *http.Client, method, url string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// events are the kinds of what a node recorded, each with its detail.
func (p *process) events() []string {
	p.t.Helper()
	list, err := p.admin.Events(p.t.Context(), 0, 1000)
	if err != nil {
		p.t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Kind+" "+e.Subject+": "+e.Detail)
	}
	return out
}

func (p *process) hasEvent(prefix string) bool {
	return slices.ContainsFunc(p.events(), func(e string) bool { return strings.HasPrefix(e, prefix) })
}

// ports finds free ports, each free for TCP and UDP on all of the hosts.
func ports(t testing.TB, count int, hosts ...string) []string {
	t.Helper()
	var out []string
	var held []io.Closer
	defer func() {
		for _, c := range held {
			_ = c.Close()
		}
	}()
	for tries := 0; len(out) < count; tries++ {
		if tries == 100 {
			t.Fatal("no free ports")
		}
		l, err := net.Listen("tcp", net.JoinHostPort(hosts[0], "0"))
		if err != nil {
			t.Skipf("this system has no loopback address %s: %v", hosts[0], err)
		}
		held = append(held, l)
		_, port, _ := net.SplitHostPort(l.Addr().String())
		free := true
		for i, host := range hosts {
			if i > 0 {
				l, err := net.Listen("tcp", net.JoinHostPort(host, port))
				if free = free && err == nil; err == nil {
					held = append(held, l)
				}
			}
			u, err := net.ListenPacket("udp", net.JoinHostPort(host, port))
			if free = free && err == nil; err == nil {
				held = append(held, u)
			}
		}
		if free {
			out = append(out, port)
		}
	}
	return out
}

// site is a folder with what a fleet's nodes read.
type site struct {
	dir   string
	ca    *certs.CA
	trust *x509.CertPool
	key   string
}

func newSite(t testing.TB, nodes ...string) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), trust: x509.NewCertPool()}
	var err error
	if s.ca, err = certs.NewCA("test", time.Now()); err != nil {
		t.Fatal(err)
	}
	s.trust.AppendCertsFromPEM(s.ca.CertPEM())
	write(t, s.file("ca.pem"), string(s.ca.CertPEM()))
	s.issue(t, "web", "shop.test", "*.shop.test")
	for _, n := range nodes {
		s.issue(t, n, n)
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	s.key = base64.StdEncoding.EncodeToString(key)
	return s
}

func (s *site) file(name string) string { return filepath.Join(s.dir, name) }

func (s *site) issue(t testing.TB, file string, names ...string) {
	t.Helper()
	cert, key, err := s.ca.Issue(names, nil, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	write(t, s.file(file+".pem"), string(cert))
	write(t, s.file(file+".key"), string(key))
}

// places writes a MaxMind database that puts prefixes at points.
func (s *site) places(t testing.TB, at map[string][2]float64) {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test-City", RecordSize: 24, IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	for prefix, point := range at {
		_, n, err := net.ParseCIDR(prefix)
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Insert(n, mmdbtype.Map{
			"country":  mmdbtype.Map{"iso_code": mmdbtype.String("XX")},
			"location": mmdbtype.Map{"latitude": mmdbtype.Float64(point[0]), "longitude": mmdbtype.Float64(point[1])},
		}); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(s.file("places.mmdb"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.WriteTo(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// pathf is a page that names its server.
func pathf(format string, args ...any) http.HandlerFunc {
	text := fmt.Sprintf(format, args...)
	return func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/cached":
			w.Header().Set("Cache-Control", "max-age=600")
		default:
			w.Header().Set("Cache-Control", "no-store")
		}
		_, _ = io.WriteString(w, text)
	}
}
