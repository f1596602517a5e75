package gateway

import (
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestRateLimitOutlivesAReload: a reload neither gives a client a new burst nor keeps a limit that the config changed.
func TestRateLimitOutlivesAReload(t *testing.T) {
	url := origin(t, pathf("hello"))
	text := func(limit string) string {
		return aloneWith(url, `{match: {path: /*}, cache: off, rate_limit: {by: client, burst: 2, rate: `+limit+`}}`, "")
	}
	p := start(t, Options{ConfigFile: write(t, filepath.Join(t.TempDir(), "fleet.yaml"), text("1/h"))})
	c := browser(t, p.listen["http"], nil)
	ask := func() int {
		resp, _ := get(t, c, "GET", "http://shop.test/")
		return resp.StatusCode
	}
	if a, b, c := ask(), ask(), ask(); a != 200 || b != 200 || c != 429 {
		t.Fatal(a, b, c)
	}
	reload := func(text string) {
		write(t, p.n.o.ConfigFile, text)
		if err := p.n.Reload(); err != nil {
			t.Fatal(err)
		}
	}
	reload(text("1/h") + "\n# the same again\n")
	if got := ask(); got != 429 {
		t.Error("a reload forgot what was taken:", got)
	}
	reload(text("1000/s"))
	eventually(t, "the new rate", func() bool { return ask() == 200 })
}

// TestFleetRateLimit: three nodes that a key comes to let it through at one rate together, and not at three.
func TestFleetRateLimit(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 79)
	write(t, f.file, f.config("    routes: [{match: {path: /*}, cache: off, rate_limit: {by: route, rate: 30/s, burst: 6, scope: fleet}}]\n"))
	for _, n := range f.nodes {
		if err := n.n.Reload(); err != nil {
			t.Fatal(err)
		}
	}
	var taken atomic.Int64
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for _, region := range f.regions {
		clients.Go(func() {
			tick := time.NewTicker(time.Second / 50)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				if resp, _ := f.get(region, "/"); resp.StatusCode == http.StatusOK {
					taken.Add(1)
				}
			}
		})
	}
	defer clients.Wait()
	defer close(stop)
	began := time.Now()
	eventually(t, "the nodes share the key", func() bool {
		for _, n := range f.nodes {
			if metric(t, n, "landfall_rate_limit_shared_keys") != 1 {
				return false
			}
		}
		return time.Since(began) > 3*time.Second
	})
	before, from := taken.Load(), time.Now()
	eventually(t, "some seconds", func() bool { return time.Since(from) > 3*time.Second })
	got, most := float64(taken.Load()-before), 1.05*30*time.Since(from).Seconds()+6+3
	if got > most {
		t.Errorf("the fleet let %g through in %s, more than %g", got, time.Since(from), most)
	}
	if got < 30 {
		t.Errorf("the fleet let only %g through", got)
	}
}

// metric is the value of a node's gauge or counter without labels.
func metric(t testing.TB, p *process, name string) float64 {
	t.Helper()
	families, err := p.n.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}
