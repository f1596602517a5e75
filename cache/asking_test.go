package cache

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A surrogate key that holds what separates keys stays one key when its object is renewed, and when a peer tells it.
func TestKeysStayWhole(t *testing.T) {
	b := newBench(t)
	b.answers(200, "x", "Cache-Control: max-age=10", "Etag: \"1\"", "Surrogate-Key: a,b c")
	b.get("http://a.test/")
	b.clock.add(11 * time.Second)
	b.answers(304, "", "Cache-Control: max-age=10", "Etag: \"1\"")
	if got := b.get("http://a.test/"); got.Result != Revalidated {
		t.Fatal(got.Outcome)
	}
	if n, _ := b.cache.Purge(Purge{Service: "shop", Key: "a"}); n != 0 {
		t.Error("a,b became two keys")
	}
	if n, _ := b.cache.Purge(Purge{Service: "shop", Key: "a,b"}); n != 1 {
		t.Error("a,b is lost")
	}
	b.answers(200, "x", "Cache-Control: max-age=10", "Landfall-Key: a, b", "Landfall-Key: c d")
	if got := b.get("http://a.test/"); got.Header["Landfall-Key"] != nil {
		t.Errorf("a client sees %v", got.Header)
	}
	for key, want := range map[string]int{"a": 0, "d": 0, "a, b": 1} {
		if n, _ := b.cache.Purge(Purge{Service: "shop", Key: key}); n != want {
			t.Errorf("%q took %d", key, n)
		}
	}
	// New keys take the place of the old.
	b.answers(200, "x", "Cache-Control: max-age=10", "Etag: \"1\"", "Surrogate-Key: old")
	b.get("http://a.test/r")
	b.clock.add(11 * time.Second)
	b.answers(304, "", "Cache-Control: max-age=10", "Etag: \"1\"", "Surrogate-Key: new")
	b.get("http://a.test/r")
	for key, want := range map[string]int{"old": 0, "new": 1} {
		if n, _ := b.cache.Purge(Purge{Service: "shop", Key: key}); n != want {
			t.Errorf("%q took %d after the renewal", key, n)
		}
	}
}

// TestAsking: what another node's cache said of its answer decides whether it is stored here.
func TestAsking(t *testing.T) {
	b := newBench(t)
	b.policy.StaleIfError = ptr(time.Hour)
	var say func(*Asking)
	fetch := func(ctx context.Context, r *http.Request) (*http.Response, error) {
		a := AskingOf(ctx)
		if a == nil {
			t.Fatal("a fetch without an Asking")
		}
		say(a)
		return b.fetch(ctx, r)
	}
	get := func(path string, lines ...string) reply {
		r, _ := http.NewRequest("GET", "http://a.test"+path, nil)
		r.Header = header(lines...)
		return b.serve(r, fetch)
	}
	b.answers(200, "x", "Cache-Control: max-age=10", "Etag: \"1\"")
	say = func(a *Asking) { a.Detail, a.Elsewhere = "peer:n2", true }
	for range 2 {
		if got := get("/"); got.Stored || !strings.Contains(got.status, "fwd=uri-miss; detail=peer:n2") {
			t.Errorf("%q %+v", got.status, got.Outcome)
		}
	}
	say = func(a *Asking) {
		a.Elsewhere, a.Detail = false, "peer:n2"
		if !a.Shareable || a.Holds {
			t.Errorf("%+v of what is kept elsewhere", a)
		}
	}
	if got := get("/"); !got.Stored {
		t.Errorf("%q: not copied", got.status)
	}
	b.clock.add(20 * time.Second)
	say = func(a *Asking) { a.Unsure = true }
	b.answers(304, "", "Etag: \"1\"", "Age: 20", "Cache-Control: max-age=10")
	if got := get("/"); got.Result != Stale {
		t.Errorf("an unsure 304 confirmed: %q", got.status)
	}
	b.clock.add(20 * time.Second)
	b.answers(200, "y", "Cache-Control: max-age=10")
	if got := get("/other"); got.Stored || got.body != "y" {
		t.Errorf("an unsure answer was stored: %q", got.status)
	}
	b.clock.add(2 * time.Second) // an unsure answer is no lasting mark
	say = func(a *Asking) {
		if !a.Shareable {
			t.Error("marked after an unsure answer")
		}
	}
	get("/other")
	say = func(a *Asking) {
		if a.Shareable {
			t.Error("credentials are shared")
		}
	}
	get("/secret", "Authorization: x")
	b.answers(200, "mine", "Cache-Control: private")
	say = func(*Asking) {}
	get("/mine")
	say = func(a *Asking) {
		if a.Shareable {
			t.Error("a personal answer's URL is shared again")
		}
	}
	get("/mine")
}

// TestPeerIsServed: another cache gets what it needs to store a response, counted apart, and nothing stale unless it is
// said so.
func TestPeerIsServed(t *testing.T) {
	b := newBench(t)
	b.policy = Policy{Peer: true, StaleIfError: ptr(time.Hour), StaleWhileRevalidate: ptr(time.Hour)}
	b.answers(200, "x", "Cache-Control: max-age=10", "Landfall-Cache-Control: max-age=20", "Surrogate-Key: k l", "Etag: \"1\"")
	b.get("http://a.test/")
	b.clock.add(15 * time.Second)
	got := b.get("http://a.test/")
	if got.Result != Hit || got.Header.Get("Landfall-Cache-Control") != "max-age=20" || strings.Join(got.Header[HeaderKey], "|") != "k|l" || got.Header.Get("Age") != "15" {
		t.Errorf("%+v %v", got.Outcome, got.Header)
	}
	b.clock.add(15 * time.Second)
	b.answers(200, "y", "Cache-Control: max-age=10", "Surrogate-Key: m")
	if got := b.get("http://a.test/"); got.body != "y" || got.Header.Get(HeaderStale) != "" {
		t.Errorf("%q %v: stale while it revalidates", got.body, got.Header)
	}
	b.clock.add(15 * time.Second)
	b.answers(503, "")
	if got := b.get("http://a.test/"); got.body != "y" || got.Header.Get(HeaderStale) != "1" {
		t.Errorf("%q %v: not marked as stale", got.body, got.Header)
	}
	if s := b.cache.Stats(); s.Hits+s.Misses+s.Stale != 0 {
		t.Errorf("%+v: peers count as clients", s)
	}
}

// What another node's cache said of an answer that was no confirmation isn't said of the one that is asked for instead.
func TestAskingAgain(t *testing.T) {
	b := newBench(t)
	b.answers(200, "x", "Cache-Control: max-age=10", "Etag: \"1\"")
	b.get("http://a.test/")
	b.clock.add(11 * time.Second)
	r, _ := http.NewRequest("GET", "http://a.test/", nil)
	got := b.serve(r, func(ctx context.Context, r *http.Request) (*http.Response, error) {
		if r.Header.Get("If-None-Match") != "" {
			a := AskingOf(ctx)
			a.Detail, a.Unsure = "peer:n2", true
			return b.response(304, "", "Etag: \"other\""), nil
		}
		return b.response(200, "y", "Cache-Control: max-age=10"), nil
	})
	if got.body != "y" || !got.Stored || strings.Contains(got.status, "peer") {
		t.Errorf("%q %q %+v", got.body, got.status, got.Outcome)
	}
}
