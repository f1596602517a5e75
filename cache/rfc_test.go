package cache

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

const lm = "Last-Modified: Sun, 01 Feb 2026 00:00:00 GMT"

// TestRules goes through RFC 9111 by section. Each case sends one request, moves the clock and sends a second; want is
// Cache-Status of the second, and the number of fetches of both.
func TestRules(t *testing.T) {
	day := func(d int) string { return time.Date(2026, 3, d, 12, 0, 0, 0, time.UTC).Format(http.TimeFormat) }
	hit := func(ttl int) string { return fmt.Sprintf("landfall; hit; ttl=%d", ttl) }
	const miss, missStored = "landfall; fwd=uri-miss", "landfall; fwd=uri-miss; stored"
	for _, c := range []struct {
		name     string
		response []string
		status   int
		first    []string // header of the first request
		second   []string
		wait     time.Duration
		policy   Policy
		want     string
		fetches  int
	}{
		{name: "3: max-age is stored", response: []string{"Cache-Control: max-age=60"}, wait: 10 * time.Second, want: hit(50), fetches: 1},
		{name: "3: Expires is stored", response: []string{"Expires: " + day(2)}, want: hit(86400), fetches: 1},
		{name: "3: nothing said is not stored", want: miss, fetches: 2},
		{name: "3: public alone gives no freshness", response: []string{"Cache-Control: public"}, want: miss, fetches: 2},
		{name: "3: an error with freshness is stored", status: 503, response: []string{"Cache-Control: max-age=5"}, want: hit(5), fetches: 1},
		{name: "3: an error without is not", status: 503, policy: Policy{TTL: ptr(time.Hour)}, want: miss, fetches: 2},
		{name: "3: 404 with freshness is stored", status: 404, response: []string{"Cache-Control: max-age=5"}, want: hit(5), fetches: 1},
		{name: "3: 404 takes no policy TTL", status: 404, policy: Policy{TTL: ptr(time.Hour)}, want: miss, fetches: 2},
		{name: "3: 206 unasked for is not stored", status: 206, response: []string{"Cache-Control: max-age=60"}, want: miss, fetches: 2},
		{name: "3: policy TTL", policy: Policy{TTL: ptr(30 * time.Second)}, want: hit(30), fetches: 1},
		{name: "3: policy TTL yields to max-age", response: []string{"Cache-Control: max-age=7"}, policy: Policy{TTL: ptr(time.Hour)}, want: hit(7), fetches: 1},
		{name: "3: policy TTL does not override no-store", response: []string{"Cache-Control: no-store"}, policy: Policy{TTL: ptr(time.Hour)}, want: miss, fetches: 2},
		{name: "3: policy TTL does not override private", response: []string{"Cache-Control: private"}, policy: Policy{TTL: ptr(time.Hour)}, want: miss, fetches: 2},
		{name: "3: policy off", response: []string{"Cache-Control: max-age=60"}, policy: Policy{Off: true}, want: "landfall; fwd=bypass", fetches: 2},
		{name: "3: Set-Cookie is not stored", response: []string{"Cache-Control: public, max-age=60", "Set-Cookie: a=b"}, want: miss, fetches: 2},
		{name: "3: event streams are not stored", response: []string{"Cache-Control: max-age=60", "Content-Type: text/event-stream; charset=utf-8"}, want: miss, fetches: 2},
		{name: "3.5: Authorization is not stored", response: []string{"Cache-Control: max-age=60"}, first: []string{"Authorization: x"}, want: miss + "; stored", fetches: 2},
		{name: "3.5: unless public", response: []string{"Cache-Control: public, max-age=60"}, first: []string{"Authorization: x"}, want: hit(60), fetches: 1},
		{name: "3.5: or must-revalidate", response: []string{"Cache-Control: must-revalidate, max-age=60"}, first: []string{"Authorization: x"}, want: hit(60), fetches: 1},
		{name: "3.5: or s-maxage", response: []string{"Cache-Control: s-maxage=60"}, first: []string{"Authorization: x"}, want: hit(60), fetches: 1},
		{name: "3.5: nor reused for Authorization without licence", response: []string{"Cache-Control: max-age=60"}, second: []string{"Authorization: x"}, want: "landfall; fwd=request", fetches: 2},
		{name: "3.5: reused with it", response: []string{"Cache-Control: public, max-age=60"}, second: []string{"Authorization: x"}, want: hit(60), fetches: 1},
		{name: "4.1: Vary that matches", response: []string{"Cache-Control: max-age=60", "Vary: X-A"}, first: []string{"X-A: 1"}, second: []string{"X-A:  1"}, want: hit(60), fetches: 1},
		{name: "4.1: Vary that doesn't", response: []string{"Cache-Control: max-age=60", "Vary: x-a"}, first: []string{"X-A: 1"}, second: []string{"X-A: 2"}, want: "landfall; fwd=vary-miss; stored", fetches: 2},
		{name: "4.1: absent is not empty", response: []string{"Cache-Control: max-age=60", "Vary: X-A"}, second: []string{"X-A: "}, want: "landfall; fwd=vary-miss; stored", fetches: 2},
		{name: "4.1: Vary: * never matches", response: []string{"Cache-Control: max-age=60", "Vary: X-A, *"}, want: miss, fetches: 2},
		{name: "4.1: Vary on what the gateway writes", response: []string{"Cache-Control: max-age=60", "Vary: X-Forwarded-For"}, want: miss, fetches: 2},
		{name: "4.2: stale without validator is fetched", response: []string{"Cache-Control: max-age=60"}, wait: time.Minute, want: "landfall; fwd=stale; stored", fetches: 2},
		{name: "4.2.1: s-maxage before max-age before Expires", response: []string{"Cache-Control: max-age=60, s-maxage=9", "Expires: " + day(2)}, want: hit(9), fetches: 1},
		{name: "4.2.1: max-age before Expires", response: []string{"Cache-Control: max-age=60", "Expires: 0"}, want: hit(60), fetches: 1},
		{name: "4.2.1: the least of repeated ones, over lines", response: []string{"Cache-Control: max-age=60", "Cache-Control: max-age=5, max-age=70"}, want: hit(5), fetches: 1},
		{name: "4.2.1: what can't be read is stale", response: []string{"Cache-Control: max-age=6x"}, want: miss, fetches: 2},
		{name: "4.2.1: so is a negative one", response: []string{"Cache-Control: max-age=-1"}, want: miss, fetches: 2},
		{name: "4.2.1: and one with spaces", response: []string{"Cache-Control: max-age = 60"}, want: miss, fetches: 2},
		{name: "4.2.3: Age counts", response: []string{"Cache-Control: max-age=60", "Age: 20"}, want: hit(40), fetches: 1},
		{name: "4.2.3: the first Age counts", response: []string{"Cache-Control: max-age=60", "Age: 20", "Age: 50"}, want: hit(40), fetches: 1},
		{name: "4.2.3: an Age that can't be read doesn't", response: []string{"Cache-Control: max-age=60", "Age: -20"}, want: hit(60), fetches: 1},
		{name: "4.2.3: an old Date counts", response: []string{"Cache-Control: max-age=60", "Date: Sun, 01 Mar 2026 11:59:30 GMT"}, want: hit(30), fetches: 1},
		{name: "4.2.3: older than it may be", response: []string{"Cache-Control: max-age=60", "Age: 60"}, want: miss, fetches: 2},
		{name: "4.2.4: stale is not served unasked", response: []string{"Cache-Control: max-age=60"}, wait: 2 * time.Minute, want: "landfall; fwd=stale; stored", fetches: 2},
		{name: "5.2.1: a client's no-cache changes nothing", response: []string{"Cache-Control: max-age=60"}, second: []string{"Cache-Control: no-cache", "Pragma: no-cache"}, want: hit(60), fetches: 1},
		{name: "5.2.1: nor its max-age", response: []string{"Cache-Control: max-age=60"}, wait: time.Second, second: []string{"Cache-Control: max-age=0"}, want: hit(59), fetches: 1},
		{name: "5.2.1.5: a client's no-store is not stored", response: []string{"Cache-Control: max-age=60"}, first: []string{"Cache-Control: no-store"}, want: missStored, fetches: 2},
		{name: "5.2.1.7: only-if-cached", response: []string{"Cache-Control: no-store"}, second: []string{"Cache-Control: only-if-cached"}, want: "landfall; detail=only-if-cached", fetches: 1},
		{name: "5.2.1.7: only-if-cached that is", response: []string{"Cache-Control: max-age=60"}, second: []string{"Cache-Control: only-if-cached"}, want: hit(60), fetches: 1},
		{name: "5.2.2.4: no-cache is stored and revalidated", response: []string{"Cache-Control: no-cache, max-age=60", lm}, want: "landfall; fwd=stale; stored", fetches: 2},
		{name: "5.2.2.4: no-cache with fields too", response: []string{`Cache-Control: no-cache="X", max-age=60`, lm}, want: "landfall; fwd=stale; stored", fetches: 2},
		{name: "5.2.2.5: no-store", response: []string{"Cache-Control: no-store, max-age=60"}, want: miss, fetches: 2},
		{name: "5.2.2.3: must-understand lifts it for a known status", response: []string{"Cache-Control: must-understand, no-store, max-age=60"}, want: hit(60), fetches: 1},
		{name: "5.2.2.3: and for no other", status: 299, response: []string{"Cache-Control: must-understand, no-store, max-age=60"}, want: miss, fetches: 2},
		{name: "5.2.2.3: which private still forbids", response: []string{"Cache-Control: must-understand, no-store, private, max-age=60"}, want: miss, fetches: 2},
		{name: "6585: 429 is not stored", status: 429, response: []string{"Cache-Control: max-age=60"}, want: miss, fetches: 2},
		{name: "6585: nor 428", status: 428, response: []string{"Cache-Control: max-age=60"}, want: miss, fetches: 2},
		{name: "5.2.2.7: private", response: []string{"Cache-Control: private, max-age=60"}, want: miss, fetches: 2},
		{name: "5.2.2.7: private in another case and line", response: []string{"Cache-Control: public, max-age=60", "Cache-Control: PRIVATE"}, want: miss, fetches: 2},
		{name: "5.2.2.7: private with fields", response: []string{`Cache-Control: max-age=60, private="X, Y"`}, want: miss, fetches: 2},
		{name: "5.2.2.7: private in a quoted string is none", response: []string{`Cache-Control: ext="a, private", max-age=60`}, want: hit(60), fetches: 1},
		{name: "5.3: Expires 0", response: []string{"Expires: 0"}, want: miss, fetches: 2},
		{name: "5861: stale-while-revalidate", response: []string{"Cache-Control: max-age=60, stale-while-revalidate=30"}, wait: 70 * time.Second, want: hit(-10), fetches: 2},
		{name: "5861: and no longer", response: []string{"Cache-Control: max-age=60, stale-while-revalidate=30"}, wait: 91 * time.Second, want: "landfall; fwd=stale; stored", fetches: 2},
		{name: "5861: from the policy", response: []string{"Cache-Control: max-age=60"}, policy: Policy{StaleWhileRevalidate: ptr(time.Minute)}, wait: 70 * time.Second, want: hit(-10), fetches: 2},
		{name: "5861: must-revalidate forbids it", response: []string{"Cache-Control: max-age=60, must-revalidate, stale-while-revalidate=30"}, wait: 70 * time.Second, want: "landfall; fwd=stale; stored", fetches: 2},
		{name: "5861: proxy-revalidate forbids it", response: []string{"Cache-Control: max-age=60, proxy-revalidate"}, policy: Policy{StaleWhileRevalidate: ptr(time.Minute)}, wait: 70 * time.Second, want: "landfall; fwd=stale; stored", fetches: 2},
		{name: "5861: s-maxage forbids it (5.2.2.10)", response: []string{"Cache-Control: s-maxage=60, stale-while-revalidate=30"}, wait: 70 * time.Second, want: "landfall; fwd=stale; stored", fetches: 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.policy = c.policy
			if c.status == 0 {
				c.status = 200
			}
			b.answers(c.status, "body", c.response...)
			if got := b.get("http://a.test/x?q=1", c.first...); got.body != "body" || got.StatusCode != c.status {
				t.Fatalf("first answer: %d %q", got.StatusCode, got.body)
			}
			b.clock.add(c.wait)
			got := b.get("http://a.test/x?q=1", c.second...)
			b.settled()
			if got.status != c.want || b.fetches() != c.fetches {
				t.Errorf("got %q with %d fetches, want %q with %d", got.status, b.fetches(), c.want, c.fetches)
			}
		})
	}
}

