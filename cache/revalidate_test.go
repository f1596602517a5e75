package cache

import (
	"errors"
	"net/http"
	"testing"
	"time"
)

// confirming is an origin that answers 304 to the right condition.
func (b *bench) confirming(etag string, lines ...string) {
	b.respond(func(r *http.Request) (*http.Response, error) {
		if r.Header.Get("If-None-Match") == etag {
			return b.response(304, "", append(lines, "Etag: "+etag)...), nil
		}
		return b.response(200, "body of "+etag, append(lines, "Etag: "+etag)...), nil
	})
}

// RFC 9111 sections 3.2 and 4.3.4.
func TestRevalidation(t *testing.T) {
	b := newBench(t)
	b.confirming(`"v1"`, "Cache-Control: max-age=60", "X-Count: 1")
	b.get("http://a.test/")
	b.clock.add(61 * time.Second)
	b.confirming(`"v1"`, "Cache-Control: max-age=90", "X-Count: 2", "Content-Type: x/y", "Content-Length: 7", "Set-Cookie: s=1")
	got := b.get("http://a.test/")
	if got.status != "landfall; fwd=stale; fwd-status=304" || got.Result != Revalidated || got.Forward != "stale" {
		t.Errorf("revalidated: %q %s %s", got.status, got.Result, got.Forward)
	}
	for name, value := range map[string]string{
		"X-Count": "2", "Content-Type": "", "Content-Length": "12", "Set-Cookie": "", "Age": "0", "Cache-Control": "max-age=90",
	} {
		if got.Header.Get(name) != value {
			t.Errorf("%s is %q, want %q", name, got.Header.Get(name), value)
		}
	}
	if got := b.get("http://a.test/"); got.status != "landfall; hit; ttl=90" || got.body != `body of "v1"` || got.Header.Get("X-Count") != "2" {
		t.Errorf("freshened: %q %q", got.status, got.body)
	}
	if s := b.cache.Stats(); s.Objects != 1 || s.Revalidated != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestRevalidationOutcomes(t *testing.T) {
	for _, c := range []struct {
		name   string
		second *http.Response // nil: a failure
		lines  []string       // added to the first answer
		status string
		result string
		body   string
		third  string // Cache-Status of the next request, against an origin that answers 200 max-age=60
	}{
		{name: "changed", second: reply200("Cache-Control: max-age=60"), status: "landfall; fwd=stale; stored", result: Miss, body: "new", third: "landfall; hit; ttl=60"},
		{name: "now private", second: reply200("Cache-Control: private"), status: "landfall; fwd=stale", result: Miss, body: "new", third: "landfall; fwd=uri-miss; stored"},
		{name: "304 that forbids storing", second: replyWith(304, "Cache-Control: no-store", `Etag: "v1"`), status: "landfall; fwd=stale; fwd-status=304", result: Revalidated, body: "old", third: "landfall; fwd=uri-miss; stored"},
		{name: "error", second: replyWith(503), status: "landfall; fwd=stale", result: Miss, body: "new", third: "landfall; fwd=stale; stored"},
		{name: "failure", result: Failed, third: "landfall; fwd=stale; stored"},
		{name: "error, stale-if-error", lines: []string{"Cache-Control: stale-if-error=30"}, second: replyWith(503), status: "landfall; fwd=stale; fwd-status=503", result: Stale, body: "old", third: "landfall; hit; ttl=-10"},
		{name: "failure, stale-if-error", lines: []string{"Cache-Control: stale-if-error=30"}, status: "landfall; fwd=stale", result: Stale, body: "old", third: "landfall; hit; ttl=-10"},
		{name: "404, stale-if-error", lines: []string{"Cache-Control: stale-if-error=30"}, second: replyWith(404), status: "landfall; fwd=stale", result: Miss, body: "new", third: "landfall; fwd=uri-miss; stored"},
		{name: "failure, past stale-if-error", lines: []string{"Cache-Control: stale-if-error=5"}, result: Failed, third: "landfall; fwd=stale; stored"},
		{name: "failure, must-revalidate", lines: []string{"Cache-Control: stale-if-error=30, must-revalidate"}, result: Failed, third: "landfall; fwd=stale; stored"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.answers(200, "old", append(c.lines, "Cache-Control: max-age=60", `Etag: "v1"`)...)
			b.get("http://a.test/")
			b.clock.add(70 * time.Second)
			b.respond(func(r *http.Request) (*http.Response, error) {
				if r.Header.Get("If-None-Match") != `"v1"` {
					t.Errorf("not conditional: %v", r.Header)
				}
				if c.second == nil {
					return nil, errors.New("no origin")
				}
				body := "new"
				if c.second.StatusCode == 304 {
					body = ""
				}
				res := b.response(c.second.StatusCode, body)
				for name, values := range c.second.Header {
					res.Header[name] = values
				}
				return res, nil
			})
			got := b.get("http://a.test/")
			if got.status != c.status || got.Result != c.result || got.body != c.body {
				t.Errorf("got %q %s %q", got.status, got.Result, got.body)
			}
			if (got.Err != nil) != (c.result == Failed) {
				t.Errorf("error: %v", got.Err)
			}
			b.answers(200, "new", "Cache-Control: max-age=60")
			if got := b.get("http://a.test/"); got.status != c.third {
				t.Errorf("then got %q, want %q", got.status, c.third)
			}
		})
	}
}

