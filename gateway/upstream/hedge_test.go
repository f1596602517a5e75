package upstream

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"landfall/configs"
)

// TestHedge: a request that hangs on one origin is answered by the other, the first is cancelled and not blamed.
func TestHedge(t *testing.T) {
	var cancelled atomic.Int64
	slow := good(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done(); cancelled.Add(1) })
	reg := prometheus.NewRegistry()
	p := newTestPool(t, PoolOptions{Origins: []string{slow, good(t, hello)}, Metrics: NewMetrics(reg)})
	pol := policy()
	pol.Hedge = NewHedge(&configs.Hedge{After: "5ms", Budget: 1})
	for range 20 {
		text, code, a, err := do(p, request(t, "GET", nil), pol)
		if err != nil || code != 200 || text != "hello" || a.Cause != "" {
			t.Fatal(text, code, a, err)
		}
	}
	waitFor(t, func() bool {
		s := p.Status().Origins[0]
		return s.InFlight == 0 && cancelled.Load() > 0
	})
	if s := p.Status().Origins[0]; s.Requests == 0 || s.Failures != 0 {
		t.Errorf("%+v", s)
	}
	if got := series(t, reg); !strings.Contains(got, "landfall_hedges_total won web") {
		t.Error(got)
	}
}

// TestHedgeBudget: when everything is slow, hedges stay within their budget.
func TestHedgeBudget(t *testing.T) {
	reg := prometheus.NewRegistry()
	slow := func(w http.ResponseWriter, r *http.Request) {
		timer := time.NewTimer(5 * time.Millisecond)
		<-timer.C
		hello(w, r)
	}
	p := newTestPool(t, PoolOptions{Origins: []string{good(t, slow), good(t, slow)}, Metrics: NewMetrics(reg)})
	pol := policy()
	pol.Hedge = NewHedge(&configs.Hedge{After: "1ms", Budget: 0.05})
	for range 100 {
		if text, _, _, err := do(p, request(t, "GET", nil), pol); text != "hello" {
			t.Fatal(err)
		}
	}
	sent := uint64(0)
	for _, o := range p.Status().Origins {
		sent += o.Requests
	}
	if sent > 100+5+20 { // the budget, and what is allowed whatever the traffic
		t.Errorf("%d attempts for 100 requests", sent)
	}
	if got := series(t, reg); !strings.Contains(got, "landfall_hedges_total refused web") {
		t.Error(got)
	}
	waitFor(t, func() bool { return p.Status().Origins[0].InFlight+p.Status().Origins[1].InFlight == 0 })
}

// TestHedgeOnlySafe: what isn't safe to send twice is never hedged.
func TestHedgeOnlySafe(t *testing.T) {
	for method, body := range map[string]string{"POST": "", "PUT": "x"} {
		r := request(t, method, strings.NewReader(body))
		if body == "" {
			r.Body = nil
		}
		if hedgeable(r) {
			t.Error(method, "with body", body)
		}
	}
	r := request(t, "POST", nil)
	r.Header.Set("Idempotency-Key", "1")
	if !hedgeable(r) || !hedgeable(request(t, "GET", nil)) {
		t.Error("a GET, and a POST with an Idempotency-Key and no body, may be hedged")
	}
}

func TestLatencies(t *testing.T) {
	var l latencies
	if _, ok := l.quantile(0.95); ok {
		t.Error("nothing was measured")
	}
	for i := range 1000 {
		l.add(time.Duration(i) * time.Millisecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Millisecond, 0.95: 950 * time.Millisecond, 0.99: 990 * time.Millisecond} {
		l.cached.Store(0)
		if got, ok := l.quantile(q); !ok || got < want || float64(got) > 1.26*float64(want) {
			t.Errorf("p%g: %s, want from %s to a quarter more", q*100, got, want)
		}
	}
	for _, d := range []time.Duration{-1, 0, 1, time.Hour, 1 << 62} {
		if i := bucketOf(d); i < 0 || i >= latencyBuckets {
			t.Errorf("%d is in bucket %d", d, i)
		}
	}
	for d := time.Duration(1 << latencyLeast); d < time.Hour; d += d / 7 {
		if up := upper(bucketOf(d)); up < d || float64(up) > 1.26*float64(d) {
			t.Errorf("%s is below %s", d, up)
		}
	}
}

func TestGRPCTimeout(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"1S": time.Second, "250m": 250 * time.Millisecond, "2H": 2 * time.Hour, "3M": 3 * time.Minute, "9u": 9000, "100n": 100,
		"": 0, "S": 0, "1": 0, "1x": 0, "-1S": 0, "123456789S": 0, "99999999H": 0, "0S": 0, "+1S": 0,
	} {
		if got := grpcTimeout(value); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}

func TestDeadlineIsCarried(t *testing.T) {
	var got atomic.Pointer[http.Header]
	p := newTestPool(t, PoolOptions{Origins: []string{good(t, func(_ http.ResponseWriter, r *http.Request) { got.Store(&r.Header) })}})
	pol := policy()
	pol.Total = 3 * time.Second
	r := request(t, "GET", nil)
	r.Header.Set(TimeoutHeader, "999999")
	if _, _, _, err := do(p, r, pol); err != nil {
		t.Fatal(err)
	}
	if v := got.Load().Get(TimeoutHeader); len(v) != 4 || v > "3000" || v < "2000" {
		t.Errorf("the origin was given %q ms", v)
	}
	r = request(t, "POST", nil)
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("Grpc-Timeout", "2S")
	if _, _, _, err := do(p, r, pol); err != nil {
		t.Fatal(err)
	}
	if v := got.Load().Get("Grpc-Timeout"); len(v) != 5 || v > "2000m" {
		t.Errorf("the origin was given %q", v)
	}
}
