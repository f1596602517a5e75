package upstream

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"landfall/configs"
	"landfall/routing"
)

func names(n int) []string {
	var urls []string
	for i := range n {
		urls = append(urls, fmt.Sprintf("http://10.0.0.%d:80", i+1))
	}
	return urls
}

func TestPowerOfTwoChoices(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	p := newTestPool(t, PoolOptions{Origins: names(4), Rand: rng.Float64})
	for range 1000 {
		if _, refused := p.acquire(nil, 0, Normal); refused != "" {
			t.Fatal(refused)
		}
	}
	for _, o := range p.Status().Origins { // none is given back, so the loads even out
		if o.InFlight < 245 || o.InFlight > 255 {
			t.Errorf("%s has %d of 1000 requests in flight, want about 250", o.URL, o.InFlight)
		}
	}
}

// TestClasses: better classes first, down only in panic, tried ones last.
func TestClasses(t *testing.T) {
	const up, unknown, draining, down = routing.Up, routing.Unknown, routing.Draining, routing.Down
	tests := map[string]struct {
		states []routing.State
		tried  []int
		want   string // indexes of the origins that are chosen, or the refusal
	}{
		"all up":                      {[]routing.State{up, up, up}, nil, "012"},
		"one down":                    {[]routing.State{up, down, up}, nil, "02"},
		"unknown only behind up":      {[]routing.State{unknown, up, unknown}, nil, "1"},
		"unknown":                     {[]routing.State{unknown, unknown, down}, nil, "01"},
		"draining last":               {[]routing.State{draining, unknown, down}, nil, "1"},
		"only draining":               {[]routing.State{draining, draining, down}, nil, "01"},
		"panic":                       {[]routing.State{down, down, up}, nil, "012"},
		"panic leaves draining alone": {[]routing.State{down, down, draining}, nil, "01"},
		"all down":                    {[]routing.State{down, down, down}, nil, "012"},
		"half down is no panic":       {[]routing.State{down, up}, nil, "1"},
		"another than the tried":      {[]routing.State{up, up, up}, []int{0, 2}, "1"},
		"unknown before tried":        {[]routing.State{up, unknown, unknown}, []int{0}, "12"},
		"tried when no other":         {[]routing.State{up, down, up}, []int{0, 2}, "02"},
		"none":                        {nil, nil, CauseAllEjected},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := newTestPool(t, PoolOptions{Origins: names(len(tt.states))})
			for i, s := range tt.states {
				p.SetState(p.members.Load().list[i].name, s)
			}
			var tried []*origin
			for _, i := range tt.tried {
				tried = append(tried, p.members.Load().list[i])
			}
			chosen := make([]bool, len(tt.states))
			got := ""
			for range 200 {
				l, refused := p.acquire(tried, 0, Normal)
				if refused != "" {
					got = refused
					break
				}
				for i, o := range p.members.Load().list {
					chosen[i] = chosen[i] || o == l.origin
				}
				l.ticket.done(nil)
				l.origin.pending.Add(-1)
				l.release()
			}
			for i, c := range chosen {
				if c {
					got += fmt.Sprint(i)
				}
			}
			if got != tt.want {
				t.Errorf("chosen: %s, want %s", got, tt.want)
			}
		})
	}
}

func TestNoPanicAtAll(t *testing.T) {
	p := newTestPool(t, PoolOptions{Origins: names(2), Panic: 1})
	for _, n := range names(2) {
		p.SetState(n, routing.Down)
	}
	resp, a, err := p.RoundTrip(request(t, "GET", nil), policy())
	wantError(t, err, CauseAllEjected, "every origin of the pool is down")
	if resp != nil || a.Sent || a.Tries != 0 || a.Cause != CauseAllEjected {
		t.Errorf("%+v", a)
	}
}

