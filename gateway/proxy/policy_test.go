package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"landfall/cache"
	"landfall/routing"
)

// timed is a rig whose cache has a clock that the test moves, and its origin's count of requests.
func timed(t *testing.T, routes string, h http.HandlerFunc) (g *rig, n *atomic.Int64, wait func(time.Duration)) {
	origin, n := counted(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = nil // the origin's clock would not move
		h(w, r)
	})
	var moved atomic.Int64
	begun := time.Now().Truncate(time.Second) // as dates are
	g = newRig(t, one(routes, origin), func(o *Options) {
		o.Cache = cache.New(cache.Options{MaxBytes: 8 << 20, Now: func() time.Time { return begun.Add(time.Duration(moved.Load())) }})
		t.Cleanup(o.Cache.Close)
	})
	return g, n, func(d time.Duration) { moved.Add(int64(d)) }
}

func statusOf(resp *http.Response) string { return resp.Header.Get("Cache-Status") }

// A failing answer is kept for as long as the route says, and no longer.
func TestNegativeCaching(t *testing.T) {
	g, n, wait := timed(t, "    routes: [{match: {path: /*}, cache: {negative: {404: 10s}}}]", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	for step, want := range []int64{1, 1, 2, 2} {
		if resp, _ := g.get("GET", "/none"); resp.StatusCode != http.StatusNotFound || n.Load() != want {
			t.Errorf("step %d: %d, %d requests at the origin, %s", step, resp.StatusCode, n.Load(), statusOf(resp))
		}
		if step == 1 {
			wait(11 * time.Second)
		}
	}
}

// While the origin fails, in whatever way, what was good is served for as long as the route allows.
func TestStaleWhileTheOriginFails(t *testing.T) {
	var how atomic.Value
	how.Store("well")
	g, _, wait := timed(t, "    routes: [{match: {path: /*}, cache: {stale_if_error: 1h}}]", func(w http.ResponseWriter, _ *http.Request) {
		switch how.Load() {
		case "503":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "cut":
			panic(http.ErrAbortHandler)
		default:
			w.Header().Set("Cache-Control", "max-age=10")
			fmt.Fprint(w, "good")
		}
	})
	g.get("GET", "/p")
	for _, failure := range []string{"503", "cut"} {
		how.Store(failure)
		wait(time.Minute)
		if resp, body := g.get("GET", "/p"); resp.StatusCode != http.StatusOK || body != "good" {
			t.Errorf("%s: %d %q %s", failure, resp.StatusCode, body, statusOf(resp))
		}
	}
	wait(time.Hour)
	if resp, _ := g.get("GET", "/p"); resp.StatusCode < 500 {
		t.Errorf("past the time that it may be served: %d %s", resp.StatusCode, statusOf(resp))
	}
}

// What is in use is refreshed behind its clients before it expires: none of them ever waits for the origin.
func TestRefreshAhead(t *testing.T) {
	g, n, wait := timed(t, "    routes: [{match: {path: /*}, cache: {refresh_ahead: 50%}}]", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=100")
		fmt.Fprint(w, "page")
	})
	g.get("GET", "/p")
	for round := range 3 {
		wait(40 * time.Second)
		g.get("GET", "/p")
		if n.Load() != int64(round+1) {
			t.Fatalf("refreshed in the first half of its life: %d requests", n.Load())
		}
		wait(20 * time.Second)
		if resp, _ := g.get("GET", "/p"); !strings.Contains(statusOf(resp), "hit; ttl=40") {
			t.Errorf("round %d: a client waited: %s", round, statusOf(resp))
		}
		eventually(t, "it is refreshed", func() bool {
			resp, _ := g.get("GET", "/p")
			return strings.Contains(statusOf(resp), "hit; ttl=100")
		})
		if n.Load() != int64(round+2) {
			t.Errorf("round %d: %d requests at the origin", round, n.Load())
		}
	}
}

// What was stored in a burst doesn't expire at once.
func TestJitteredLifetimes(t *testing.T) {
	g, _, wait := timed(t, "    routes: [{match: {path: /*}, cache: {jitter: 20%}}]", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Cache-Control", "max-age=1000") })
	lives := map[string]bool{}
	for i := range 30 {
		path := fmt.Sprint("/", i)
		g.get("GET", path)
		wait(17 * time.Microsecond)
		resp, _ := g.get("GET", path)
		_, ttl, _ := strings.Cut(statusOf(resp), "ttl=")
		if lives[ttl] = true; len(ttl) > 4 || ttl < "800" && ttl != "1000" {
			t.Errorf("%s lives for %s", path, ttl)
		}
	}
	if len(lives) < 10 {
		t.Errorf("30 objects have only %d lifetimes", len(lives))
	}
}

// Nobody waits behind an answer that can't be shared: once that is known, all clients are at the origin at a time.
func TestHitForMiss(t *testing.T) {
	const clients = 8
	var arrived sync.WaitGroup
	var known atomic.Bool
	u, _ := counted(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "private")
		if known.Load() {
			arrived.Done()
			arrived.Wait() // for all of them: none is answered before
		}
	})
	g := newRig(t, one("", u), nil)
	g.get("GET", "/me")
	known.Store(true)
	arrived.Add(clients)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			if resp, _ := g.get("GET", "/me"); resp.StatusCode != http.StatusOK {
				t.Errorf("%d", resp.StatusCode)
			}
		})
	}
	wg.Wait()
}

// A holder that has more than its share of requests under way is passed over until it has less; otherwise keys stay where
// they are.
func TestHoldersLoadIsBounded(t *testing.T) {
	var s sharing
	nodes := []routing.Node{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	const key = 42
	usual := s.order(nodes, key)
	load := s.load(usual[0].Name)
	for n := range 3 * heldFloor {
		got := s.order(nodes, key)
		if over := n >= heldFloor; (got[0].Name == usual[1].Name) != over || (got[2].Name == usual[0].Name) != over {
			t.Fatalf("with %d under way the order is %v", n, got)
		}
		load.Add(1)
	}
	for _, other := range usual[1:] {
		s.load(other.Name).Add(3 * heldFloor)
	}
	if got := s.order(nodes, key); got[0].Name != usual[0].Name {
		t.Errorf("all are as busy, and the order is %v", got)
	}
	if got := s.order(nodes[:2], key); len(got) != 2 {
		t.Errorf("%v", got)
	}
}

// A key that is held elsewhere counts as hot from its third request within a minute.
func TestHotKeys(t *testing.T) {
	var h heat
	at := time.Unix(1_000_000*60, 0)
	for n, want := range []bool{false, false, true, true} {
		if h.hot(7<<40, at.Add(time.Duration(n)*time.Second)) != want {
			t.Errorf("request %d", n+1)
		}
	}
	if h.hot(7<<40, at.Add(2*time.Minute)) || h.hot(8<<40, at) {
		t.Error("hot in another minute, or another key")
	}
}
