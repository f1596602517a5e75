package cache

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

const cacheable = "Cache-Control: max-age=600"

func (b *bench) purge(path string, soft bool) int {
	n, _ := b.cache.Purge(Purge{Service: "shop", Host: "A.test:8080", Path: path, Soft: soft})
	return n
}

// A purge covers variants, schemes and ports, and nothing of another URL or service.
func TestPurgeScope(t *testing.T) {
	b := newBench(t)
	b.answers(200, "body", cacheable, "Vary: Accept-Encoding, X-A")
	mine := []struct {
		url   string
		lines []string
	}{
		{"http://a.test/x", nil}, {"http://A.TEST:80/x", []string{"Accept-Encoding: gzip"}}, {"http://a.test/x", []string{"X-A: 1"}},
		{"http://a.test:8080/x", nil}, {"https://a.test/x", nil}, {"https://a.test/x", []string{"Accept-Encoding: br"}},
	}
	others := []string{"http://a.test/y", "http://a.test/x?", "http://a.test/x?q", "http://b.test/x", "http://a.test/x/"}
	for _, r := range mine {
		b.get(r.url, r.lines...)
	}
	b.get("http://a.test/y")
	b.get("http://a.test/x?q")
	b.get("http://b.test/x")
	b.get("http://a.test/x/")
	elsewhere := view(httptest.NewRequest("GET", "http://a.test/x", nil))
	elsewhere.Service = "other"
	serveOther := func() string {
		return b.cache.Serve(httptest.NewRecorder(), httptest.NewRequest("GET", "http://a.test/x", nil), elsewhere, Policy{}, b.fetch).Result
	}
	serveOther()
	if n, _ := b.cache.Purge(Purge{Service: "shop", Host: "c.test", Path: "/x"}); n != 0 {
		t.Errorf("%d removed of what isn't there", n)
	}
	if n := b.purge("/x", false); n != len(mine) {
		t.Errorf("%d removed, want %d", n, len(mine))
	}
	for _, r := range mine {
		if got := b.get(r.url, r.lines...); got.Result != Miss {
			t.Errorf("%s %v: %s after the purge", r.url, r.lines, got.Result)
		}
	}
	for _, url := range others {
		if url != "http://a.test/x?" && b.get(url).Result != Hit {
			t.Errorf("%s was purged, too", url)
		}
	}
	if serveOther() != Hit {
		t.Error("the other service's was purged, too")
	}
}

// A purge concerns what is stored, once, and nothing that is fetched later.
func TestPurgeIsOnce(t *testing.T) {
	for _, soft := range []bool{false, true} {
		b := newBench(t)
		b.answers(200, "body", cacheable, `Etag: "1"`)
		b.get("http://a.test/")
		if n := b.purge("/", soft); n != 1 {
			t.Errorf("soft %v: %d taken", soft, n)
		}
		if n := b.purge("/", soft); n != 0 {
			t.Errorf("soft %v: %d taken again", soft, n)
		}
		if got := b.get("http://a.test/"); got.Result != Miss {
			t.Errorf("soft %v: %s after the purge", soft, got.Result)
		}
		if got := b.get("http://a.test/"); got.Result != Hit {
			t.Errorf("soft %v: %s at last", soft, got.Result)
		}
	}
}

// A soft purge leaves what may be served stale, and what the origin confirms.
func TestSoftPurge(t *testing.T) {
	b := newBench(t)
	b.confirming(`"1"`, cacheable)
	b.get("http://a.test/")
	b.purge("/", true)
	if got := b.get("http://a.test/"); got.status != "landfall; fwd=stale; fwd-status=304" {
		t.Errorf("without stale-while-revalidate: %q", got.status)
	}
	if got := b.get("http://a.test/"); got.Result != Hit {
		t.Errorf("then %q", got.status)
	}
	b.policy.StaleWhileRevalidate = ptr(time.Minute)
	b.purge("/", false)
	b.get("http://a.test/")
	b.clock.add(time.Second)
	b.purge("/", true)
	b.clock.add(time.Second)
	if got := b.get("http://a.test/"); got.status != "landfall; hit; ttl=-1" || got.Result != Stale {
		t.Errorf("with stale-while-revalidate: %q", got.status)
	}
	b.settled()
	if got := b.get("http://a.test/"); got.Result != Hit {
		t.Errorf("refreshed: %q", got.status)
	}
}

