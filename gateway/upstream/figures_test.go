package upstream

import (
	"flag"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// figures runs the measurements, which take a while and want a quiet machine: go test ./gateway/upstream -run Figure -figures -v
var figures = flag.Bool("figures", false, "measure what the pool promises")

func wantFigures(t *testing.T) {
	t.Helper()
	if !*figures {
		t.Skip("run with -figures")
	}
}

// worker is an origin that works on so many requests at once, each for so long; the rest wait in its queue, and are worked
// on even when nobody waits for them any more.
type worker struct {
	slots chan struct{}
	each  time.Duration
	seen  atomic.Int64
}

func newWorker(slots int, each time.Duration) *worker {
	w := &worker{slots: make(chan struct{}, slots), each: each}
	for range slots {
		w.slots <- struct{}{}
	}
	return w
}

func (o *worker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.seen.Add(1)
	<-o.slots
	timer := time.NewTimer(o.each)
	<-timer.C
	o.slots <- struct{}{}
	hello(w, r)
}

// load sends rate requests a second for a time, whatever becomes of them, and tells of each when it ended and how.
func load(t *testing.T, p *Pool, pol RetryPolicy, rate int, span time.Duration, ended func(at, took time.Duration, ok bool)) {
	t.Helper()
	var wg sync.WaitGroup
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	start, sent := time.Now(), 0
	for now := range tick.C {
		due := int(now.Sub(start).Seconds() * float64(rate))
		for ; sent < due; sent++ {
			wg.Go(func() {
				began := time.Now()
				_, code, _, err := do(p, request(t, "GET", nil), pol)
				ended(time.Since(start), time.Since(began), err == nil && code == 200)
			})
		}
		if now.Sub(start) > span {
			break
		}
	}
	wg.Wait()
}

// TestFigureOneBad: of three origins one fails everything.
func TestFigureOneBad(t *testing.T) {
	wantFigures(t)
	p := newTestPool(t, PoolOptions{Origins: []string{good(t, hello), good(t, status(503)), good(t, hello)}})
	var all, failed atomic.Int64
	load(t, p, policy(), 400, 15*time.Second, func(_, _ time.Duration, ok bool) {
		all.Add(1)
		if !ok {
			failed.Add(1)
		}
	})
	share := float64(failed.Load()) / float64(all.Load())
	t.Logf("%d of %d requests failed (%.3f%%)", failed.Load(), all.Load(), share*100)
	if share >= 0.001 {
		t.Error("want under 0.1%")
	}
}

// TestFigureKilled: an origin dies under load; no idempotent request fails.
func TestFigureKilled(t *testing.T) {
	wantFigures(t)
	dying := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wait(5 * time.Millisecond) // so that some are under way when it dies
		hello(w, r)
	}))
	t.Cleanup(dying.Close)
	p := newTestPool(t, PoolOptions{Origins: []string{good(t, hello), dying.URL, good(t, hello)}})
	kill := sync.OnceFunc(func() {
		_ = dying.Listener.Close()
		dying.CloseClientConnections()
	})
	var all, failed atomic.Int64
	load(t, p, policy(), 400, 10*time.Second, func(at, _ time.Duration, ok bool) {
		all.Add(1)
		if at > 3*time.Second {
			kill()
		}
		if !ok {
			failed.Add(1)
		}
	})
	t.Logf("%d of %d requests failed", failed.Load(), all.Load())
	if failed.Load() > 0 {
		t.Error("want none")
	}
}

// TestFigureOneSlow: of three origins one is twenty times slower.
func TestFigureOneSlow(t *testing.T) {
	wantFigures(t)
	p99 := func(third time.Duration) time.Duration {
		var origins []string
		for _, each := range []time.Duration{20 * time.Millisecond, 20 * time.Millisecond, third} {
			origins = append(origins, good(t, newWorker(100, each).ServeHTTP))
		}
		p := newTestPool(t, PoolOptions{Origins: origins})
		var mu sync.Mutex
		var all []time.Duration
		load(t, p, policy(), 300, 25*time.Second, func(_, took time.Duration, _ bool) {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took)
		})
		slices.Sort(all)
		return all[len(all)*99/100]
	}
	normal, slow := p99(20*time.Millisecond), p99(400*time.Millisecond)
	t.Logf("p99 with three alike: %s; with one of 400 ms: %s (%.2f times)", normal, slow, float64(slow)/float64(normal))
	if slow > 2*normal {
		t.Error("want within 2 times")
	}
}

// TestFigureStorm: the origin's capacity falls to a third under a steady load, and comes back.
func TestFigureStorm(t *testing.T) {
	wantFigures(t)
	const slots, each, rate = 24, 40 * time.Millisecond, 400 // of 600 a second, later 200
	w := newWorker(slots, each)
	reach := func(limit int) (goodput, amplification float64, recovered time.Duration) {
		p := newTestPool(t, PoolOptions{Origins: []string{good(t, w.ServeHTTP)}, Concurrency: limit})
		pol := policy()
		pol.FirstByte = time.Second
		const falls, returns, ends = 8 * time.Second, 20 * time.Second, 30 * time.Second
		time.AfterFunc(falls, func() {
			for range slots * 2 / 3 {
				<-w.slots
			}
		})
		time.AfterFunc(returns, func() {
			for range slots * 2 / 3 {
				w.slots <- struct{}{}
			}
		})
		var mu sync.Mutex
		good, all := make([]int, 64), 0
		before := w.seen.Load()
		load(t, p, pol, rate, ends, func(at, _ time.Duration, ok bool) {
			mu.Lock()
			defer mu.Unlock()
			all++
			if ok {
				good[int(at/(500*time.Millisecond))]++
			}
		})
		low := 0
		for _, n := range good[falls*2/time.Second+2 : returns*2/time.Second] { // from a second after the fall
			low += n
		}
		goodput = float64(low) / (11 * slots / 3 / each.Seconds())
		recovered = ends
		for i := int(returns * 2 / time.Second); i < int(ends*2/time.Second)-1; i++ {
			if float64(good[i]) >= 0.95*rate/2 {
				recovered = time.Duration(i+1)*500*time.Millisecond - returns
				break
			}
		}
		return goodput, float64(w.seen.Load()-before) / float64(all), recovered
	}
	goodput, amplification, recovered := reach(-1)
	t.Logf("adaptive: goodput %.1f%% of what the origin can do, amplification %.2f, recovered within %s", goodput*100, amplification, recovered)
	if goodput < 0.9 || amplification > 1.25 || recovered > 5*time.Second {
		t.Error("want above 90%, below 1.25, within 5 s")
	}
	goodput, amplification, recovered = reach(0)
	t.Logf("off, for comparison: goodput %.1f%%, amplification %.2f, recovered within %s", goodput*100, amplification, recovered)
}
