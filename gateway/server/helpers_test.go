package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"landfall/configs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// harness is a running server with the listeners that a test asks for.
type harness struct {
	t    testing.TB
	s    *Server
	logs *syncBuffer
	ca   *authority
	m    *Metrics
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func testLimits() configs.Limits {
	return configs.Limits{HeaderBytes: 8 << 10, Headers: 32, Streams: 16, Connections: 100, ConnectionsPerClient: 50,
		Body: 1 << 20, HeaderTimeout: configs.Duration(10 * time.Second), IdleTimeout: configs.Duration(30 * time.Second)}
}

// start makes a server that runs until the test ends. adjust may change its options.
func start(t testing.TB, adjust func(*Options)) *harness {
	t.Helper()
	logs := &syncBuffer{}
	h := &harness{t: t, logs: logs, m: NewMetrics(prometheus.NewRegistry())}
	o := Options{Limits: testLimits(), Metrics: h.m,
		Logger: slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if adjust != nil {
		adjust(&o)
	}
	h.s = New(o)
	h.ca = newAuthority(t)
	ran := make(chan error, 1)
	go func() { ran <- h.s.Run(context.Background()) }()
	t.Cleanup(func() {
		h.s.Stop(context.Background(), 0)
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return h
}

func (h *harness) http(f http.HandlerFunc) string {
	h.t.Helper()
	a, err := h.s.AddHTTP("127.0.0.1:0", f)
	if err != nil {
		h.t.Fatal(err)
	}
	return a.String()
}

func (h *harness) https(f http.HandlerFunc) string {
	h.t.Helper()
	a, err := h.s.AddHTTPS("127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{h.ca.issue(h.t, "localhost")}}, f)
	if err != nil {
		h.t.Fatal(err)
	}
	return a.String()
}

// h2 is a client with one HTTP/2 connection to a server.
func (h *harness) h2() *http.Transport {
	tr := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: h.ca.pool, ServerName: "localhost"}}
	h.t.Cleanup(tr.CloseIdleConnections)
	return tr
}

func (h *harness) dialTLS(addr, proto string) *tls.Conn {
	h.t.Helper()
	c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: h.ca.pool, ServerName: "localhost", NextProtos: []string{proto}})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	return c
}

// dial opens a plain connection with a bound on everything the test does with it.
func dial(t testing.TB, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { c.Close() })
	return c
}

func send(t testing.TB, w io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
}

// readResponse reads one response with its body.
func readResponse(t testing.TB, br *bufio.Reader) (*http.Response, string) {
	t.Helper()
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatalf("read response: %v", err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("read body: %v", err)
	}
	return res, string(b)
}

func get(t testing.TB, rt http.RoundTripper, url string) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.After(15 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("never came true: %s", what)
		}
	}
}

func counter(c *prometheus.CounterVec, label string) float64 {
	return value(c.WithLabelValues(label))
}

func value(m prometheus.Metric) float64 {
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		return -1
	}
	return out.GetCounter().GetValue() + out.GetGauge().GetValue()
}

func ok(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	_, _ = io.WriteString(w, "ok "+r.Method+" "+r.Host+" "+r.RequestURI)
}

// authority is a certificate authority.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true,
		BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{cert: cert, key: key, pool: x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a
}

func (a *authority) issue(t testing.TB, name string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func wantContains(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("want %q in:\n%s", p, text)
		}
	}
}
