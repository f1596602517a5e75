package proxy

import (
	"fmt"
	"net/http"
	"testing"

	"landfall/cache"
)

// While nodes differ in their rules for paths, a purge that each has applied by its own leaves nothing behind.
func TestPurgeDuringARolloutOfPathRules(t *testing.T) {
	n := 0
	u := origin(t, func(w http.ResponseWriter, _ *http.Request) {
		n++
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("Content-Type", "image/png")
		_, _ = fmt.Fprint(w, n)
	})
	config := func(how string) string {
		return fmt.Sprintf(`
regions: {eu: {}, us: {}}
cache: {shield: us}
services: {web: {hosts: [shop.test], paths: {escaped_slashes: %s}, pools: {any: {origins: [%s]}}, routes: [{match: {path: /*}}]}}
`, how, u)
	}
	p := newPairOf(t, config("decode"), config("keep"), func(o *Options) { o.Purges = allKnown{} })
	if _, body := p.eu.get("GET", "/a%2Fb"); body != "1" {
		t.Fatal(body)
	}
	for _, g := range []*rig{p.eu, p.us} {
		host, path, query, err := g.proxy.NormalURL("http://shop.test/a%2Fb")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.cache.Purge(cache.Purge{Service: "web", Host: host, Path: path, RawQuery: query}); err != nil {
			t.Fatal(err)
		}
	}
	if _, body := p.eu.get("GET", "/a%2Fb"); body != "2" {
		t.Errorf("after the purge: %s", body)
	}
}

// A changed page's Location is brought into the form that requests for it have.
func TestLocationIsInvalidatedHoweverItIsSpelt(t *testing.T) {
	n := 0
	g := newRig(t, one("", origin(t, func(w http.ResponseWriter, r *http.Request) {
		n++
		if r.Method == http.MethodPost {
			w.Header().Set("Location", "/a//%62?x=1")
			return
		}
		w.Header().Set("Cache-Control", "max-age=600")
		_, _ = fmt.Fprint(w, n)
	})), nil)
	g.get("GET", "/a/b?x=1")
	g.get("POST", "/form")
	if _, body := g.get("GET", "/a/b?x=1"); body != "3" {
		t.Errorf("served %s", body)
	}
}
