package homes

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"landfall/configs"
)

// looking is a directory with a lookup service that answers with handler.
func looking(t *testing.T, c *clock, reg *prometheus.Registry, entries int, handler http.HandlerFunc) (*Directory, *atomic.Int64) {
	t.Helper()
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.Add(1); handler(w, r) }))
	t.Cleanup(s.Close)
	o := Options{Service: "shop", Regions: map[string]int{"eu": 1, "us": 1}, Next: map[string]int{"ap": 1}, Now: c.Now,
		Lookup: &configs.HomeLookup{URL: s.URL + "/homes/{key}?v=1", TTL: configs.Duration(time.Minute), Stale: configs.Duration(time.Hour),
			Timeout: configs.Duration(5 * time.Second), Entries: entries}}
	if reg != nil {
		o.Metrics = NewMetrics(reg)
	}
	d := New(o)
	t.Cleanup(d.Close)
	return d, &asked
}

// eventually polls what a goroutine in the background brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline, tick := time.NewTimer(20*time.Second), time.NewTicker(time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatal("did not happen: " + what)
		case <-tick.C:
		}
	}
}

// What the service says holds for its TTL, then while it is asked again, then while it fails; after that nothing is known.
func TestLookup(t *testing.T) {
	c, reg := newClock(), prometheus.NewRegistry()
	var answer atomic.Value
	answer.Store("eu")
	var path atomic.Value
	d, asked := looking(t, c, reg, 1000, func(w http.ResponseWriter, r *http.Request) {
		path.Store(r.URL.EscapedPath() + "?" + r.URL.RawQuery)
		if a := answer.Load().(string); a == "" {
			w.WriteHeader(http.StatusInternalServerError)
		} else {
			fmt.Fprintln(w, a)
		}
	})
	is := func(region string, n int64) {
		t.Helper()
		if h := find(t, d, "a/b c"); h.Region != region || h.Why != LookedUp || asked.Load() != n {
			t.Errorf("%+v after %d questions, want %s after %d", h, asked.Load(), region, n)
		}
	}
	is("eu", 1)
	if got := path.Load(); got != "/homes/a%2Fb%20c?v=1" {
		t.Errorf("asked %s", got)
	}
	is("eu", 1)
	answer.Store(`{"region": "ap"}`)
	c.add(2 * time.Minute)
	find(t, d, "a/b c") // stale: it is asked again behind the request
	eventually(t, "the new answer", func() bool { return find(t, d, "a/b c").Region == "ap" })
	is("ap", 2)
	answer.Store("")
	c.add(30 * time.Minute)
	find(t, d, "a/b c")
	eventually(t, "a third question that fails", func() bool {
		s := d.lookup.shard("a/b c")
		s.mu.Lock()
		defer s.mu.Unlock()
		return !s.known["a/b c"].failed.IsZero()
	})
	is("ap", 3) // and the failure is remembered for a moment
	c.add(2 * time.Hour)
	if _, err := d.Find(t.Context(), "a/b c"); !errors.Is(err, ErrUnknown) {
		t.Errorf("%v, want that nothing is known", err)
	}
	if _, err := d.Find(t.Context(), "a/b c"); !errors.Is(err, ErrUnknown) || asked.Load() != 4 {
		t.Errorf("%v after %d questions: a service that fails must not be asked by every request", err, asked.Load())
	}
	for _, result := range []string{"fresh", "stale", "asked", "failed"} {
		if series(t, reg)["landfall_home_lookups_total "+result+" shop"] == 0 {
			t.Errorf("no lookup counted as %s", result)
		}
	}
}

// A user that the service doesn't know has the ring's home.
func TestLookupUnknownUser(t *testing.T) {
	d, asked := looking(t, newClock(), nil, 1000, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	for range 3 {
		if h := find(t, d, "new"); h.Why != ByRing || h.Region == "" {
			t.Errorf("%+v", h)
		}
	}
	if asked.Load() != 1 {
		t.Errorf("asked %d times", asked.Load())
	}
}

func TestLookupBadAnswers(t *testing.T) {
	for name, answer := range map[string]string{
		"nothing": "", "a region that is none": "mars", "JSON without a region": `{"home":"eu"}`, "no JSON": `{"region":`, "a page": strings.Repeat("x", 10_000),
	} {
		d, _ := looking(t, newClock(), nil, 1000, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) })
		if h, err := d.Find(t.Context(), "u"); !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: %+v %v", name, h, err)
		}
	}
}

// Many requests of one user make one question, and many users no more entries than are allowed.
func TestLookupIsBounded(t *testing.T) {
	release := make(chan struct{})
	d, asked := looking(t, newClock(), nil, 128, func(w http.ResponseWriter, _ *http.Request) { <-release; fmt.Fprint(w, "us") })
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if h := find(t, d, "same"); h.Region != "us" {
				t.Errorf("%+v", h)
			}
		})
	}
	eventually(t, "the question", func() bool { return asked.Load() == 1 })
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Find(gone, "same"); !errors.Is(err, context.Canceled) && err != nil {
		t.Errorf("%v", err)
	}
	close(release)
	wg.Wait()
	for i := range 1000 {
		find(t, d, user(i))
	}
	if n := d.lookup.size(); n > 128 {
		t.Errorf("%d entries", n)
	}
	if n := d.Show().Known; n == 0 {
		t.Error("nothing is remembered")
	}
}

// A directory of an older config still answers for the requests that began with it.
func TestLookupAfterClose(t *testing.T) {
	d, _ := looking(t, newClock(), nil, 1000, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "us") })
	d.Close()
	if h := find(t, d, "u"); h.Region != "us" {
		t.Errorf("%+v", h)
	}
}

func FuzzParseAnswer(f *testing.F) {
	for _, seed := range []string{"eu", " eu\n", `{"region":"eu"}`, `{"region":1}`, "{", ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		region, err := parseAnswer(body)
		if err == nil && (region == "" || len(region) > maxAnswer) {
			t.Errorf("%q was accepted", region)
		}
	})
}
