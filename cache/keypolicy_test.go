package cache

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestKeyPolicyQuery(t *testing.T) {
	for _, c := range []struct {
		policy      KeyPolicy
		query, want string
	}{
		{KeyPolicy{}, "b=2&a=1&&utm_x", "b=2&a=1&&utm_x"},
		{KeyPolicy{Ignore: []string{"utm_*", "gclid"}}, "b=2&utm_source=x&gclid=1&gclid2=3&a=1&utm=4", "b=2&gclid2=3&a=1&utm=4"},
		{KeyPolicy{Ignore: []string{"utm_*"}}, "utm_a=1", ""},
		{KeyPolicy{Ignore: []string{"*"}}, "a=1&b&=", ""},
		{KeyPolicy{Keep: []string{"id"}}, "id=1&x=2&ID=3&id=4", "id=1&id=4"},
		{KeyPolicy{Keep: []string{"p*"}, Ignore: []string{"pq"}}, "p1=1&pq=2&q=3", "p1=1"},
		{KeyPolicy{Sort: true}, "b=2&a=9&a=1&B=0", "B=0&a=9&a=1&b=2"},
		// Parameter cloaking: neither a semicolon nor an escape hides a parameter from the filter or makes one count for another.
		{KeyPolicy{Ignore: []string{"utm_*"}}, "a=1;utm_x=2", "a=1;utm_x=2"},
		{KeyPolicy{Ignore: []string{"utm_*"}}, "utm_x=2;a=evil", ""},
		{KeyPolicy{Ignore: []string{"utm_x"}}, "%75tm_x=2", "%75tm_x=2"},
	} {
		if got := c.policy.Query(c.query); got != c.want {
			t.Errorf("%+v of %q: %q, want %q", c.policy, c.query, got, c.want)
		}
	}
}

// FuzzKeyPolicy: the normal form is its own; without a policy nothing changes; and two requests have equal keys only if
// what counts of them is equal.
func FuzzKeyPolicy(f *testing.F) {
	f.Add("a=1&b=2", "b=2&a=1", "x", "y")
	f.Add("utm_a&b", "b", "", "1:x")
	f.Fuzz(func(t *testing.T, q1, q2, h1, h2 string) {
		p := &KeyPolicy{Ignore: []string{"utm_*"}, Sort: true, Headers: []string{"X-A", "X-B"}, Cookies: []string{"c"}}
		n := p.Query(q1)
		if p.Query(n) != n || strings.Contains("&"+n, "&utm_") {
			t.Errorf("%q becomes %q", q1, n)
		}
		if (*KeyPolicy)(nil).Query(q1) != q1 {
			t.Error("changed without a policy")
		}
		if strings.ContainsAny(h1+h2, "\r\n\x00") {
			return
		}
		of := func(a, b, query string) Key {
			return KeyOf(Request{Path: "/", RawQuery: query, Header: http.Header{"X-A": {a}, "X-B": {b}}, Policy: p})
		}
		same := strings.Trim(h1, " \t") == strings.Trim(h2, " \t")
		if (of(h1, h2, "") == of(h2, h1, "")) != same {
			t.Errorf("%q and %q: headers mixed up", h1, h2)
		}
		if (of(h1, "", q1) == of(h1, "", q2)) != (p.Query(q1) == p.Query(q2)) {
			t.Errorf("%q and %q", q1, q2)
		}
	})
}

func (b *bench) with(p *KeyPolicy, target string, lines ...string) reply {
	r := httptest.NewRequest("GET", target, nil)
	for name, values := range header(lines...) {
		r.Header[name] = values
	}
	v := view(r)
	v.Policy = p
	w := httptest.NewRecorder()
	out := b.cache.Serve(w, r, v, b.policy, b.fetch)
	return reply{Outcome: out, body: w.Body.String(), status: w.Header().Get("Cache-Status")}
}

