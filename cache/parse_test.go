package cache

import (
	"hash/maphash"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDirectives(t *testing.T) {
	none := directives{maxAge: absent, sMaxAge: absent, staleWhileRevalidate: absent, staleIfError: absent}
	with := func(change func(*directives)) directives { d := none; change(&d); return d }
	for _, c := range []struct {
		lines []string
		want  directives
	}{
		{nil, none},
		{[]string{"", ",, ,", "=", `="`}, none},
		{[]string{"Max-Age=5"}, with(func(d *directives) { d.maxAge = 5 })},
		{[]string{`max-age="5"`}, with(func(d *directives) { d.maxAge = 5 })},
		{[]string{`max-age="5" 6, public`}, with(func(d *directives) { d.maxAge, d.public = 0, true })},
		{[]string{`max-age="5`}, with(func(d *directives) { d.maxAge = 0 })},
		{[]string{"max-age"}, with(func(d *directives) { d.maxAge = 0 })},
		{[]string{"max-age=99999999999999999999"}, with(func(d *directives) { d.maxAge = maxSeconds })},
		{[]string{"max-age=1.5"}, with(func(d *directives) { d.maxAge = 0 })},
		{[]string{`x="no-store, \", private", no-cache`}, with(func(d *directives) { d.noCache = true })},
		{[]string{`private="a`, "public"}, with(func(d *directives) { d.private, d.public = true, true })},
		{[]string{"no-storex, xno-store, no_store"}, none},
		{[]string{"no-store=1\t,stale-if-error=3 , stale-while-revalidate=x"}, with(func(d *directives) {
			d.noStore, d.staleIfError, d.staleWhileRevalidate = true, 3, 0
		})},
	} {
		if got := parseDirectives(c.lines); got != c.want {
			t.Errorf("%q: %+v, want %+v", c.lines, got, c.want)
		}
	}
}

// FuzzDirectives: adding any line to a Cache-Control never makes the response more cacheable, but for public.
func FuzzDirectives(f *testing.F) {
	f.Add("max-age=60", "private")
	f.Add(`no-cache="a, b", s-maxage="5"`, `max-age=", no-store`)
	f.Add("stale-if-error=1,,", "=\"\\")
	f.Fuzz(func(t *testing.T, a, b string) {
		one, both := parseDirectives([]string{a}), parseDirectives([]string{a, b})
		for _, pair := range [][2]bool{
			{one.noStore, both.noStore}, {one.private, both.private}, {one.noCache, both.noCache},
			{one.mustRevalidate, both.mustRevalidate}, {one.proxyRevalidate, both.proxyRevalidate},
		} {
			if pair[0] && !pair[1] {
				t.Fatalf("%q with %q: %+v from %+v", a, b, both, one)
			}
		}
		for _, pair := range [][2]int64{
			{one.maxAge, both.maxAge}, {one.sMaxAge, both.sMaxAge},
			{one.staleIfError, both.staleIfError}, {one.staleWhileRevalidate, both.staleWhileRevalidate},
		} {
			if pair[0] < absent || pair[0] > maxSeconds || (pair[0] != absent && (pair[1] == absent || pair[1] > pair[0])) {
				t.Fatalf("%q with %q: %+v from %+v", a, b, both, one)
			}
		}
		now := time.Unix(1e9, 0)
		for _, cc := range [][]string{{a}, {a, b}} {
			j := judge(answer{status: 200, header: http.Header{"Cache-Control": cc}, asked: now, received: now, maxObject: 1}, Policy{TTL: new(time.Duration)})
			d := parseDirectives(cc)
			if j.refusal == storable && (d.noStore || d.private) {
				t.Fatalf("%q is stored", cc)
			}
			if j.shared && d.noCache {
				t.Fatalf("%q is shared", cc)
			}
		}
	})
}

func TestKeyOf(t *testing.T) {
	base := Request{Service: "s", Scheme: "http", Host: "a.test", Path: "/x", RawQuery: "q"}
	same := []Request{
		{Service: "s", Scheme: "HTTP", Host: "A.Test", Path: "/x", RawQuery: "q"},
		{Service: "s", Scheme: "http", Host: "a.test:80", Path: "/x", RawQuery: "q", Method: "HEAD"},
		{Service: "s", Scheme: "http", Host: "a.test:", Path: "/x", RawQuery: "q", Header: http.Header{"A": {"b"}}},
	}
	for _, r := range same {
		if KeyOf(r) != KeyOf(base) {
			t.Errorf("%+v: %+v", r, KeyOf(r))
		}
	}
	for _, r := range []Request{
		{Service: "S", Scheme: "http", Host: "a.test", Path: "/x", RawQuery: "q"},
		{Service: "s", Scheme: "https", Host: "a.test", Path: "/x", RawQuery: "q"},
		{Service: "s", Scheme: "http", Host: "a.test:443", Path: "/x", RawQuery: "q"},
		{Service: "s", Scheme: "http", Host: "a.test:8o", Path: "/x", RawQuery: "q"},
		{Service: "s", Scheme: "http", Host: "b.test", Path: "/x", RawQuery: "q"},
		{Service: "s", Scheme: "http", Host: "a.test", Path: "/X", RawQuery: "q"},
		{Service: "s", Scheme: "http", Host: "a.test", Path: "/xq"},
	} {
		if KeyOf(r) == KeyOf(base) {
			t.Errorf("%+v has the same key", r)
		}
	}
	if k := KeyOf(Request{Scheme: "https", Host: "[::1]:443"}); k.Host != "[::1]" || k.Port != "" || k.Path != "/" || k.authority() != "[::1]" {
		t.Errorf("%+v", k)
	}
}

// FuzzKey: a key is its own normal form, and requests of different keys differ in more than spelling.
func FuzzKey(f *testing.F) {
	seed := maphash.MakeSeed()
	f.Add("s", "http", "A.test:80", "/x", "q", "a.test")
	f.Add("", "https", "[::1]:443", "", "", "[::1]:")
	f.Add("s", "x", ":::", "\x00", "\xff", "\xfe")
	f.Fuzz(func(t *testing.T, service, scheme, host, path, query, other string) {
		k := KeyOf(Request{Service: service, Scheme: scheme, Host: host, Path: path, RawQuery: query})
		again := KeyOf(Request{Service: k.Service, Scheme: k.Scheme, Host: k.authority(), Path: k.Path, RawQuery: k.Query})
		if again != k {
			t.Fatalf("%+v, then %+v", k, again)
		}
		if k.clone() != k || k.url().hash(seed) != k.clone().url().hash(seed) {
			t.Fatalf("a copy of %+v differs", k)
		}
		if k.Service != service || k.Query != query || (k.Path != path && path != "") {
			t.Fatalf("%+v lost something of %q %q %q", k, service, path, query)
		}
		o := KeyOf(Request{Service: service, Scheme: scheme, Host: other, Path: path, RawQuery: query})
		strip := func(h string) string { h, _ = splitPort(h); return lowerASCII(h) }
		if k == o && strip(host) != strip(other) {
			t.Fatalf("%q and %q share %+v", host, other, k)
		}
	})
}

// FuzzVary: a variant is selected by the request that it was stored for, and by no request that differs in a named field.
func FuzzVary(f *testing.F) {
	f.Add("X-A, accept-encoding", "X-A", "1", "2")
	f.Add("Cookie", "Cookie", "", " ")
	f.Add("*", "A", "b", "c")
	f.Fuzz(func(t *testing.T, vary, name, a, b string) {
		names, ok := varyNames(http.Header{"Vary": {vary}})
		if !ok {
			return
		}
		if len(names) > maxVaryFields || !slices.IsSorted(names) || slices.Contains(names, "*") {
			t.Fatalf("%q", names)
		}
		name = http.CanonicalHeaderKey(name)
		first, second := http.Header{name: {a}}, http.Header{name: {b}}
		k := KeyOf(Request{Path: "/"})
		head, _ := pack(k, &meta{varyNames: names}, first)
		o := &object{head: string(head), cells: []*cell{{}, {}}}
		selects := func(h http.Header) bool {
			same, selected, _ := o.matches(&k, h)
			if !same || !slices.Equal(o.varyNames(), names) {
				t.Fatalf("%q and %q from %q", o.key(), o.varyNames(), names)
			}
			return selected
		}
		if !selects(first) {
			t.Fatalf("%q does not select itself by %q", a, names)
		}
		if !slices.Contains(names, name) || name == "Accept-Encoding" {
			return
		}
		if strings.Trim(a, " \t") != strings.Trim(b, " \t") && selects(second) {
			t.Fatalf("%q is answered by what was stored for %q", b, a)
		}
		if selects(http.Header{}) {
			t.Fatalf("an absent field is answered by what was stored for %q", a)
		}
	})
}

// FuzzETag: what is cut off is a whole entity-tag.
func FuzzETag(f *testing.F) {
	f.Add(`"a"`, `W/"a", "b"`)
	f.Add(`W/"`, `*`)
	f.Fuzz(func(t *testing.T, tag, list string) {
		if v := validETag(tag); v != "" {
			if !strings.HasSuffix(v, `"`) || strings.Count(v, `"`) != 2 || !strings.Contains(tag, v) {
				t.Fatalf("%q from %q", v, tag)
			}
			if !listsETag([]string{v}, v) {
				t.Fatalf("%q does not list itself", v)
			}
		}
		if listsETag([]string{list}, `"x"`) && !strings.Contains(list, `"x"`) && !strings.Contains(list, "*") {
			t.Fatalf("%q lists what it doesn't name", list)
		}
	})
}

func TestMarks(t *testing.T) {
	now := time.Unix(1e9, 0)
	m := &marks{seed: maphash.MakeSeed(), start: now}
	a, b := KeyOf(Request{Host: "a", Scheme: "http"}), KeyOf(Request{Host: "a", Scheme: "https"})
	m.set(a, now, time.Second)
	if !m.has(a, now) || m.has(b, now) || m.has(a, now.Add(time.Second)) {
		t.Error("a mark holds for its key and time")
	}
	m.clear(b)
	if !m.has(a, now) {
		t.Error("cleared by another key")
	}
	m.clear(a)
	if m.has(a, now) {
		t.Error("not cleared")
	}
	late := now.Add(60 * 24 * time.Hour) // the counter has wrapped
	if m.set(a, late, time.Second); !m.has(a, late) || m.has(a, late.Add(2*time.Second)) {
		t.Error("wrong after the counter wrapped")
	}
}

func TestZeroPolicyKeepsZero(t *testing.T) {
	l := lifetimesOf(http.Header{}, parseDirectives(nil), false, 200, Policy{}, time.Time{})
	if !reflect.DeepEqual(l, lifetimes{}) {
		t.Errorf("%+v", l)
	}
}
