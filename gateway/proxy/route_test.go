package proxy

import (
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"landfall/configs"
)

const routed = `
services:
  exact: {hosts: [www.shop.test], pools: {any: {origins: ["http://127.0.0.1:1"]}}}
  shop: {hosts: ["*.shop.test", shop.test], pools: {any: {origins: ["http://127.0.0.1:1"]}}}
  deep: {hosts: ["*.img.shop.test"], pools: {any: {origins: ["http://127.0.0.1:1"]}}}
  rest:
    hosts: ["*"]
    pools: {any: {origins: ["http://127.0.0.1:1"]}}
    routes:
      - match: {path: /api/orders, methods: [POST]}
      - match: {path: /api/*, methods: [GET, HEAD]}
      - match: {path: /api/v2/*}
      - match: {path: /static/app.css}
`

func TestHostTable(t *testing.T) {
	c, err := configs.Parse("test.yaml", []byte(routed), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	table, err := newHostTable(c, &Proxy{o: Options{Lasting: NewLasting(), Metrics: NewMetrics(prometheus.NewRegistry())}})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{
		"www.shop.test": "exact", "shop.test": "shop", "a.shop.test": "shop", "a.b.shop.test": "shop", "img.shop.test": "shop",
		"a.img.shop.test": "deep", "a.b.img.shop.test": "deep", "notshop.test": "rest", "xshop.test": "rest", "test": "rest",
		"[::1]": "rest", "192.0.2.1": "rest",
	} {
		if s := table.find(host); s == nil || s.name != want {
			t.Errorf("%s is found as %+v, want %s", host, s, want)
		}
	}
	table.any = nil
	if s := table.find("other.test"); s != nil {
		t.Errorf("without * an unknown host is found as %s", s.name)
	}
}

func TestServiceNamesOrder(t *testing.T) {
	c, err := configs.Parse("test.yaml", []byte(routed), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(ServiceNames(c), " "); got != "deep exact rest shop" {
		t.Error(got)
	}
}

func TestRoute(t *testing.T) {
	g := newRig(t, routed, nil)
	for _, c := range []struct {
		method, path string
		want         string // the route's path, or the refusal with its Allow
	}{
		{"POST", "/api/orders", "/api/orders"},
		{"GET", "/api/orders", "/api/*"},
		{"GET", "/api/v2/x", "/api/*"}, // first match wins
		{"DELETE", "/api/v2/x", "/api/v2/*"},
		{"DELETE", "/api/orders", "method_not_allowed GET, HEAD, POST"},
		{"DELETE", "/api/x", "method_not_allowed GET, HEAD"},
		{"PURGE", "/api/x", "/api/*"},
		{"GET", "/api", "no_route"},
		{"GET", "/static/app.css", "/static/app.css"},
		{"GET", "/static/app.css/x", "no_route"},
		{"GET", "/Static/app.css", "no_route"},
		{"GET", "/", "no_route"},
	} {
		m, no := g.proxy.route(headResult{method: c.method, host: "other.test", path: c.path}, nil)
		got := ""
		if no != nil {
			got = strings.TrimSpace(string(no.reason) + " " + strings.Join(no.allow, ", "))
		} else {
			got = m.route.Match.Path
		}
		if got != c.want {
			t.Errorf("%s %s: %s, want %s", c.method, c.path, got, c.want)
		}
	}
	if i, ok := g.proxy.RouteOf("rest", "DELETE", "/api/v2/x"); !ok || i != 2 {
		t.Errorf("RouteOf: %d %v", i, ok)
	}
	if _, ok := g.proxy.RouteOf("rest", "GET", "/nowhere"); ok {
		t.Error("RouteOf finds a route where there is none")
	}
	if _, ok := g.proxy.RouteOf("nobody", "GET", "/"); ok {
		t.Error("RouteOf finds a service that is not there")
	}
}

// RFC 9110 section 15.5.6: a 405 carries Allow. Section 15.5.20: over TLS an unknown host is a connection gone wrong.
func TestRefusedRoutes(t *testing.T) {
	g := newRig(t, one(`    routes: [{match: {path: "/api/*", methods: [GET, POST]}}]`, "http://127.0.0.1:1"), nil)
	for _, c := range []struct {
		method, target, host string
		status               int
		allow                string
	}{
		{"DELETE", "/api/x", "shop.test", http.StatusMethodNotAllowed, "GET, POST"},
		{"GET", "/other", "shop.test", http.StatusNotFound, ""},
		{"GET", "/api/x", "other.test", http.StatusNotFound, ""},
		{"GET", "https:///api/x", "other.test", http.StatusMisdirectedRequest, ""},
	} {
		resp, body := g.get(c.method, c.target, "Host: "+c.host)
		if resp.StatusCode != c.status || resp.Header.Get("Allow") != c.allow || !strings.Contains(body, testID) {
			t.Errorf("%s %s of %s: %d, Allow %q, %s", c.method, c.target, c.host, resp.StatusCode, resp.Header.Get("Allow"), body)
		}
	}
}
