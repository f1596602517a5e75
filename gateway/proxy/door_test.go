package proxy

import (
	"bytes"
	"fmt"

	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"landfall/healthcheck"
)

// askHere sends an observer's request through the chain's own front door.
func askHere(t *testing.T, g *rig, passes *healthcheck.Passes, host string) (a healthcheck.DoorAnswer, admitted bool) {
	t.Helper()
	r := httptest.NewRequest("GET", "http://"+host+healthcheck.DoorPath, nil)
	pass, nonce := passes.Ask(host, time.Now())
	r.Header.Set(healthcheck.DoorHeader, pass)
	w := httptest.NewRecorder()
	if !IsDoor(r) || !g.proxy.ServeDoor(w, r, passes) {
		return a, false
	}
	a, err := passes.Open(nonce, w.Header().Get(healthcheck.DoorHeader), w.Body.Bytes())
	if err != nil {
		t.Errorf("the answer can't be opened: %v", err)
	}
	if w.Header().Get("Cache-Control") != "no-store" {
		t.Error("the answer may be stored")
	}
	return a, true
}

// An observer meets what a client would: host, routes and pool. What it asks is no client's request.
func TestServeDoor(t *testing.T) {
	var asked atomic.Int64
	var status atomic.Int64
	status.Store(200)
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			asked.Add(1)
			if r.Host != "shop.test" {
				t.Errorf("the origin was asked for host %q", r.Host)
			}
		}
		w.WriteHeader(int(status.Load()))
	}))
	defer origin.Close()
	g := newRig(t, fmt.Sprintf(`
services:
  shop:
    hosts: [shop.test]
    pools: {any: {origins: ["%s"]}}
    pool: {check: {path: /healthz, interval: 10s, timeout: 5s}} # a slow machine is no failing pool
    routes: [{match: {path: /api/*, methods: [POST]}, rate_limit: {by: route, rate: 1/m, burst: 1}}]
  plain: {hosts: [plain.test], pools: {any: {origins: ["%s"]}}}
`, origin.URL, origin.URL), nil)
	passes := healthcheck.NewPasses("test", [][]byte{bytes.Repeat([]byte{1}, 32)})
	want := func(host, service, state, detail string) {
		t.Helper()
		a, ok := askHere(t, g, passes, host)
		if !ok || a.Service != service || a.State != state || !strings.Contains(a.Detail, detail) || a.Region != "local" || a.Node == "" {
			t.Errorf("%s: %+v %t, want %s %s %s", host, a, ok, service, state, detail)
		}
	}
	want("shop.test", "shop", "up", "")
	for range 50 {
		want("shop.test", "shop", "up", "")
	}
	if n := asked.Load(); n < 1 || n > 10 {
		t.Errorf("51 observers made %d requests to the origin", n)
	}
	want("plain.test", "plain", "up", "")
	want("none.test", "", "", "")

	status.Store(503)
	deadline := time.Now().Add(long)
	for a, _ := askHere(t, g, passes, "shop.test"); a.State != "down"; a, _ = askHere(t, g, passes, "shop.test") {
		if time.Now().After(deadline) {
			t.Fatalf("a pool that fails is told as %+v", a)
		}
	}
	metrics, err := g.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range metrics {
		if m.GetName() == "landfall_requests_total" && len(m.GetMetric()) > 0 {
			t.Errorf("observers are counted as clients: %v", m)
		}
	}
	if g.access.String() != "" {
		t.Errorf("observers are in the access log: %s", g.access.String())
	}
}

// Without a good pass the path is one like all others, so nobody learns of it.
func TestDoorIsClosedToStrangers(t *testing.T) {
	g := newRig(t, fmt.Sprintf(`
services: {shop: {hosts: [shop.test], pools: {any: {origins: ["%s"]}}, routes: [{match: {path: /api/*}}]}}
`, echoOrigin(t)), nil)
	passes := healthcheck.NewPasses("test", [][]byte{bytes.Repeat([]byte{1}, 32)})
	stranger, _ := healthcheck.NewPasses("test", [][]byte{bytes.Repeat([]byte{2}, 32)}).Ask("shop.test", time.Now())
	for _, pass := range []string{"", "x", stranger} {
		r := httptest.NewRequest("GET", "http://shop.test"+healthcheck.DoorPath, nil)
		if pass != "" {
			r.Header.Set(healthcheck.DoorHeader, pass)
		}
		w := httptest.NewRecorder()
		if g.proxy.ServeDoor(w, r, passes) {
			t.Errorf("pass %q is admitted", pass)
		}
		g.proxy.Serve(w, r, Conn{RequestID: testID})
		if w.Code != http.StatusNotFound || strings.Contains(w.Body.String(), "front") {
			t.Errorf("pass %q: %d %s", pass, w.Code, w.Body)
		}
	}
}
