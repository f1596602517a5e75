package upstream

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"landfall/configs"
)

// TestOneBadOfThree: clients of idempotent requests see no failure, whatever is wrong with one origin, and its breaker
// opens.
func TestOneBadOfThree(t *testing.T) {
	bad := map[string]func(*testing.T) string{
		"refuses":      func(t *testing.T) string { return refusing(t) },
		"closes":       func(t *testing.T) string { return hostile(t, answer("")) },
		"resets":       func(t *testing.T) string { return hostile(t, reset) },
		"503":          func(t *testing.T) string { return good(t, status(503)) },
		"mid-header":   func(t *testing.T) string { return hostile(t, answer("HTTP/1.1 200 OK\r\nConte")) },
		"no HTTP":      func(t *testing.T) string { return hostile(t, answer("hello?\r\n")) },
		"503 and long": func(t *testing.T) string { return hostile(t, answer("HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\n")) },
	}
	for name, origin := range bad {
		t.Run(name, func(t *testing.T) {
			heard := &events{}
			one := origin(t)
			p := newTestPool(t, PoolOptions{Origins: []string{good(t, hello), one, good(t, hello)}, OnEvent: heard.note,
				Breaker: configs.Breaker{MinRequests: 8}})
			var wg sync.WaitGroup
			var failed atomic.Int64
			for range 4 {
				wg.Go(func() {
					for range 50 {
						text, code, a, err := do(p, request(t, "GET", nil), policy())
						if err != nil || code != 200 || text != "hello" || a.Cause != "" {
							failed.Add(1)
							t.Errorf("got %d %q %v %+v", code, text, err, a)
						}
					}
				})
			}
			wg.Wait()
			wantIdle(t, p)
			if s := p.Status(); !s.Origins[1].Ejected || !strings.HasPrefix(heard.String(), "origin.ejected") {
				t.Errorf("the bad origin: %+v, events: %s", s.Origins[1], heard)
			}
		})
	}
}

// TestBreakerOpensAndCloses on a real origin that recovers.
func TestBreakerOpensAndCloses(t *testing.T) {
	var broken atomic.Bool
	var served atomic.Int64
	broken.Store(true)
	origin := good(t, func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		if broken.Load() {
			w.WriteHeader(502)
		}
	})
	heard := &events{}
	p := newTestPool(t, PoolOptions{Origins: []string{origin}, OnEvent: heard.note, Breaker: configs.Breaker{
		MinRequests: 5, Open: configs.Duration(50 * time.Millisecond), Probes: 2}})
	pol := policy()
	pol.Attempts = 1
	for range 5 {
		if _, code, a, err := do(p, request(t, "GET", nil), pol); code != 502 || a.Cause != CauseStatus {
			t.Fatalf("got %d %v %+v", code, err, a)
		}
	}
	_, _, a, err := do(p, request(t, "GET", nil), pol)
	if e := wantError(t, err, CauseBreakerOpen, "circuit breakers"); e.Sent || a.Tries != 0 || served.Load() != 5 {
		t.Errorf("%+v %+v, %d served", e, a, served.Load())
	}
	broken.Store(false)
	deadline := time.After(long)
	for successes := 0; successes < 3; {
		if _, code, _, err := do(p, request(t, "GET", nil), pol); err == nil && code == 200 {
			successes++
		}
		select {
		case <-deadline:
			t.Fatal("the breaker didn't close")
		default:
		}
	}
	if got := heard.String(); got != "breaker.open breaker.half_open breaker.closed" {
		t.Errorf("events: %s", got)
	}
}

// TestBudgetBoundsRetries: when everything fails, retries are the budget's share and its reserve, no more.
func TestBudgetBoundsRetries(t *testing.T) {
	var served atomic.Int64
	fail := func(w http.ResponseWriter, _ *http.Request) { served.Add(1); w.WriteHeader(503) }
	reg := prometheus.NewRegistry()
	p := newTestPool(t, PoolOptions{Origins: []string{good(t, fail), good(t, fail)}, Metrics: NewMetrics(reg),
		Breaker: configs.Breaker{MinRequests: 1000000}, Now: func() time.Time { return epoch }})
	pol := policy()
	pol.Attempts = 10
	const requests = 300
	spent := 0
	for range requests {
		_, code, a, err := do(p, request(t, "GET", nil), pol)
		if code != 503 || err != nil {
			t.Fatalf("the last real response is handed on, got %d %v", code, err)
		}
		if a.Cause == CauseBudget {
			spent++
		}
	}
	retries := served.Load() - requests
	if want := int64(0.2*requests + (budgetWindow * budgetMinRate)); retries > want || retries < want/2 {
		t.Errorf("%d retries of %d requests, want at most %d", retries, requests, want)
	}
	want := fmt.Sprintf("landfall_retry_budget_exhausted_total web %d", spent)
	if got := series(t, reg); spent == 0 || !strings.Contains(got, want) || !strings.Contains(got, fmt.Sprintf("landfall_retries_total status web %d", retries)) {
		t.Errorf("no %q in\n%s", want, got)
	}
}

