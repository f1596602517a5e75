package admin

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"landfall/configs"
)

func TestIndexLeadsEverywhere(t *testing.T) {
	s := serve(t, &fakeBackend{}, func(o *Options) { o.Admin.PProf = true })
	resp, text := s.do(t, request{line: "GET /"})
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("for a terminal: %s", resp.Header.Get("Content-Type"))
	}
	resp, page := s.do(t, request{line: "GET /", headers: []string{"Accept: text/html,*/*"}})
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") || resp.Header.Get("Content-Security-Policy") == "" {
		t.Errorf("for a browser: %v", resp.Header)
	}
	for _, o := range s.listed {
		path := strings.TrimSuffix(o.path, "{$}")
		if path == "/" {
			continue // it is the index
		}
		if !strings.Contains(string(text), " "+path+" ") || !strings.Contains(string(page), path) {
			t.Errorf("%s is not in the index", path)
		}
	}
	links := strings.Split(string(page), `href="`)[1:]
	if len(links) < 10 {
		t.Fatalf("%d links", len(links))
	}
	for _, link := range links {
		link, _, _ = strings.Cut(link, `"`)
		link = strings.ReplaceAll(link, "&amp;", "&")
		if resp, body := s.do(t, request{line: "GET " + link}); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", link, resp.StatusCode, body)
		}
	}
}

func TestProfilesOnlyWhenAsked(t *testing.T) {
	s := serve(t, &fakeBackend{}, nil)
	status := func(line string) int {
		resp, _ := s.do(t, request{line: line})
		return resp.StatusCode
	}
	if got := status("GET /debug/pprof/"); got != http.StatusNotFound {
		t.Errorf("off: %d", got)
	}
	if _, text := s.do(t, request{line: "GET /"}); strings.Contains(string(text), "pprof") {
		t.Error("the index shows profiles that are off")
	}
	s.SetConfig(configs.Admin{PProf: true})
	for line, want := range map[string]int{
		"GET /debug/pprof": 200, "GET /debug/pprof/": 200, "GET /debug/pprof/cmdline": 200, "GET /debug/pprof/heap?debug=1": 200,
		"GET /debug/pprof/symbol?0x1": 200, "GET /debug/pprof/trace?seconds=0.01": 200, "GET /debug/pprof/haep": 404,
		"GET /debug/pprof/profile?seconds=1000": 400, "GET /debug/pprof/profile?seconds=NaN": 400,
	} {
		if got := status(line); got != want {
			t.Errorf("%s: %d, want %d", line, got, want)
		}
	}
}

func TestProbes(t *testing.T) {
	b := &fakeBackend{}
	s := serve(t, b, nil)
	for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ready\n"} {
		if resp, body := s.do(t, request{line: "GET " + path}); resp.StatusCode != 200 || string(body) != want {
			t.Errorf("%s: %d %q", path, resp.StatusCode, body)
		}
	}
}

// TestEveryMetricMoves reads them from /metrics, as Prometheus does.
func TestEveryMetricMoves(t *testing.T) {
	s := serve(t, &fakeBackend{}, nil)
	s.do(t, request{line: "GET /v1/status"})
	s.do(t, request{line: "GET /nowhere"})
	s.do(t, request{line: "PATCH /v1/status"})
	s.do(t, request{line: "GET /v1/status", headers: []string{"Host: evil.example"}})
	resp, r := s.open(t, "/v1/events")
	frame(t, r)
	_, body := s.do(t, request{line: "GET /metrics"})
	for _, want := range []string{
		`landfall_admin_requests_total{code="200",operation="getStatus"} 1`,
		`landfall_admin_requests_total{code="403",operation="getStatus"} 1`,
		`landfall_admin_requests_total{code="404",operation="none"} 1`,
		`landfall_admin_requests_total{code="405",operation="none"} 1`,
		`landfall_admin_denied_total{reason="host-refused"} 1`,
		`landfall_admin_event_streams 1`,
	} {
		if !strings.Contains(string(body), want+"\n") {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
	resp.Body.Close()
}

// brokenCollector fails each time.
type brokenCollector struct{}

func (brokenCollector) Describe(chan<- *prometheus.Desc) {}
func (brokenCollector) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(prometheus.NewDesc("broken", "", nil, nil), io.ErrUnexpectedEOF)
}

func TestOneBrokenCollectorHidesNoOther(t *testing.T) {
	s := serve(t, &fakeBackend{}, func(o *Options) { o.Gatherer.(*prometheus.Registry).MustRegister(brokenCollector{}) })
	resp, body := s.do(t, request{line: "GET /metrics"})
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "landfall_admin_event_streams") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"250ms": 250 * time.Millisecond, "1.5s": 1500 * time.Millisecond, "1h": time.Hour, "90m": 90 * time.Minute,
		"7d": 7 * 24 * time.Hour, "1d12h": 36 * time.Hour, "0s": 0, "-1s": -time.Second,
	} {
		if got, err := ParseDuration(text); err != nil || got.D() != want {
			t.Errorf("%s: %v (%v)", text, got, err)
		}
	}
	for _, text := range []string{"", "d", "1", "1x", "-1d", "1d-1h", "1.5d", "1d1d", "99999999d", "65535d9999999h", "60000d2562047h"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0s", time.Hour: "1h", 90 * time.Minute: "1h30m", time.Minute: "1m", 61 * time.Second: "1m1s", time.Hour + time.Second: "1h0m1s",
		10 * time.Minute: "10m", 1500 * time.Millisecond: "1.5s", 20 * time.Hour: "20h",
	} {
		if got := Duration(d).String(); got != want {
			t.Errorf("%v: %s", d, got)
		}
	}
}

func FuzzParseDuration(f *testing.F) {
	for _, s := range []string{"1h", "7d", "1d12h", "-5m", "106751d23h47m16s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDuration(s)
		if err != nil {
			return
		}
		if back, err := ParseDuration(d.String()); err != nil || back != d {
			t.Errorf("%q is %s, which reads as %v (%v)", s, d, back, err)
		}
		if strings.Contains(s, "d") && d < 0 {
			t.Errorf("%q has days and is negative: %s", s, d)
		}
	})
}

func TestNilIsNeverNull(t *testing.T) {
	for _, v := range []any{Status{Regions: []RegionSummary{{}}}, Region{}, Node{}, Service{}, Pool{}, Cert{}, ConfigInfo{}, Explanation{Regions: []ExplainedRegion{{}}},
		DrainResult{}, PurgeRequest{}, PurgeResult{}, Event{}, regionList{}, drainList{}, eventList{}} {
		data, err := encode(v)
		if err != nil || strings.Contains(string(data), "null") || !json.Valid(data) {
			t.Errorf("%T: %s (%v)", v, data, err)
		}
	}
}

func BenchmarkStatus(b *testing.B) {
	s := serve(b, &fakeBackend{}, nil)
	b.ReportAllocs()
	for b.Loop() {
		resp, err := s.client.Get(s.url + "/v1/status")
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}
