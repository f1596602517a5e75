package proxy

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestTo: a route is served by another service's pools.
func TestTo(t *testing.T) {
	own, other := origin(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "own") }),
		origin(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "other") })
	g := newRig(t, one("    routes: [{match: {path: /v2/*}, to: other}, {match: {path: /*}}]\n", own)+
		"  other:\n    hosts: [other.test]\n    pools: {any: {origins: ["+other+"]}}\n", nil)
	for path, want := range map[string]string{"/v2/x": "other", "/": "own"} {
		if _, body := read(t, g.send(g.request("GET", path, nil))); body != want {
			t.Errorf("%s: %q, want %q", path, body, want)
		}
	}
}

// TestMirror: copies arrive, and a shadow that hangs costs the client nothing.
func TestMirror(t *testing.T) {
	shadow, copies := counted(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(time.Second):
		}
	})
	own, served := counted(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		_, _ = io.WriteString(w, "own")
	})
	g := newRig(t, one("    routes: [{match: {path: /*}, mirror: {to: shadow, weight: 100%}}]\n", own)+
		"  shadow:\n    hosts: [shadow.test]\n    pools: {any: {origins: ["+shadow+"]}}\n", nil)
	for range maxCopies + 10 {
		if resp, body := read(t, g.send(g.request("GET", "/", nil))); resp.StatusCode != 200 || body != "own" {
			t.Fatalf("%d %q", resp.StatusCode, body)
		}
	}
	if resp, _ := read(t, g.send(g.request("POST", "/", strings.NewReader("x")))); resp.StatusCode != 200 {
		t.Error(resp.StatusCode)
	}
	if n := served.Load(); n != maxCopies+11 {
		t.Errorf("the origin had %d requests", n)
	}
	eventually(t, "the copies arrive, and end", func() bool {
		return copies.Load() > 0 && len(g.proxy.o.Lasting.copies) == 0
	})
	if copies.Load() > maxCopies+11 {
		t.Errorf("%d copies", copies.Load())
	}
}

// TestMirrorBody: the copy of a request is what an origin would have got, its body too when that is short; nothing that a
// client may not say reaches the shadow.
func TestMirrorBody(t *testing.T) {
	copies := make(chan string, 4)
	shadow := origin(t, func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		copies <- r.Method + " " + r.URL.Path + " " + r.Header.Get("X-Edge") + r.Header.Get("Landfall-Hop") + r.Header.Get("X_Real_IP") + r.Header.Get("X-Hop") + " " + string(b[:min(len(b), 8)])
	})
	own := origin(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	g := newRig(t, one("    routes: [{match: {path: /*}, rewrite: {strip_prefix: /api}, headers: {request: {set: {X-Edge: yes}}}, mirror: {to: shadow, weight: 100%}}]\n", own)+
		"  shadow:\n    hosts: [shadow.test]\n    pools: {any: {origins: ["+shadow+"]}}\n", nil)
	r := g.request("POST", "/api/x", strings.NewReader("the body"), "Landfall-Hop: 1", "X_Real_IP: 1.2.3.4", "Connection: X-Hop", "X-Hop: 1")
	if resp, _ := read(t, g.send(r)); resp.StatusCode != 200 {
		t.Fatal(resp.StatusCode)
	}
	if got := receive(t, "the copy", copies); got != "POST /x yes the body" {
		t.Errorf("%q", got)
	}
	long := strings.NewReader(strings.Repeat("x", keepBody+1))
	if resp, _ := read(t, g.send(g.request("POST", "/api/x", long))); resp.StatusCode != 200 {
		t.Fatal(resp.StatusCode)
	}
	eventually(t, "the copy of a long body is skipped", func() bool {
		return valueOf(t, g.proxy.o.Metrics.mirrored.WithLabelValues("web", "skipped")) == 1
	})
	if len(copies) > 0 {
		t.Error("a body that was not kept was sent:", <-copies)
	}
}