// TestPoisoning: what is not in the key doesn't reach the origin that a stored answer comes from. Each client tries to
// have its own word stored for all.
func TestPoisoning(t *testing.T) {
	echo := func(r *http.Request) string {
		return fmt.Sprint(r.Method, r.URL.RawQuery, r.Header["X-Original-Url"], r.Header["X-Rewrite-Url"], r.Header["X-Http-Method-Override"],
			r.Header["X-Forwarded-Port"], r.Header["X-Host"], r.Header["Range"], r.Header["Cache-Control"], r.Header["If-None-Match"], r.ContentLength, r.Host)
	}
	p := &KeyPolicy{Ignore: []string{"utm_*"}, Headers: []string{"X-Host"}}
	for _, c := range []struct {
		name, target string
		lines        []string
	}{
		{"ignored parameter", "http://a.test/x?utm_x=<script>", nil},
		{"cloaked parameter", "http://a.test/x?utm_x=1;q=evil", nil},
		{"URL override", "http://a.test/x", []string{"X-Original-Url: /evil", "X-Rewrite-Url: /evil"}},
		{"method override", "http://a.test/x", []string{"X-Http-Method-Override: POST"}},
		{"port", "http://a.test/x", []string{"X-Forwarded-Port: 666"}},
		{"conditions", "http://a.test/x", []string{`If-None-Match: "evil"`}},
		{"cache directives", "http://a.test/x", []string{"Cache-Control: max-age=0"}},
		{"Host in another case and with its port", "http://A.TEST:80/x", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.respond(func(r *http.Request) (*http.Response, error) { return b.response(200, echo(r), cacheable), nil })
			want := echo(httptest.NewRequest("GET", "http://a.test/x", nil))
			if got := b.with(p, c.target, c.lines...); !got.Stored {
				t.Fatalf("not stored, so it shows nothing: %+v", got.Outcome)
			}
			if got := b.with(p, "http://a.test/x"); got.body != want || got.Result != Hit {
				t.Errorf("others get %s %q, want %q", got.Result, got.body, want)
			}
		})
	}
	// What is in the key is told apart, and reaches the origin.
	b := newBench(t)
	b.respond(func(r *http.Request) (*http.Response, error) { return b.response(200, echo(r), cacheable), nil })
	b.with(p, "http://a.test/x", "X-Host: evil")
	if got := b.with(p, "http://a.test/x"); got.Result != Miss || strings.Contains(got.body, "evil") {
		t.Errorf("%s %q", got.Result, got.body)
	}
	// A GET with a body passes, and neither finds nor stores.
	if got := b.do("GET", "http://a.test/fat", "body"); got.Stored || got.Result != Pass {
		t.Errorf("fat GET: %+v", got.Outcome)
	}
	// A URL's purge takes all that its key was told apart by.
	b.with(p, "http://a.test/x", "X-Host: a")
	if n := b.purge("/x", false); n != 3 {
		t.Errorf("%d taken", n)
	}
}

// Negative caching, jitter and refreshing ahead.
func TestPolicyExtras(t *testing.T) {
	b := newBench(t)
	b.policy = Policy{Negative: map[int]time.Duration{404: 10 * time.Second}, TTL: ptr(time.Hour)}
	b.answers(404, "none")
	b.get("http://a.test/none")
	if got := b.get("http://a.test/none"); got.status != "landfall; hit; ttl=10" {
		t.Errorf("404: %q", got.status)
	}
	b.answers(410, "gone")
	b.get("http://a.test/gone")
	if got := b.get("http://a.test/gone"); got.Result == Hit {
		t.Error("410 has no TTL, and is stored")
	}
	b.policy = Policy{Jitter: 0.5}
	b.answers(200, "body", "Cache-Control: max-age=1000")
	seen := map[string]bool{}
	for i := range 50 {
		b.clock.add(time.Millisecond)
		url := fmt.Sprintf("http://a.test/%d", i)
		b.get(url)
		got := b.get(url)
		var ttl int
		if n, _ := fmt.Sscanf(got.status, "landfall; hit; ttl=%d", &ttl); n != 1 || ttl < 499 || ttl > 1000 {
			t.Errorf("jitter: %q", got.status)
		}
		seen[got.status] = true
	}
	if len(seen) < 20 {
		t.Errorf("50 lifetimes, %d different", len(seen))
	}
	b.policy = Policy{RefreshAhead: 0.1}
	b.answers(200, "old", "Cache-Control: max-age=100")
	b.get("http://a.test/hot")
	b.answers(200, "new", "Cache-Control: max-age=100")
	b.clock.add(89 * time.Second)
	before := b.fetches()
	if got := b.get("http://a.test/hot"); got.body != "old" || b.fetches() != before {
		t.Errorf("not yet: %q", got.body)
	}
	b.clock.add(2 * time.Second)
	if got := b.get("http://a.test/hot"); got.body != "old" || got.Result != Hit {
		t.Errorf("in the last tenth: %q %s", got.body, got.Result)
	}
	b.settled()
	if got := b.get("http://a.test/hot"); got.body != "new" || got.status != "landfall; hit; ttl=99" {
		t.Errorf("after: %q %q", got.body, got.status)
	}
}
