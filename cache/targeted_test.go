package cache

import (
	"testing"
	"time"
)

// TestTargeted goes through RFC 9213: want is Cache-Status of the second request.
func TestTargeted(t *testing.T) {
	const hit60, miss = "landfall; hit; ttl=60", "landfall; fwd=uri-miss"
	for _, c := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"2.1: before Cache-Control", []string{"Cache-Control: max-age=5", "CDN-Cache-Control: max-age=60"}, hit60},
		{"2.1: even where that forbids", []string{"Cache-Control: no-store, private", "CDN-Cache-Control: max-age=60"}, hit60},
		{"2.1: before Expires", []string{"Expires: 0", "CDN-Cache-Control: max-age=60"}, hit60},
		{"2.1: and Expires adds nothing", []string{"Expires: Mon, 02 Mar 2026 12:00:00 GMT", "CDN-Cache-Control: public"}, miss},
		{"2.1: no-store", []string{"Cache-Control: max-age=60", "CDN-Cache-Control: no-store"}, miss},
		{"2.1: private", []string{"Cache-Control: max-age=60", "CDN-Cache-Control: private, max-age=60"}, miss},
		{"2.1: false is not said", []string{"CDN-Cache-Control: max-age=60, no-store=?0"}, hit60},
		{"2.1: of repeated ones the last", []string{"CDN-Cache-Control: max-age=5", "CDN-Cache-Control: max-age=60"}, hit60},
		{"2.1: another type is not recognised", []string{`CDN-Cache-Control: max-age="5", s-maxage=60`}, hit60},
		{"2.1: a parameter is ignored", []string{"CDN-Cache-Control: max-age=60;x=1"}, hit60},
		{"2.1: what can't be parsed is ignored", []string{"Cache-Control: max-age=60", "CDN-Cache-Control: max-age=5, &"}, hit60},
		{"2.2: an empty one is ignored", []string{"Cache-Control: max-age=60", "CDN-Cache-Control: "}, hit60},
		{"2.2: the more specific one first", []string{"CDN-Cache-Control: max-age=5", "Landfall-Cache-Control: max-age=60"}, hit60},
		{"2.2: then the next", []string{"CDN-Cache-Control: max-age=60", "Landfall-Cache-Control: ?"}, hit60},
		{"a negative age is 0", []string{"CDN-Cache-Control: max-age=-1"}, miss},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.answers(200, "body", c.lines...)
			first := b.get("http://a.test/")
			if first.Header.Get("Landfall-Cache-Control") != "" {
				t.Error("the client sees what is for this cache alone")
			}
			if got := b.get("http://a.test/"); got.status != c.want {
				t.Errorf("%q, want %q", got.status, c.want)
			}
		})
	}
}

// A 304 that says nothing new leaves what was targeted in force.
func TestTargetedSurvivesConfirmation(t *testing.T) {
	b := newBench(t)
	b.answers(200, "body", "Landfall-Cache-Control: max-age=60", "Surrogate-Key: k", `Etag: "1"`)
	b.get("http://a.test/")
	b.answers(304, "", `Etag: "1"`)
	b.clock.add(61 * time.Second)
	b.get("http://a.test/")
	if got := b.get("http://a.test/"); got.status != "landfall; hit; ttl=60" {
		t.Errorf("%q", got.status)
	}
	if n, _ := b.cache.Purge(Purge{Service: "shop", Key: "k"}); n != 1 {
		t.Errorf("%d taken by its key", n)
	}
}

// TestGroupsAreTold: who asked hears which groups of which origin went, and a purge of one elsewhere takes the same.
func TestGroupsAreTold(t *testing.T) {
	here, there := newBench(t), newBench(t)
	told := 0
	here.policy.GroupsInvalidated = func(origin string, names []string) {
		for _, name := range names {
			told++
			if n, _ := there.cache.Purge(Purge{Service: "shop", Group: name, Origin: origin}); n != 1 {
				t.Errorf("%s of %s took %d elsewhere", name, origin, n)
			}
		}
	}
	for _, b := range []*bench{here, there} {
		b.answers(200, "body", cacheable, `Cache-Groups: "a"`)
		b.get("http://a.test:8080/1")
		b.get("http://b.test/1")
	}
	here.answers(200, "", `Cache-Group-Invalidation: "a"`)
	here.do("POST", "http://a.test:8080/form", "x")
	if told != 1 {
		t.Errorf("told of %d groups", told)
	}
	if got := there.get("http://b.test/1"); got.Result != Hit {
		t.Errorf("another origin's group went: %s", got.Result)
	}
	if got := there.get("http://a.test:8080/1"); got.Result != Miss {
		t.Errorf("it is still there: %s", got.Result)
	}
}

// TestGroups: RFC 9875. An unsafe request that succeeds invalidates the groups that its response names, of its origin.
func TestGroups(t *testing.T) {
	b := newBench(t)
	b.answers(200, "body", cacheable, `Cache-Groups: "a", "b"`)
	all := []string{"http://a.test/1", "http://a.test/2", "https://a.test/1", "http://b.test/1"}
	for _, url := range all {
		b.get(url)
	}
	b.answers(200, "body", cacheable, `Cache-Groups: "c"`)
	b.get("http://a.test/c")
	b.answers(500, "", `Cache-Group-Invalidation: "a"`)
	b.do("POST", "http://a.test/form", "x")
	b.answers(200, "", `Cache-Group-Invalidation: "a", x`)
	b.get("http://a.test/get") // safe methods invalidate nothing
	for _, url := range append(all, "http://a.test/c") {
		if got := b.get(url); got.Result != Hit {
			t.Errorf("%s: %s before", url, got.Result)
		}
	}
	b.do("POST", "http://a.test/form", "x")
	b.answers(200, "body", cacheable)
	for url, want := range map[string]string{
		"http://a.test/1": Miss, "http://a.test/2": Miss, "https://a.test/1": Hit, "http://b.test/1": Hit, "http://a.test/c": Hit,
	} {
		if got := b.get(url); got.Result != want {
			t.Errorf("%s: %s, want %s", url, got.Result, want)
		}
	}
}

// FuzzTargeted: any bytes are read, seconds are within their bounds, and what is not ok says nothing.
func FuzzTargeted(f *testing.F) {
	for _, s := range []string{"max-age=60", "no-store", "max-age=99999999999999, private=?0", `a=("b" c);q=1`, "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		d, ok := parseTargeted([]string{line})
		for _, n := range []int64{d.maxAge, d.sMaxAge, d.staleWhileRevalidate, d.staleIfError} {
			if n < absent || n > maxSeconds || !ok && n != absent {
				t.Errorf("%q: %+v", line, d)
			}
		}
		if !ok && (d.noStore || d.private || d.public) {
			t.Errorf("%q: %+v", line, d)
		}
		for _, name := range groups([]string{line}) {
			if name == "" || len(name) > maxGroupBytes {
				t.Errorf("%q names %q", line, name)
			}
		}
	})
}