func TestUsable(t *testing.T) {
	const up, unknown, draining, down = routing.Up, routing.Unknown, routing.Draining, routing.Down
	tests := map[string]struct {
		states []routing.State
		open   []int // origins whose breaker is open
		want   routing.State
	}{
		"no checks":                        {[]routing.State{255, 255}, nil, up},
		"no checks, breakers open":         {[]routing.State{255, 255}, []int{0, 1}, down},
		"no checks, one breaker open":      {[]routing.State{255, 255}, []int{0}, up},
		"one up":                           {[]routing.State{down, up, down}, nil, up},
		"the only one that is up has open": {[]routing.State{down, up, down}, []int{1}, down},
		"none measured":                    {[]routing.State{unknown, unknown}, nil, unknown},
		"some measured":                    {[]routing.State{unknown, down}, nil, unknown},
		"draining":                         {[]routing.State{draining, down}, nil, draining},
		"all down, though the pool panics": {[]routing.State{down, down}, nil, down},
		"no origins":                       {nil, nil, down},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := newTestPool(t, PoolOptions{Origins: names(len(tt.states)), Breaker: configs.Breaker{MinRequests: 1}})
			for i, s := range tt.states {
				if s != 255 {
					p.SetState(p.members.Load().list[i].name, s)
				}
			}
			for _, i := range tt.open {
				leave, _ := p.members.Load().list[i].breaker.allow()
				leave.done(errFailure)
			}
			if got := p.Usable(); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestPanicIsSeen(t *testing.T) {
	reg, heard := prometheus.NewRegistry(), &events{}
	origin := good(t, hello)
	p := newTestPool(t, PoolOptions{Origins: []string{origin}, Metrics: NewMetrics(reg), OnEvent: heard.note})
	p.SetState(origin, routing.Down)
	p.SetState("http://elsewhere", routing.Down)
	if !p.Status().Panic {
		t.Error("status doesn't tell the panic")
	}
	if text, _, _, err := do(p, request(t, "GET", nil), policy()); text != "hello" {
		t.Error("a pool that panics tries all:", err)
	}
	got := series(t, reg)
	for _, want := range []string{"landfall_pool_panic eu web 1", "landfall_pool_panic_requests_total eu web 1"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	p.SetState(origin, routing.Up)
	if p.Status().Panic || heard.String() != "pool.panic pool.panic_over" {
		t.Errorf("panic %v, events: %s", p.Status().Panic, heard)
	}
}

func TestBound(t *testing.T) {
	release := make(chan struct{})
	origin := good(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		<-release
	})
	reg := prometheus.NewRegistry()
	p := newTestPool(t, PoolOptions{Origins: []string{origin}, Breaker: configs.Breaker{Requests: 2}, Metrics: NewMetrics(reg)})
	var bodies []io.Closer
	for range 2 {
		resp, _, err := p.RoundTrip(request(t, "GET", nil), policy())
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, resp.Body)
	}
	_, a, err := p.RoundTrip(request(t, "GET", nil), policy())
	if e := wantError(t, err, CauseAtBound, "pool.breaker.requests"); e.Sent || a.Cause != CauseAtBound || a.Tries != 0 {
		t.Errorf("%+v %+v", e, a)
	}
	got := series(t, reg)
	for _, want := range []string{"landfall_origin_requests_in_flight web 2", "landfall_pool_refused_total at_bound web 1"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	close(release)
	for _, b := range bodies {
		_ = b.Close()
	}
	wantIdle(t, p)
	if s := p.Status().Origins[0]; s.Failures != 0 || s.Breaker != "closed" {
		t.Errorf("our own refusal counted against the origin: %+v", s)
	}
}

// TestMetricsAcrossReload: a pool that is closed leaves nothing that describes the present.
func TestMetricsAcrossReload(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := NewMetrics(reg)
	o := PoolOptions{Service: "web", Region: "eu", Origins: names(2), Metrics: m, Breaker: configs.Breaker{MinRequests: 1}}
	before := NewPool(o)
	leave, _ := before.members.Load().list[0].breaker.allow()
	leave.done(errFailure)
	open := "landfall_breaker_state http://10.0.0.1:80 web 2"
	if got := series(t, reg); !strings.Contains(got, open) {
		t.Errorf("no %q in\n%s", open, got)
	}
	after := newTestPool(t, o)
	if got := series(t, reg); strings.Contains(got, open) {
		t.Errorf("the older pool's breaker hides the newer's:\n%s", got)
	}
	before.Close()
	before.Close()
	after.Close()
	if families, err := reg.Gather(); err != nil || strings.Contains(fmt.Sprint(families), "landfall_breaker_state") {
		t.Errorf("left behind: %v %v", families, err)
	}
}

func TestBadOrigins(t *testing.T) {
	p := newTestPool(t, PoolOptions{Origins: []string{"ftp://x", "http://", "nonsense", "http://10.0.0.1:80", "http://10.0.0.1:80"}})
	if n := len(p.Status().Origins); n != 1 {
		t.Errorf("%d origins, want the one that can be used", n)
	}
}

func BenchmarkAcquire(b *testing.B) {
	for _, n := range []int{1, 3, 16} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := newTestPool(b, PoolOptions{Origins: names(n)})
			b.ReportAllocs()
			for b.Loop() {
				l, refused := p.acquire(nil, 0, Normal)
				if refused != "" {
					b.Fatal(refused)
				}
				l.ticket.done(nil)
				l.origin.pending.Add(-1)
				l.release()
			}
		})
	}
}
