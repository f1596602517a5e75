package proxy

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"landfall/configs"
)

// guarded is a service whose /admin only some may use, and one route for all else.
const guarded = `
    routes:
      - match: {path: /admin/*}
        deny: [0.0.0.0/0, "::/0"]
      - match: {path: "/@me/*"}
        deny: [0.0.0.0/0, "::/0"]
      - match: {path: /caf%C3%A9}
        deny: [0.0.0.0/0, "::/0"]
      - match: {path: /shop/*}
      - match: {path: /*}
`

// The ways of writing a path that origins are known to take for another one. None passes a guarded route by.
func TestNoSpellingPassesAGuard(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write([]byte(r.RequestURI))
	}))
	defer origin.Close()
	g := newRig(t, one(guarded, origin.URL), nil)
	for path, want := range map[string]int{
		"/admin/x":                        403,
		"//admin/x":                       403,
		"/admin//x":                       403,
		"///admin///":                     403,
		"/./admin/x":                      403,
		"/%2e/admin/x":                    403,
		"/x/../admin/x":                   403,
		"/x/%2E%2e/admin/x":               403,
		"/x/..//admin/x":                  403,
		"/%61dm%69n/x":                    403,
		"/%40me/x":                        403,
		"/@me/x":                          403,
		"/caf%c3%a9":                      403,
		"/caf%C3%A9":                      403,
		"/cafe%CC%81":                     200, // another name
		"/x%2F..%2Fadmin%2Fx":             400,
		"/x/..%2fadmin/x":                 400,
		"/admin%2fx":                      400,
		"/%2Fadmin/x":                     400,
		"/admin;v=1/x":                    400,
		"/x/..;/admin/x":                  400,
		"/x/..;a=b/admin/x":               400,
		"/x/..%3B/admin/x":                400,
		"/;/admin/x":                      400,
		`/x\..\admin\x`:                   400,
		"/x%5C..%5Cadmin%5Cx":             400,
		"/%5cadmin/x":                     400,
		"/%2561dmin/x":                    400,
		"/x/%252e%252e/admin/x":           400,
		"/x/..%252fadmin/x":               400,
		"/x%00/../admin/x":                400,
		"/shop/..%2Fadmin/x":              400,
		"/shop/a%2Fb":                     200, // the same route however it is read
		"/shop/a;jsessionid=1":            200,
		"/shop/100%25":                    200,
		"/shop/x%2F..%2F..%2Fshop/y":      200,
		"/shop;v=1/x":                     200, // another route, guarded as this one is
		"/a%252Fb":                        200,
		"/shop/%E6%97%A5%E6%9C%AC%2525":   200,
		"/shop//x":                        200,
		"/administrator":                  200,
		"/admin":                          200, // /admin/* is what lies below it
		"/ADMIN/x":                        200, // paths know upper and lower case
		"/shop/?to=..%2Fadmin":            200,
		"/shop/..%2Fshop/..%2f..%2Fshopx": 200,
	} {
		resp, body := g.get("GET", path)
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d: %s", path, resp.StatusCode, want, body)
		}
	}
	if _, body := g.get("GET", "//shop///a%2Fb//?q=//"); body != "/shop/a%2Fb/?q=//" {
		t.Errorf("the origin got %s, which is not what was matched", body)
	}
}

func TestPathRules(t *testing.T) {
	off := false
	for _, c := range []struct {
		rules configs.Paths
		path  string
		want  string // empty: refused
	}{
		{configs.Paths{}, "//a///b%2F/", "/a/b%2F/"},
		{configs.Paths{MergeSlashes: &off}, "//a///b%2F/", "//a///b%2F/"},
		{configs.Paths{EscapedSlashes: "decode"}, "/a%2f%2F..%2fb", "/a/b"},
		{configs.Paths{EscapedSlashes: "decode", MergeSlashes: &off}, "/a%2f%2Fb", "/a//b"},
		{configs.Paths{EscapedSlashes: "decode"}, "/a%252fb", "/a%252fb"},
		{configs.Paths{EscapedSlashes: "refuse"}, "/a%2Fb", ""},
		{configs.Paths{EscapedSlashes: "refuse"}, "/a%252Fb", "/a%252Fb"},
	} {
		if got, ok := pathRulesOf(c.rules).normal(c.path); ok != (c.want != "") || ok && got != c.want {
			t.Errorf("%+v: %s becomes %q %v, want %q", c.rules, c.path, got, ok, c.want)
		}
	}
}

