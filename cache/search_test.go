package cache

import (
	"net/http"
	"strings"
	"testing"
)

func TestSearchRules(t *testing.T) {
	for _, c := range []struct{ rule, query, want string }{
		{`params=("utm" "fbclid")`, "a=1&utm=2&fbclid&b=3", "a=1&b=3"},
		{`params=("utm")`, "%75tm=2&a=%31", "a=%31"},
		{`params=("a%20b")`, "a+b=1&c=2", "c=2"},
		{`params`, "a=1&b=2", ""},
		{`params, except=("q")`, "a=1&q=x&b=2&q=y", "q=x&q=y"},
		{`key-order`, "b=1&a=2&b=0&&a=1", "a=2&a=1&b=1&b=0"},
		{`key-order, params=("a")`, "c=1&b=1&a=1", "b=1&c=1"},
	} {
		r := parseSearch([]string{c.rule})
		if r == nil {
			t.Errorf("%s is not understood", c.rule)
			continue
		}
		if got := r.query(c.query); got != c.want {
			t.Errorf("%s: %q became %q, not %q", c.rule, c.query, got, c.want)
		}
	}
	for _, rule := range []string{"", "key-order=?0", "params=?0", "params=()", `params="a"`, `params=(a)`, `except=("a")`, `params=("a"), except=("b")`,
		`params, except`, "key-order=1", "params, except=(1)", "&", `params=("` + strings.Repeat("a", 600) + `")`} {
		if r := parseSearch([]string{rule}); r != nil {
			t.Errorf("%s is %+v", rule, r)
		}
	}
}

// What the origin says doesn't count doesn't: after it has said so, one answer serves all, and the origin isn't told of it.
func TestNoVarySearch(t *testing.T) {
	b := newBench(t)
	rule := `params=("utm")`
	b.respond(func(r *http.Request) (*http.Response, error) {
		lines := []string{cacheable}
		if rule != "" {
			lines = append(lines, "No-Vary-Search: "+rule)
		}
		return b.response(200, "for "+r.URL.RawQuery, lines...), nil
	})
	for _, c := range []struct{ url, body, result string }{
		{"/?a=1&utm=1", "for a=1&utm=1", Miss},
		{"/?a=1&utm=evil", "for a=1", Miss},
		{"/?utm=3&a=1", "for a=1", Hit},
		{"/?a=2&utm=3", "for a=2", Miss},
		{"/other?a=1&utm=3", "for a=1&utm=3", Miss},
	} {
		if got := b.get("http://a.test" + c.url); got.body != c.body || got.Result != c.result {
			t.Errorf("%s: %q %s, want %q %s", c.url, got.body, got.Result, c.body, c.result)
		}
	}
	b.settled()
	if n, _ := b.cache.Purge(Purge{Service: "shop", Host: "a.test", Path: "/", RawQuery: "a=1&utm=new"}); n != 2 {
		t.Errorf("a purge of one URL of the path took %d objects", n)
	}
	if got := b.get("http://a.test/?a=1&utm=4"); got.Result != Miss {
		t.Errorf("purged, but %s", got.status)
	}
	rule = "" // the origin changed its mind
	b.settled()
	b.clock.add(3600e9)
	if got := b.get("http://a.test/?a=1&utm=5"); got.Stored || got.body != "for a=1" {
		t.Errorf("stored for all by a rule that is gone: %s %q", got.status, got.body)
	}
	for _, want := range []string{"utm=6", "utm=7"} {
		if got := b.get("http://a.test/?a=1&" + want); got.Result != Miss || got.body != "for a=1&"+want {
			t.Errorf("the rule is gone, but %s: %q", got.status, got.body)
		}
	}
}

// FuzzSearch: a rule leaves of a query only what was in it, and twice the same.
func FuzzSearch(f *testing.F) {
	f.Add(`params=("a"), key-order`, "b=1&a=2&&c")
	f.Add(`params, except=("%61")`, "%61=1;b&a=2")
	f.Fuzz(func(t *testing.T, rule, query string) {
		r := parseSearch([]string{rule})
		if r == nil {
			return
		}
		got := r.query(query)
		if again := r.query(got); again != got {
			t.Fatalf("%q became %q, then %q", query, got, again)
		}
		have := map[string]int{}
		for part := range strings.SplitSeq(query, "&") {
			have[part]++
		}
		for part := range strings.SplitSeq(got, "&") {
			if have[part]--; part != "" && have[part] < 0 {
				t.Fatalf("%q is not in %q", part, query)
			}
		}
	})
}

// A range of what isn't stored passes, and the next one is served from the whole that was fetched meanwhile.
func TestRangeFill(t *testing.T) {
	b := newBench(t)
	b.policy.RangeFill = true
	b.respond(func(r *http.Request) (*http.Response, error) {
		if r.Header.Get("Range") != "" {
			res := b.response(206, "01", cacheable, "Content-Range: bytes 0-1/10")
			return res, nil
		}
		return b.response(200, "0123456789", cacheable, `Etag: "1"`), nil
	})
	if got := b.get("http://a.test/", "Range: bytes=0-1"); got.StatusCode != 206 || got.Result != Pass || got.body != "01" {
		t.Errorf("%d %s %q", got.StatusCode, got.status, got.body)
	}
	b.settled()
	if got := b.get("http://a.test/", "Range: bytes=-3"); got.StatusCode != 206 || got.Result != Hit || got.body != "789" {
		t.Errorf("%d %s %q", got.StatusCode, got.status, got.body)
	}
	if b.fetches() != 2 {
		t.Errorf("%d fetches", b.fetches())
	}
	for _, lines := range [][]string{{"Authorization: x"}, {"Cache-Control: no-store"}} {
		before := b.fetches()
		b.get("http://b.test/", append(lines, "Range: bytes=0-1")...)
		b.settled()
		if b.fetches() != before+1 {
			t.Errorf("%v: fetched the whole", lines)
		}
	}
	b.answers(200, "secret", "Cache-Control: no-store")
	b.get("http://c.test/", "Range: bytes=0-1")
	b.settled()
	before := b.fetches()
	b.get("http://c.test/", "Range: bytes=0-1")
	b.settled()
	if b.fetches() != before+1 {
		t.Error("what can't be stored is fetched twice again")
	}
}
