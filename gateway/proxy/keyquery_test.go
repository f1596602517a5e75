package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// What the key ignores is kept from the origin, and a purge of a URL takes what is stored under its normal form.
func TestKeyPolicyOfARoute(t *testing.T) {
	u, n := counted(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Landfall-Cache-Control", "max-age=60")
		w.Header().Set("Surrogate-Key", "k")
		fmt.Fprintf(w, "query %s", r.URL.RawQuery)
	})
	g := newRig(t, one("\n    routes: [{cache: {key: {query: {ignore: [utm_*], sort: true}}}}]", u), nil)
	_, body := g.get("GET", "/p?b=2&utm_source=evil&a=1")
	if body != "query a=1&b=2" {
		t.Errorf("the origin was asked for %q", body)
	}
	resp, body := g.get("GET", "/p?a=1&b=2&utm_medium=x")
	if body != "query a=1&b=2" || !strings.Contains(resp.Header.Get("Cache-Status"), "hit") || n.Load() != 1 {
		t.Errorf("%q %v", body, resp.Header)
	}
	for name := range resp.Header {
		if strings.HasPrefix(name, "Landfall-") || name == "Surrogate-Key" {
			t.Errorf("the client sees %s", name)
		}
	}
	if got := fmt.Sprint(g.proxy.KeyQueries("web", "/p", "utm_x=1&b=2&a=1")); got != "[utm_x=1&b=2&a=1 a=1&b=2]" {
		t.Errorf("a purge looks for %s", got)
	}
	if got := fmt.Sprint(g.proxy.KeyQueries("none", "/p", "a=1")); got != "[a=1]" {
		t.Errorf("a purge of no service looks for %s", got)
	}
}