// TestWhatIsRetried holds the rules: listed, idempotent or unsent, body replayable, attempts left.
func TestWhatIsRetried(t *testing.T) {
	closing := func(t *testing.T) string {
		return hostile(t, func(c net.Conn) {
			buf := make([]byte, 1<<10)
			_, _ = c.Read(buf)
		})
	}
	refuses := func(t *testing.T) string { return refusing(t) }
	small, large := strings.Repeat("s", 100), strings.Repeat("l", maxReplayBody+1)
	plain := func(s string) io.Reader { return struct{ io.Reader }{strings.NewReader(s)} } // no GetBody, length unknown
	sized := func(s string) io.Reader { return sizedReader{strings.NewReader(s), int64(len(s))} }
	tests := map[string]struct {
		bad    func(*testing.T) string
		method string
		body   io.Reader
		pol    func(*RetryPolicy)
		tries  int
	}{
		"GET after a reset":                   {closing, "GET", nil, nil, 2},
		"POST after a reset":                  {closing, "POST", nil, nil, 1},
		"PATCH after a reset":                 {closing, "PATCH", nil, nil, 1},
		"DELETE after a reset":                {closing, "DELETE", nil, nil, 2},
		"POST when refused":                   {refuses, "POST", nil, nil, 2},
		"POST with a body when refused":       {refuses, "POST", sized(small), nil, 2},
		"POST with a long body when refused":  {refuses, "POST", sized(large), nil, 2},
		"POST with a stream when refused":     {refuses, "POST", plain(small), nil, 2},
		"PUT of a small body":                 {closing, "PUT", sized(small), nil, 2},
		"PUT with GetBody":                    {closing, "PUT", strings.NewReader(large), nil, 2},
		"PUT of a long body":                  {closing, "PUT", sized(large), nil, 1},
		"PUT of a stream":                     {closing, "PUT", plain(small), nil, 1},
		"reset isn't listed":                  {closing, "GET", nil, func(p *RetryPolicy) { p.On &^= OnReset }, 1},
		"connect isn't listed":                {refuses, "GET", nil, func(p *RetryPolicy) { p.On &^= OnConnect }, 1},
		"one attempt":                         {closing, "GET", nil, func(p *RetryPolicy) { p.Attempts = 1 }, 1},
		"503 is listed":                       {func(t *testing.T) string { return good(t, status(503)) }, "GET", nil, nil, 2},
		"503 for a POST":                      {func(t *testing.T) string { return good(t, status(503)) }, "POST", nil, nil, 1},
		"500 isn't listed":                    {func(t *testing.T) string { return good(t, status(500)) }, "GET", nil, nil, 1},
		"500 listed":                          {func(t *testing.T) string { return good(t, status(500)) }, "GET", nil, func(p *RetryPolicy) { p.On |= On500 }, 2},
		"first byte, when timeouts are":       {func(t *testing.T) string { return hostile(t, hangUp) }, "GET", nil, func(p *RetryPolicy) { p.FirstByte = 50 * time.Millisecond }, 2},
		"a 404 is an answer like any other":   {func(t *testing.T) string { return good(t, status(404)) }, "GET", nil, nil, 1},
		"a 200 whose body fails can't be now": {func(t *testing.T) string { return hostile(t, answer("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")) }, "GET", nil, nil, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got atomic.Pointer[string]
			second := good(t, func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				s := string(b)
				got.Store(&s)
			})
			// Random numbers of 0 take the first of the untried origins first.
			p := newTestPool(t, PoolOptions{Origins: []string{tt.bad(t), second}, Rand: func() float64 { return 0 }})
			pol := policy()
			if tt.pol != nil {
				tt.pol(&pol)
			}
			r := request(t, tt.method, tt.body)
			if s, ok := tt.body.(sizedReader); ok {
				r.ContentLength = s.size
			}
			want := ""
			if tt.body != nil && tt.tries == 2 {
				want = map[bool]string{true: large, false: small}[strings.Contains(name, "long") || strings.Contains(name, "GetBody")]
			}
			_, code, a, err := do(p, r, pol)
			if a.Tries != tt.tries {
				t.Fatalf("%d attempts (%d, %v), want %d", a.Tries, code, err, tt.tries)
			}
			if tt.tries == 2 && (code != 200 || *got.Load() != want) {
				t.Errorf("the second origin got %d bytes and answered %d (%v), want %d bytes", len(*got.Load()), code, err, len(want))
			}
			wantIdle(t, p)
		})
	}
}

