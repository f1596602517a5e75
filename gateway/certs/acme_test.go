package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"landfall/configs"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// acmeOptions are for a store that orders from f.
func (f *fakeACME) options(t *testing.T, dataDir, challenge string, hosts ...string) Options {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root.pem")
	write(t, root, f.root())
	return Options{
		TLS: configs.TLS{ACME: &configs.ACME{
			Email: "ops@example.com", Directory: f.server.URL + "/dir", Challenge: challenge, CA: root,
		}},
		Hosts: hosts, DataDir: dataDir, Metrics: NewMetrics(prometheus.NewRegistry()),
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
}

// run runs the store until the returned function is called, which waits for its end.
func run(t *testing.T, s *Store) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// eventually polls a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	for !ok() {
		select {
		case <-poll.C:
		case <-deadline.C:
			t.Fatalf("never: %s", what)
		}
	}
}

func orders(t *testing.T, s *Store, result string) float64 {
	t.Helper()
	var m dto.Metric
	if err := s.opts.Metrics.orders.WithLabelValues(result).Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// serve opens the listener that the CA reaches the names at.
func (f *fakeACME) serve(t *testing.T, s *Store) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.HTTPChallenge(w, r) {
			http.Error(w, "from the origin", http.StatusTeapot)
		}
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	if s.acme.alpn {
		server.TLS = s.TLSConfig("")
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	f.set(func() { f.target = server.Listener.Addr().String() })
}

func TestACMEObtains(t *testing.T) {
	for _, challenge := range []string{"tls-alpn", "http"} {
		t.Run(challenge, func(t *testing.T) {
			f, dataDir := newFakeACME(t), t.TempDir()
			s, err := New(f.options(t, dataDir, challenge, "shop.test", "*.shop.test", "Blog.test", "shop.test"))
			if err != nil {
				t.Fatal(err)
			}
			f.serve(t, s)
			stop := run(t, s)
			eventually(t, "certificates for both hosts", func() bool { return s.Has("shop.test") && s.Has("blog.test") })
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(f.ca.CertPEM())
			if _, _, err := handshake(t, s.TLSConfig(""), &tls.Config{RootCAs: roots, ServerName: "blog.test"}); err != nil {
				t.Error(err)
			}
			if infos := s.Infos(); len(infos) != 2 || infos[0].Names[0] != "shop.test" || infos[0].Source != "acme" {
				t.Errorf("infos: %+v", infos)
			}
			if got := gauges(t, s.opts.Metrics); len(got) != 2 || got["blog.test"] == 0 || orders(t, s, "obtained") != 2 {
				t.Errorf("metrics: %v", got)
			}
			stop()
			if got := gauges(t, s.opts.Metrics); len(got) != 0 {
				t.Errorf("metrics after the end: %v", got)
			}
			if !s.Has("shop.test") {
				t.Error("the end of Run takes the certificates away")
			}

			// The next start has them at once, with the CA down.
			f.set(func() { f.broken = true })
			again, err := New(f.options(t, dataDir, challenge, "shop.test", "blog.test"))
			if err != nil {
				t.Fatal(err)
			}
			if !again.Has("shop.test") || !again.Has("blog.test") {
				t.Error("a restart forgets what was obtained")
			}
			var before int
			f.set(func() { before = f.requests })
			run(t, again)()
			f.set(func() {
				if f.requests != before {
					t.Error("the CA is asked for certificates that are in hand")
				}
			})
		})
	}
}

func TestACMERenews(t *testing.T) {
	f, dataDir := newFakeACME(t), t.TempDir()
	f.lifetime = 10 * time.Minute // so short that it is due at once
	o := f.options(t, dataDir, "tls-alpn", "shop.test")
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	f.serve(t, s)
	stop := run(t, s)
	eventually(t, "a first certificate", func() bool { return s.Has("shop.test") })
	stop()
	f.set(func() { f.lifetime = 90 * 24 * time.Hour })
	stop = run(t, s)
	eventually(t, "a renewed certificate", func() bool { return time.Until(s.Infos()[0].NotAfter) > time.Hour })
	stop()
}

// While the CA fails, what is in hand is served, the failure is counted and logged, and Run ends when it should.
func TestACMEFailureLeavesWhatIsInHand(t *testing.T) {
	f, ca, dir := newFakeACME(t), newCA(t), t.TempDir()
	f.broken = true
	o := f.options(t, t.TempDir(), "tls-alpn", "shop.test")
	var logs lockedBuffer
	o.Logger = slog.New(slog.NewTextHandler(&logs, nil))
	o.TLS.Certificates = []configs.Certificate{issue(t, ca, dir, "a", time.Hour, "file.test")}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, s)
	eventually(t, "a failed order", func() bool { return orders(t, s, "failed") > 0 })
	f.set(func() {
		if f.requests == 0 {
			t.Error("the directory of the config was not asked")
		}
	})
	for _, name := range []string{"file.test", "shop.test"} {
		cert, err := s.GetCertificate(&tls.ClientHelloInfo{ServerName: name})
		if err != nil || cert.Leaf.DNSNames[0] != "file.test" {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A challenge for an order that nobody made is not ours.
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "http://shop.test/.well-known/acme-challenge/x", nil)
	if s.HTTPChallenge(w, r) {
		t.Error("an unknown challenge was answered")
	}
	for _, name := range []string{"stranger.test", "file.test"} {
		_, err := s.GetCertificate(&tls.ClientHelloInfo{ServerName: name, SupportedProtos: []string{"acme-tls/1"}})
		if err == nil || !strings.Contains(err.Error(), "no order") {
			t.Errorf("challenge for %s: %v", name, err)
		}
	}
	stop()
	if !strings.Contains(logs.String(), "acme: ") || !strings.Contains(logs.String(), "level=ERROR") {
		t.Errorf("log: %s", logs.String())
	}
}

func TestACMESetupErrors(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	write(t, text, []byte("x"))
	for _, tt := range []struct{ dataDir, ca, want string }{
		{"", "", "needs a data folder"},
		{t.TempDir(), text, "not PEM"},
		{t.TempDir(), text + ".none", "no such file"},
	} {
		_, err := New(Options{DataDir: tt.dataDir, TLS: configs.TLS{ACME: &configs.ACME{Directory: "https://acme.test", CA: tt.ca}}})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %q", err, tt.want)
		}
	}
}

