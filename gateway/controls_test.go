package gateway

import (
	"io"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"landfall/gateway/admin"
)

// canarySite is a node with a canary, whose origins answer with what the returned pointer says.
func canarySite(t *testing.T) (p *process, broken *atomic.Bool, ask func(header string) string) {
	broken = new(atomic.Bool)
	stable := origin(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "stable") })
	next := origin(t, func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = io.WriteString(w, "canary")
	})
	p = start(t, Options{ConfigFile: write(t, filepath.Join(t.TempDir(), "fleet.yaml"), `
listen: {http: ["127.0.0.1:0"]}
flags: {new: {weight: 0%}}
services:
  web:
    hosts: [web.test]
    pools: {any: {origins: ["`+stable+`"]}}
    routes:
      - {match: {path: /new, flag: new}, to: v2, cache: off}
      - {match: {path: /*}, cache: off, retry: {attempts: 1}, canary: {to: v2, weight: 0%, header: X-Canary, rollback: {window: 5s, min_requests: 20}}}
  v2: {hosts: [v2.test], pools: {any: {origins: ["`+next+`"]}}, pool: {breaker: {min_requests: 100000}, eject: {consecutive_errors: 0, error_rate: 0%}}}
`)})
	c := browser(t, p.listen["http"], nil)
	return p, broken, func(header string) string {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "http://web.test/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if header != "" {
			r.Header.Set(header, "1")
		}
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, _ := io.ReadAll(resp.Body)
		return string(b)
	}
}

// TestCanaryRollsBack: a canary that breaks is taken back by the fleet itself, with an event that says why; an operator
// promotes, stops and resets it.
func TestCanaryRollsBack(t *testing.T) {
	p, broken, ask := canarySite(t)
	if got := ask("X-Canary"); got != "canary" {
		t.Fatal(got)
	}
	e, err := p.admin.Explain(t.Context(), "http://web.test/", netip.MustParseAddr("192.0.2.7"))
	if c := e.Route.Canary; err != nil || c == nil || c.To != "v2" || c.Sticky != "cookie" || c.Header != "X-Canary" || c.Side != "stable" ||
		c.Rules != "after 20 requests of each side in 5s, when 99% sure of 2% more failures or 2x the 99th percentile of the latency" {
		t.Errorf("explained as %+v, %v", c, err)
	}
	broken.Store(true)
	eventually(t, "the rollback", func() bool {
		for range 20 {
			ask("")
			ask("X-Canary")
		}
		return p.hasEvent("canary.rolled_back web to v2: by node-1: ")
	})
	if got := ask("X-Canary"); got != "stable" {
		t.Error("a canary that was taken back still serves:", got)
	}
	if e, err = p.admin.Explain(t.Context(), "http://web.test/", netip.Addr{}); err != nil || !e.Route.Canary.Stopped {
		t.Errorf("explained as %+v, %v", e.Route.Canary, err)
	}
	list, err := p.admin.Canaries(t.Context())
	if err != nil || len(list) != 1 || list[0].State != "stopped" || list[0].SetBy != "rollback" || list[0].Node != "node-1" || !strings.Contains(list[0].Reason, "failed") {
		t.Errorf("%+v %v", list, err)
	}
	broken.Store(false)
	for _, step := range []struct {
		spec   *admin.CanarySpec
		header string
		want   string
		event  string
	}{
		{&admin.CanarySpec{Weight: 100, Reason: "it is mended"}, "", "canary", "canary.set web to v2: by loopback: 100% of the clients: it is mended"},
		{&admin.CanarySpec{Stopped: true}, "X-Canary", "stable", "canary.stopped web to v2: by loopback"},
		{nil, "X-Canary", "canary", "canary.reset web to v2"},
		{nil, "", "stable", "canary.reset web to v2"},
	} {
		if _, err := p.admin.SetCanary(t.Context(), "web", "v2", step.spec, 0); err != nil {
			t.Fatal(err)
		}
		if got := ask(step.header); got != step.want || !p.hasEvent(step.event) {
			t.Errorf("%+v: %q; %v", step.spec, got, p.events())
		}
	}
}

// TestFlagAtRunTime: a flag is turned and reset without a reload.
func TestFlagAtRunTime(t *testing.T) {
	p, _, _ := canarySite(t)
	c := browser(t, p.listen["http"], nil)
	for _, step := range []struct {
		spec *admin.FlagSpec
		want string
	}{{nil, "stable"}, {&admin.FlagSpec{Weight: 100}, "canary"}, {&admin.FlagSpec{}, "stable"}, {nil, "stable"}} {
		res, err := p.admin.SetFlag(t.Context(), "new", step.spec, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, body := get(t, c, "GET", "http://web.test/new"); body != step.want {
			t.Errorf("%+v: %q", res.Flag, body)
		}
	}
	if !p.hasEvent("flag.set new: by loopback: on for 100% of the clients") || !p.hasEvent("flag.reset new") {
		t.Error(p.events())
	}
	flags, err := p.admin.Flags(t.Context())
	if err != nil || len(flags) != 1 || flags[0].Weight != 0 || flags[0].SetBy != "" {
		t.Errorf("%+v %v", flags, err)
	}
	if _, err := p.admin.SetFlag(t.Context(), "old", &admin.FlagSpec{}, 0); err == nil {
		t.Error("a flag that is not in the config was set")
	}
}