func hangUp(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

type sizedReader struct {
	io.Reader
	size int64
}

// TestExhausted: with attempts over, the last real response goes on even when a later attempt got none.
func TestExhausted(t *testing.T) {
	p := newTestPool(t, PoolOptions{Origins: []string{good(t, status(503)), refusing(t)}, Rand: func() float64 { return 0 }})
	text, code, a, err := do(p, request(t, "GET", nil), policy())
	if code != 503 || text != "no\n" || err != nil || a.Tries != 2 || a.Cause != CauseStatus || a.Origin != p.members.Load().list[1].name {
		t.Errorf("got %d %q %v %+v", code, text, err, a)
	}
	wantIdle(t, p)
}

// TestOnlyOrigin: with no other origin the same is tried again.
func TestOnlyOrigin(t *testing.T) {
	var n atomic.Int64
	origin := hostile(t, func(c net.Conn) {
		if n.Add(1) == 1 {
			return
		}
		answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")(c)
	})
	p := newTestPool(t, PoolOptions{Origins: []string{origin}})
	if text, _, a, err := do(p, request(t, "GET", nil), policy()); text != "hi" || a.Tries != 2 {
		t.Errorf("got %q %v %+v", text, err, a)
	}
}

// TestClientBody: what goes wrong with the client's own body is never the origin's fault.
func TestClientBody(t *testing.T) {
	broken := io.MultiReader(strings.NewReader("begin"), errReader{})
	tooLarge := func(n int64) io.Reader {
		return http.MaxBytesReader(nil, io.NopCloser(io.LimitReader(zeros{}, n)), 10)
	}
	for name, tt := range map[string]struct {
		body   io.Reader
		length int64
		cause  string
	}{
		"breaks while streamed":    {broken, -1, CauseCanceled},
		"breaks while buffered":    {io.MultiReader(strings.NewReader("begin"), errReader{}), 100, CauseCanceled},
		"shorter than it said":     {strings.NewReader("short"), 100, CauseCanceled},
		"too large while streamed": {tooLarge(1 << 20), -1, CauseTooLarge},
		"too large while buffered": {tooLarge(100), 100, CauseTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTestPool(t, PoolOptions{Origins: []string{good(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
			})}})
			body := &closeNoted{Reader: tt.body}
			r := request(t, "PUT", body)
			r.ContentLength = tt.length
			_, _, a, err := do(p, r, policy())
			wantError(t, err, tt.cause, "")
			if s := p.Status().Origins[0]; s.Failures != 0 || a.Tries > 1 || !body.closed.Load() {
				t.Errorf("%+v %+v, body closed %v", s, a, body.closed.Load())
			}
			wantIdle(t, p)
		})
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

type closeNoted struct {
	io.Reader
	closed atomic.Bool
}

func (c *closeNoted) Close() error { c.closed.Store(true); return nil }

func TestParseRetryOn(t *testing.T) {
	pol, err := PolicyFrom(configs.Route{Timeout: configs.RouteTimeout{Connect: configs.Duration(time.Second)}, Retry: configs.Retry{
		Attempts: 3, On: []string{"connect", "reset", "timeout", "500", "502", "503", "504"}, Budget: 0.1}})
	if err != nil || pol.On != OnConnect|OnReset|OnTimeout|On500|On502|On503|On504 || pol.Attempts != 3 || pol.Connect != time.Second {
		t.Errorf("%+v %v", pol, err)
	}
	if _, err := ParseRetryOn([]string{"5xx"}); err == nil || !strings.Contains(err.Error(), `no failure "5xx": use connect`) {
		t.Error(err)
	}
}

func TestBackoff(t *testing.T) {
	for n, most := range map[int]time.Duration{1: 10, 2: 20, 3: 40, 5: 160, 9: 160} {
		if got := backoff(n, 0.999999999); got > most*time.Millisecond || got < most*time.Millisecond-time.Microsecond {
			t.Errorf("retry %d waits at most %v, want %dms", n, got, most)
		}
	}
}

func BenchmarkRoundTrip1KiB(b *testing.B) {
	body := bytes.Repeat([]byte("x"), 1<<10)
	p := newTestPool(b, PoolOptions{Origins: []string{good(b, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })}})
	r := request(b, "GET", nil)
	pol := policy()
	buf := make([]byte, 4<<10)
	b.ReportAllocs()
	b.SetBytes(1 << 10)
	for b.Loop() {
		resp, _, err := p.RoundTrip(r, pol)
		if err != nil {
			b.Fatal(err)
		}
		for err == nil {
			_, err = resp.Body.Read(buf)
		}
		_ = resp.Body.Close()
	}
}

// BenchmarkBareTransport1KiB is the same round trip by http.Transport alone: what the pool adds is the difference.
func BenchmarkBareTransport1KiB(b *testing.B) {
	body := bytes.Repeat([]byte("x"), 1<<10)
	origin := good(b, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })
	rt := &http.Transport{DisableCompression: true}
	defer rt.CloseIdleConnections()
	r, err := http.NewRequest("GET", origin, nil)
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 4<<10)
	b.ReportAllocs()
	b.SetBytes(1 << 10)
	for b.Loop() {
		resp, err := rt.RoundTrip(r)
		if err != nil {
			b.Fatal(err)
		}
		for err == nil {
			_, err = resp.Body.Read(buf)
		}
		_ = resp.Body.Close()
	}
}
