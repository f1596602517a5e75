package upstream

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// model is an origin that works on so many requests at once, each for so long; what is more waits in its queue.
type model struct {
	workers float64
	service time.Duration
}

func (m model) latency(inFlight float64) float64 {
	return float64(m.service) * max(inFlight/m.workers, 1)
}

// TestGradient: under a load that asks for all that it is given, the limit settles near what the origin can work on,
// follows when its capacity falls to a third, and comes back.
func TestGradient(t *testing.T) {
	g := gradient{limit: limiterStart}
	run := func(m model, steps int) float64 {
		for range steps {
			g.step(sample{mean: m.latency(g.allowed()), count: 100, most: g.allowed()}, 10_000)
		}
		return g.limit
	}
	for range 20 {
		if got := run(model{100, 10 * time.Millisecond}, 300); got < 100 || got > 250 {
			t.Errorf("with 100 workers the limit is %.0f", got)
		}
	}
	if got := run(model{33, 10 * time.Millisecond}, 50); got < 33 || got > 100 {
		t.Errorf("5 s after the capacity fell to 33 workers the limit is %.0f", got)
	}
	if got := run(model{100, 10 * time.Millisecond}, 50); got < 100 {
		t.Errorf("5 s after the capacity came back the limit is %.0f", got)
	}
	for range 200 {
		g.step(sample{count: 50, dropped: 50}, 10_000)
	}
	if g.limit != limiterLeast {
		t.Errorf("with half of all dropped the limit is %.1f", g.limit)
	}
	before := g.limit
	g.step(sample{mean: float64(10 * time.Millisecond), count: 100, most: 1}, 10_000)
	if g.limit != before {
		t.Error("the limit grows though nobody asks for more")
	}
}

// TestGradientComesBack: after a storm that pressed the limit down as far as it goes, all of a steady load is let through
// again well within 2 s of the origin's return, and in the storm the origin is kept busy with a short queue.
func TestGradientComesBack(t *testing.T) {
	const load, service = 180.0, 100 * time.Millisecond // a second
	g := gradient{limit: limiterStart}
	// A steady load has as many in flight as Little's law says, unless the limit lets through fewer.
	step := func(workers float64) (served float64) {
		most := max(g.allowed()*roomFor[Normal], 1)
		inFlight := min(most, load*service.Seconds())
		if capacity := workers / service.Seconds(); load >= capacity {
			inFlight = most // the queue takes all that there is
		}
		latency := model{workers, service}.latency(inFlight)
		served = inFlight / (latency / float64(time.Second))
		g.step(sample{mean: latency, count: int64(max(served/10, 1)), most: inFlight}, 10_000)
		return served
	}
	for range 100 {
		step(30)
	}
	for i := range 90 {
		if served := step(10); i > 10 && served < 0.9*100 {
			t.Errorf("%.1f s into the storm %.0f requests/s are served of the 100 that could be", float64(i)/10, served)
		}
	}
	if g.limit > 25 {
		t.Errorf("in the storm the limit is %.0f for 10 workers", g.limit)
	}
	for range 50 { // it may be worse: refused by the origin, too
		g.step(sample{count: 50, dropped: 50}, 10_000)
	}
	for i := 1; ; i++ {
		if served := step(30); served >= 0.9*load {
			t.Logf("%.0f requests/s %.1f s after the origin's return", served, float64(i)/10)
			if i > 20 {
				t.Errorf("%.1f s after the origin's return is late", float64(i)/10)
			}
			break
		}
		if i > 100 {
			t.Fatal("it does not come back")
		}
	}
}

// TestShedding: the less important are refused first, before anything was sent.
func TestShedding(t *testing.T) {
	release := make(chan struct{})
	reg := prometheus.NewRegistry()
	p := newTestPool(t, PoolOptions{Metrics: NewMetrics(reg), Concurrency: 10, Origins: []string{good(t, func(http.ResponseWriter, *http.Request) { <-release })}})
	var held []lease
	admit := func(priority int) int {
		n := 0
		for {
			l, refused := p.acquire(nil, 0, priority)
			if refused != "" {
				if refused != CauseShed {
					t.Fatal(refused)
				}
				return n
			}
			held = append(held, l)
			n++
		}
	}
	if a, b, c := admit(Background), admit(Normal), admit(Critical); a != 5 || b != 4 || c != 1 {
		t.Errorf("background %d, normal %d, critical %d; want 5, 4, 1", a, b, c)
	}
	pol := policy()
	pol.Priority = Background
	_, _, a, err := do(p, request(t, "GET", nil), pol)
	if e := wantError(t, err, CauseShed, "pool.concurrency"); e.Sent || a.Sent {
		t.Error("a request that is shed was sent")
	}
	if got := series(t, reg); !strings.Contains(got, "landfall_shed_total background web 1") || !strings.Contains(got, "landfall_concurrency_limit") {
		t.Error(got)
	}
	for _, l := range held {
		finish(l)
	}
	close(release)
	wantIdle(t, p)
}

func BenchmarkLimiter(b *testing.B) {
	l, now := newLimiter(-1, 1000), time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if l.admits(3, Normal) {
			l.observe(time.Millisecond, 3, false, now)
		}
	}
}

// BenchmarkShed is a request that is refused because the origins work on as much as they can: from the pool's door to the
// error, nothing is done for it.
func BenchmarkShed(b *testing.B) {
	p := newTestPool(b, PoolOptions{Origins: []string{"http://127.0.0.1:1", "http://127.0.0.1:2"}, Concurrency: 1})
	for _, o := range p.members.Load().list {
		o.inFlight.Add(1)
		defer o.inFlight.Add(-1)
	}
	r, pol := request(b, "GET", nil), policy()
	pol.Priority = Background
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := p.RoundTrip(r, pol); err == nil {
			b.Fatal("it went through")
		}
	}
}