// Without strictness, and without merging, operators get what they asked for.
func TestAmbiguousPathsAllowed(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.RequestURI)) }))
	defer origin.Close()
	g := newRig(t, one("    paths: {ambiguous: allow, merge_slashes: false}"+guarded, origin.URL), nil)
	for _, path := range []string{"/x/..%2Fadmin/x", "//admin/x", "/admin;v=1/x"} {
		if resp, body := g.get("GET", path); resp.StatusCode != 200 || body != path {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
	g = newRig(t, one("    paths: {merge_slashes: false}"+guarded, origin.URL), nil)
	if resp, _ := g.get("GET", "//admin/x"); resp.StatusCode != 400 {
		t.Error("slashes that the origin may merge passed a guard:", resp.StatusCode)
	}
	g = newRig(t, one("    paths: {escaped_slashes: refuse}", origin.URL), nil)
	if resp, _ := g.get("GET", "/a%2Fb"); resp.StatusCode != 400 {
		t.Error("an escaped slash was not refused:", resp.StatusCode)
	}
	if _, _, _, err := g.proxy.NormalURL("http://shop.test/a%2Fb"); err == nil {
		t.Error("a path that is refused can be purged")
	}
}

// A path that only a reading of it has a route for is one that the operator did not open.
func TestNoSpellingLeavesTheRoutes(t *testing.T) {
	g := newRig(t, one(`    routes: [{match: {path: /api/*}}, {match: {path: /only, methods: [POST]}}]`, "http://127.0.0.1:1"), nil)
	for path, want := range map[string]int{"/api/..%2Finternal": 400, "/api/..;/internal": 400, "/api/..%2Fonly": 400, "/internal": 404, "/api/a;b": 502} {
		if resp, _ := g.get("GET", path); resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
		}
	}
}

func TestStripPrefixHoweverItIsEscaped(t *testing.T) {
	for _, c := range []struct {
		path, prefix, want string
		ok                 bool
	}{
		{"/api/x", "/api", "/x", true}, {"/%40me/x%2Fy", "/@me", "/x%2Fy", true}, {"/@me", "/%40me", "", true},
		{"/a%2Fb/c", "/a/b", "/a%2Fb/c", false}, {"/caf%c3%a9/x", "/caf%C3%A9", "/x", true}, {"/x", "/%40", "/x", false},
	} {
		if got, ok := cutPrefix(c.path, c.prefix); got != c.want || ok != c.ok {
			t.Errorf("%s without %s: %q %v, want %q %v", c.path, c.prefix, got, ok, c.want, c.ok)
		}
	}
}

// originReads is an origin's own idea of a path, written from what nginx, Tomcat and IIS do, and not from the code above.
func originReads(path string, kind byte) string {
	for range 1 + kind&1 {
		if s, err := url.PathUnescape(path); err == nil {
			path = s
		}
	}
	if kind&2 != 0 {
		path = strings.ReplaceAll(path, `\`, "/")
	}
	var out []string
	for _, s := range strings.Split(path, "/") {
		if kind&4 != 0 {
			s, _, _ = strings.Cut(s, ";")
		}
		switch s {
		case "..":
			out = out[:max(len(out)-1, 0)]
		case ".", "":
		default:
			out = append(out, s)
		}
	}
	return "/" + strings.Join(out, "/")
}

// FuzzPathReadings: what passes is read by no origin as a path below /admin.
func FuzzPathReadings(f *testing.F) {
	for _, s := range []string{"/admin/x", "//admin/x", "/x/..%2fadmin/x", "/..;/admin/x", `/x%5c..%5cadmin/x`, "/%252e%252e/admin/x", "/%61dmin/x", "/a/../admin;x/y", "/%2561dmin%2fx", "/shop/a%2Fb"} {
		for kind := range byte(8) {
			f.Add(s, kind)
		}
	}
	g := newRig(f, one(guarded, "http://127.0.0.1:1"), nil)
	f.Fuzz(func(t *testing.T, target string, kind byte) {
		u, err := url.ParseRequestURI("http://shop.test" + target)
		if err != nil {
			return
		}
		path, ok := normalPath(u)
		if !ok {
			return
		}
		wantPath(t, path)
		s := g.proxy.hosts.named["web"]
		if path, ok = s.paths.normal(path); !ok {
			return
		}
		wantPath(t, path)
		if again, ok := s.paths.normal(path); !ok || again != path {
			t.Errorf("%q becomes %q", path, again)
		}
		m, no := g.proxy.route(headResult{method: "GET", host: "shop.test", path: path}, nil)
		if no != nil {
			return
		}
		read := originReads(path, kind)
		below := strings.HasPrefix(read, "/admin/")
		if guarded := m.route.Deny != nil; below && !guarded {
			t.Errorf("%q passes by the route %s, and is %q to an origin of kind %d", path, m.route.Match.Path, read, kind)
		}
	})
}

func BenchmarkRoute(b *testing.B) {
	g := newRig(b, one(guarded, "http://127.0.0.1:1"), nil)
	for name, path := range map[string]string{"plain": "/shop/a/b", "escaped": "/shop/caf%C3%A9", "suspicious": "/shop/a%2Fb"} {
		h := headResult{method: "GET", host: "shop.test", path: path}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, no := g.proxy.route(h, nil); no != nil {
					b.Fatal(no)
				}
			}
		})
	}
}

// A prefix is looked for in one place, however long and escaped the path is.
func TestStripPrefixIsCheap(t *testing.T) {
	path := "/%40" + strings.Repeat("/a", 16<<10)
	if n := testing.AllocsPerRun(10, func() { cutPrefix(path, "/api") }); n > 8 {
		t.Errorf("%.0f allocations for a path of %d bytes", n, len(path))
	}
}