func TestStorageLocks(t *testing.T) {
	dir := t.TempDir()
	ours, theirs := newFileStorage(dir), newFileStorage(dir) // theirs stands for another process
	ctx := context.Background()
	if err := ours.Lock(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*fileStorage{ours, theirs} {
		if ok, err := s.TryLock(ctx, "a"); ok || err != nil {
			t.Errorf("TryLock of a held lock: %v, %v", ok, err)
		}
		if ok, err := s.TryLock(ctx, "b"); !ok || err != nil {
			t.Errorf("TryLock of another: %v, %v", ok, err)
		}
		if err := s.Unlock(ctx, "b"); err != nil {
			t.Error(err)
		}
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if err := s.Lock(ended, "a"); !errors.Is(err, context.Canceled) {
			t.Errorf("Lock without time: %v", err)
		}
	}
	got := make(chan error)
	for _, s := range []*fileStorage{ours, theirs} {
		go func() {
			err := s.Lock(ctx, "a")
			if err == nil {
				err = s.Unlock(ctx, "a")
			}
			got <- err
		}()
	}
	if err := ours.Unlock(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-got; err != nil {
			t.Error(err)
		}
	}
	if err := ours.Unlock(ctx, "a"); err == nil {
		t.Error("unlocking what is not locked")
	}
	if len(ours.locks)+len(theirs.locks) != 0 {
		t.Error("locks are not forgotten")
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
