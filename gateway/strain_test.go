package gateway

import (
	"net/http"
	"net/netip"
	"testing"
	"time"

	"landfall/configs"
)

// serve lets a service's origins answer at a rate for some seconds, each request after a latency.
func (v *strain) serve(seconds int, perSecond float64, latency time.Duration) {
	for range seconds {
		answers, took := v.answers+uint64(perSecond), v.took+time.Duration(perSecond)*latency
		v.fold(perSecond*latency.Seconds(), answers, took, 1)
	}
}

func TestStrain(t *testing.T) {
	between := func(v, least, most float64, when string) {
		t.Helper()
		if v < least || v > most {
			t.Errorf("%s: latency is %.2f times the baseline, want %.2f to %.2f", when, v, least, most)
		}
	}
	var v strain
	v.serve(1, 10, 20*time.Millisecond)
	between(v.stretch, 0, 0, "after ten answers")
	v.serve(120, 100, 20*time.Millisecond)
	between(v.stretch, 0.9, 1.1, "in quiet times")
	v.serve(30, 100, 60*time.Millisecond)
	between(v.stretch, 2.5, 3.1, "three times as slow")
	v.serve(1800, 100, 60*time.Millisecond)
	between(v.stretch, 1.5, 2.5, "half an hour later: a busy evening is no new normal")
	v.serve(300, 100, 20*time.Millisecond)
	between(v.stretch, 0.9, 1.1, "calm again")
	for range 10 { // not one answer comes any more
		v.fold(500, v.answers, v.took, 1)
	}
	between(v.stretch, 10, 1e6, "stalled")
	var fast strain
	fast.serve(60, 1000, time.Millisecond)
	fast.serve(60, 1000, 4*time.Millisecond)
	between(fast.stretch, 0, 1, "from 1 to 4 ms")
	var slow strain
	slow.serve(60, 1, time.Second)
	between(slow.stretch, 0, 2, "one a second")
}

func TestStrainsFollowTheConfig(t *testing.T) {
	var s strains
	s.of("web")
	s.of("gone")
	s.tick(&configs.Config{Services: map[string]*configs.Service{"web": {}}}, time.Second)
	if len(s.by) != 1 || s.by["web"] == nil {
		t.Errorf("kept %v", s.by)
	}
}

func TestTwoDigits(t *testing.T) {
	for v, want := range map[float64]float64{0: 0, 0.04: 0, 0.123: 0.12, 1.26: 1.3, 37.4: 37, 1234: 1200} {
		if got := twoDigits(v); got != want {
			t.Errorf("%g: %g, want %g", v, got, want)
		}
	}
}

// What a node's origins take and how far its clients are is measured on the requests that it serves.
func TestLoadIsMeasured(t *testing.T) {
	p := zoneNode(t, zoneFleet)
	for range 30 {
		resp, err := http.DefaultTransport.RoundTrip(request(t, "http://"+p.listen["http"]+"/", "www.edge.test"))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	if waiting, answers, took := p.n.strains.of("web").Totals(); waiting != 0 || answers != 30 || took <= 0 {
		t.Errorf("%d wait, %d answers took %s", waiting, answers, took)
	}
	p.n.seen("web", netip.MustParseAddr("192.0.2.1"))
	p.n.spills.mu.Lock()
	defer p.n.spills.mu.Unlock()
	if p.n.spills.distances["web"] == nil {
		t.Error("nobody was seen")
	}
}

func request(t *testing.T, url, host string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	req.Header.Set("Cache-Control", "no-cache")
	return req
}