func reply200(lines ...string) *http.Response { return replyWith(200, lines...) }

func replyWith(status int, lines ...string) *http.Response {
	return &http.Response{StatusCode: status, Header: header(lines...)}
}

// A 304 about something else than what is stored can't freshen it (section 4.3.4): the origin is asked again.
func TestForeignConfirmation(t *testing.T) {
	b := newBench(t)
	b.confirming(`"v1"`, "Cache-Control: max-age=60")
	b.get("http://a.test/")
	b.clock.add(61 * time.Second)
	b.respond(func(r *http.Request) (*http.Response, error) {
		if r.Header.Get("If-None-Match") != "" {
			return b.response(304, "", `Etag: "v2"`), nil
		}
		return b.response(200, "second", `Etag: "v2"`, "Cache-Control: max-age=60"), nil
	})
	if got := b.get("http://a.test/"); got.body != "second" || !got.Stored {
		t.Errorf("got %q %+v", got.body, got.Outcome)
	}
}

// RFC 9110 section 13.2.2: conditions are answered from the store, and don't get into a fetch that is stored.
func TestClientConditions(t *testing.T) {
	b := newBench(t)
	b.answers(200, "body", "Cache-Control: max-age=60", `Etag: "v1"`, lm, "Content-Type: text/plain", "X-A: 1")
	for _, c := range []struct {
		line   string
		status int
	}{
		{`If-None-Match: "v1"`, 304}, {`If-None-Match: W/"v1"`, 304}, {`If-None-Match: "v0", "v1"`, 304}, {"If-None-Match: *", 304},
		{`If-None-Match: "v2"`, 200}, {`If-None-Match: v1`, 200}, {"If-Modified-Since: Sun, 01 Feb 2026 00:00:00 GMT", 304},
		{"If-Modified-Since: Sat, 31 Jan 2026 00:00:00 GMT", 200}, {"If-Modified-Since: junk", 200}, {`If-Match: "v9"`, 200},
	} {
		b.cache.Purge(Purge{Service: "shop", Host: "a.test", Path: "/"})
		for _, want := range []string{Miss, Hit} {
			got := b.get("http://a.test/", c.line)
			if got.StatusCode != c.status || got.Result != want {
				t.Errorf("%s: %s %d", c.line, got.Result, got.StatusCode)
			}
			if got.StatusCode == 304 && (got.body != "" || got.Header.Get("Content-Type") != "" || got.Header.Get("X-A") != "1") {
				t.Errorf("%s: 304 with %q and %v", c.line, got.body, got.Header)
			}
			b.settled()
		}
		for name := range b.last().Header {
			if len(name) > 3 && name[:3] == "If-" {
				t.Errorf("%s reached the origin", name)
			}
		}
	}
	if got := b.get("http://a.test/", `If-None-Match: "v2"`, "If-Modified-Since: Sun, 01 Feb 2026 00:00:00 GMT"); got.StatusCode != 200 {
		t.Error("If-Modified-Since counts only without If-None-Match")
	}
}

// One refresh at a time, and none right after one that failed.
func TestBackgroundRefresh(t *testing.T) {
	b := newBench(t)
	b.confirming(`"v1"`, "Cache-Control: max-age=60, stale-while-revalidate=600")
	b.get("http://a.test/")
	b.clock.add(61 * time.Second)
	let := make(chan struct{})
	b.respond(func(r *http.Request) (*http.Response, error) { <-let; return nil, errors.New("down") })
	for range 5 {
		if got := b.get("http://a.test/"); got.status != "landfall; hit; ttl=-1" || got.Result != Stale {
			t.Fatalf("got %q", got.status)
		}
	}
	close(let)
	b.settled()
	b.get("http://a.test/")
	if b.fetches() != 2 {
		t.Errorf("%d fetches", b.fetches())
	}
	b.clock.add(2 * time.Second)
	b.confirming(`"v1"`, "Cache-Control: max-age=60, stale-while-revalidate=600")
	b.get("http://a.test/")
	b.settled()
	if got := b.get("http://a.test/"); got.status != "landfall; hit; ttl=60" || b.fetches() != 3 {
		t.Errorf("after the refresh: %q, %d fetches", got.status, b.fetches())
	}
}

// HEAD and Range revalidate what is stored instead of passing it by.
func TestPartialRevalidation(t *testing.T) {
	b := newBench(t)
	b.confirming(`"v1"`, "Cache-Control: max-age=60")
	b.get("http://a.test/")
	b.clock.add(61 * time.Second)
	if got := b.get("http://a.test/", "Range: bytes=0-3"); got.StatusCode != 206 || got.body != "body" || got.Result != Revalidated {
		t.Errorf("range: %d %q %s", got.StatusCode, got.body, got.Result)
	}
	b.clock.add(61 * time.Second)
	if got := b.do("HEAD", "http://a.test/", ""); got.Result != Revalidated || got.Header.Get("Content-Length") != "12" {
		t.Errorf("HEAD: %s %v", got.Result, got.Header)
	}
	if b.last().Method != "GET" {
		t.Error("a revalidation is a GET")
	}
}