// TestStoredHeader: a stored answer carries Age (section 4), Content-Length and a Date, but no hop-by-hop field (3.1).
func TestStoredHeader(t *testing.T) {
	b := newBench(t)
	b.respond(func(*http.Request) (*http.Response, error) {
		r := b.response(200, "body", "Cache-Control: max-age=60", "Age: 5", "Connection: X-Hop", "X-Hop: 1", "Keep-Alive: 3",
			"X-Two: a", "X-Two: b", "Cache-Status: origin; fwd=uri-miss; stored")
		r.Header.Del("Date")
		r.Header.Del("Content-Length")
		r.ContentLength = -1
		return r, nil
	})
	first := b.get("http://a.test/")
	if first.Header.Get("Age") != "5" || first.status != "origin; fwd=uri-miss; stored, landfall; fwd=uri-miss; stored" {
		t.Errorf("first: Age %q, Cache-Status %q", first.Header.Get("Age"), first.status)
	}
	b.clock.add(10 * time.Second)
	got := b.get("http://a.test/")
	want := map[string]string{
		"Age": "15", "Content-Length": "4", "Date": "Sun, 01 Mar 2026 12:00:00 GMT", "X-Hop": "", "Connection": "", "Keep-Alive": "",
	}
	for name, value := range want {
		if got.Header.Get(name) != value {
			t.Errorf("%s is %q, want %q", name, got.Header.Get(name), value)
		}
	}
	if got.status != "origin; fwd=uri-miss; stored, landfall; hit; ttl=45" || len(got.Header["X-Two"]) != 2 {
		t.Errorf("Cache-Status %q, X-Two %q", got.status, got.Header["X-Two"])
	}
	if head := b.do("HEAD", "http://a.test/", ""); head.body != "" || head.Header.Get("Content-Length") != "4" || head.Result != Hit {
		t.Errorf("HEAD: %q, %v, %s", head.body, head.Header, head.Result)
	}
}
