package cache

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a clock that stands until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// bench is a cache before an origin that is a function, called without sockets.
type bench struct {
	t      testing.TB
	cache  *Cache
	clock  *clock
	policy Policy

	mu     sync.Mutex
	origin func(r *http.Request) (*http.Response, error)
	seen   []*http.Request
}

func newBench(t testing.TB, change ...func(*Options)) *bench {
	b := &bench{t: t, clock: newClock()}
	o := Options{MaxBytes: 64 << 20, MaxObject: 8 << 20, Now: b.clock.Now}
	for _, f := range change {
		f(&o)
	}
	b.cache = New(o)
	t.Cleanup(b.cache.Close)
	return b
}

// answers makes the origin give one response: header lines "Name: value", then a body.
func (b *bench) answers(status int, body string, lines ...string) {
	b.respond(func(*http.Request) (*http.Response, error) { return b.response(status, body, lines...), nil })
}

func (b *bench) respond(origin func(r *http.Request) (*http.Response, error)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.origin = origin
}

func (b *bench) response(status int, body string, lines ...string) *http.Response {
	h := header(lines...)
	if h.Get("Date") == "" {
		h.Set("Date", b.clock.Now().UTC().Format(http.TimeFormat))
	}
	r := &http.Response{StatusCode: status, Header: h, ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body))}
	if h.Get("Content-Length") == "" {
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	return r
}

func header(lines ...string) http.Header {
	h := make(http.Header)
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		h.Add(name, value)
	}
	return h
}

func (b *bench) fetch(_ context.Context, r *http.Request) (*http.Response, error) {
	b.mu.Lock()
	b.seen = append(b.seen, r)
	origin := b.origin
	b.mu.Unlock()
	return origin(r)
}

func (b *bench) fetches() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.seen)
}

func (b *bench) last() *http.Request {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.seen[len(b.seen)-1]
}

// reply is what a client got.
type reply struct {
	Outcome
	*http.Response
	body   string
	status string // Cache-Status
}

func (b *bench) get(target string, lines ...string) reply { return b.do("GET", target, "", lines...) }

func (b *bench) do(method, target, body string, lines ...string) reply {
	b.t.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, target, in)
	for name, values := range header(lines...) {
		r.Header[name] = values
	}
	return b.serve(r, b.fetch)
}

func (b *bench) serve(r *http.Request, fetch Fetch) reply {
	w := httptest.NewRecorder()
	out := b.cache.Serve(w, r, view(r), b.policy, fetch)
	res := w.Result()
	text, _ := io.ReadAll(res.Body)
	return reply{out, res, string(text), strings.Join(res.Header["Cache-Status"], ", ")}
}

func view(r *http.Request) Request {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return Request{
		Service: "shop", Method: r.Method, Scheme: scheme, Host: r.Host,
		Path: r.URL.EscapedPath(), RawQuery: r.URL.RawQuery, Header: r.Header,
	}
}

// settled waits until the budget holds no fetch, with a clock that runs.
func (b *bench) settled() {
	b.t.Helper()
	b.until(func() bool { return len(b.cache.store.allFills()) == 0 }, "the fetches end")
}

func (b *bench) until(cond func() bool, what string) {
	b.t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline:
			b.t.Fatalf("waited too long until %s", what)
		case <-tick.C:
		}
	}
}

func ptr(d time.Duration) *time.Duration { return &d }

// metric is the value of a metric, of its series with the label value if there are several.
func metric(t testing.TB, reg *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			if labels := m.GetLabel(); len(labels) == 0 || labels[0].GetValue() == label {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("no metric %s %s", name, label)
	return 0
}
