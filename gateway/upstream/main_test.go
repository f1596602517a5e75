package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// long bounds what must happen, in tests that would otherwise hang.
const long = 20 * time.Second

// hostile listens and lets serve do what it likes with each connection.
func hostile(t testing.TB, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				serve(c)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return "http://" + l.Addr().String()
}

// answer is a hostile origin that reads a request, writes s and closes.
func answer(s string) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, s)
		}
	}
}

// reset makes a connection end with a RST instead of a FIN.
func reset(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }

// refusing is the URL of an origin that refuses connections.
func refusing(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return "http://" + l.Addr().String()
}

// good is an honest origin.
func good(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", code) }
}

func newTestPool(t testing.TB, o PoolOptions) *Pool {
	t.Helper()
	if o.Service == "" {
		o.Service, o.Region = "web", "eu"
	}
	p := NewPool(o)
	// Cleanups run backwards: the pool's connections are closed before the servers wait for them.
	t.Cleanup(p.Close)
	return p
}

// policy is what routes have by default, with short waits.
func policy() RetryPolicy {
	return RetryPolicy{
		Attempts: 2, On: OnConnect | OnReset | OnTimeout | On502 | On503 | On504, Budget: 0.2,
		Connect: 5 * time.Second, FirstByte: long, Idle: long,
	}
}

func request(t testing.TB, method string, body io.Reader) *http.Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), long)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, "http://shop.example/path?q=1", body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// do makes a request and reads the response to its end. text is the body, or "" on an error.
func do(p *Pool, r *http.Request, pol RetryPolicy) (text string, code int, a Attempt, err error) {
	resp, a, err := p.RoundTrip(r, pol)
	if err != nil {
		return "", 0, a, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return string(b), resp.StatusCode, a, err
}

// wantError checks an error's cause and part of its text.
func wantError(t *testing.T, err error, cause, text string) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v (%T), want an *Error with cause %s", err, err, cause)
	}
	if e.Cause != cause || !strings.Contains(e.Error(), text) {
		t.Fatalf("got %v, want cause %s and %q", e, cause, text)
	}
	return e
}

// wantIdle checks that nothing is left in flight.
func wantIdle(t *testing.T, p *Pool) {
	t.Helper()
	for _, o := range p.Status().Origins {
		if o.InFlight != 0 {
			t.Errorf("%s has %d requests in flight, want none", o.URL, o.InFlight)
		}
	}
}

// series writes a registry's counters and gauges whose value isn't 0, one a line: name, label values, value.
func series(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			line := f.GetName()
			for _, l := range m.GetLabel() {
				line += " " + l.GetValue()
			}
			if v := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount()); v != 0 {
				lines = append(lines, fmt.Sprint(line, " ", v))
			}
		}
	}
	return strings.Join(lines, "\n")
}

// events notes what OnEvent hears.
type events struct {
	mu    sync.Mutex
	kinds []string
}

func (e *events) note(kind, _, _ string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.kinds = append(e.kinds, kind)
}

func (e *events) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.kinds, " ")
}