// TestPurgeRace: a fetch that is under way while the purge comes is not stored, or is stored as stale.
func TestPurgeRace(t *testing.T) {
	for _, c := range []struct {
		name    string
		soft    bool
		revised bool // it revalidates
		then    string
	}{
		{name: "hard", then: "landfall; fwd=uri-miss; stored"},
		{name: "soft", soft: true, then: "landfall; fwd=stale; fwd-status=304"},
		{name: "hard, revalidation", revised: true, then: "landfall; fwd=uri-miss; stored"},
		{name: "soft, revalidation", soft: true, revised: true, then: "landfall; fwd=stale; fwd-status=304"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.confirming(`"1"`, cacheable)
			if c.revised {
				b.get("http://a.test/")
				b.clock.add(700 * time.Second)
			}
			answer := b.origin
			asked, let := make(chan struct{}), make(chan struct{})
			b.respond(func(r *http.Request) (*http.Response, error) {
				asked <- struct{}{}
				<-let
				return answer(r)
			})
			first := make(chan reply)
			go func() { first <- b.get("http://a.test/") }()
			<-asked
			b.purge("/", c.soft)
			second := make(chan reply)
			// A request after the purge must not be answered by a fetch from before it.
			go func() { second <- b.get("http://a.test/") }()
			<-asked
			b.purge("/", c.soft)
			close(let)
			if got := <-first; got.body != `body of "1"` {
				t.Errorf("the waiting client got %q", got.body)
			}
			<-second
			b.purge("/", c.soft)
			b.respond(answer)
			if got := b.get("http://a.test/"); got.status != c.then {
				t.Errorf("then %q, want %q", got.status, c.then)
			}
		})
	}
}

// RFC 9111 section 4.4.
func TestUnsafeMethodsInvalidate(t *testing.T) {
	for _, c := range []struct {
		method string
		status int
		lines  []string
		gone   []string
	}{
		{"POST", 200, nil, []string{"/a/b"}},
		{"DELETE", 204, nil, []string{"/a/b"}},
		{"PUT", 301, nil, []string{"/a/b"}},
		{"BREW", 200, nil, []string{"/a/b"}},
		{"POST", 500, []string{"Location: /c"}, nil},
		{"POST", 404, nil, nil},
		{"OPTIONS", 200, nil, nil},
		{"POST", 201, []string{"Location: c", "Content-Location: http://a.test/d?e=f"}, []string{"/a/b", "/a/c", "/d?e=f"}},
		{"POST", 201, []string{"Location: http://other.test/a/c", "Content-Location: https://a.test/d?e=f"}, []string{"/a/b"}},
		{"POST", 201, []string{"Location: http://%zz/"}, []string{"/a/b"}},
	} {
		b := newBench(t)
		b.answers(200, "body", cacheable)
		all := []string{"/a/b", "/a/c", "/c", "/d?e=f"}
		for _, path := range all {
			b.get("http://a.test" + path)
		}
		b.answers(c.status, "", c.lines...)
		got := b.do(c.method, "http://a.test/a/b", "sent")
		if got.status != "landfall; fwd=method" || got.Result != Pass {
			t.Errorf("%s: %q %s", c.method, got.status, got.Result)
		}
		b.answers(200, "body", cacheable)
		for _, path := range all {
			want := Hit
			for _, gone := range c.gone {
				if path == gone {
					want = Miss
				}
			}
			if got := b.get("http://a.test" + path); got.Result != want {
				t.Errorf("%s %d %v: then %s is %s, want %s", c.method, c.status, c.lines, path, got.Result, want)
			}
		}
	}
}
