package proxy

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"landfall/cache"
)

// allKnown is a node that has applied all purges there are.
type allKnown struct{}

func (allKnown) Known() (string, bool)                { return "", true }
func (allKnown) Reached(context.Context, string) bool { return true }

// While a rollout changes what is in the cache's key, the shield, which has the other config yet, must not merge what the
// asking node tells apart, nor store for it what a purge by its own key won't find: the asking node takes a miss.
func TestKeyPolicyDuringRollout(t *testing.T) {
	answer := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("Content-Type", "image/png")
		fmt.Fprintf(w, "%s for plan %q", r.URL.RawQuery, r.Header.Get("X-Plan"))
	}
	config := func(origin, cache string) string {
		return fmt.Sprintf(`
regions: {eu: {}, us: {}}
cache: {shield: us}
services: {web: {hosts: [shop.test], pools: {any: {origins: [%s]}}, routes: [{match: {path: /*}%s}]}}
`, origin, cache)
	}
	for _, c := range []struct {
		name, eu, us string
		shared       bool
	}{
		{"the same", ", cache: {key: {headers: [X-Plan]}}", ", cache: {key: {headers: [x-plan]}}", true},
		{"a header more", ", cache: {key: {headers: [X-Plan]}}", "", false},
		{"another header", ", cache: {key: {headers: [X-Plan]}}", ", cache: {key: {headers: [X-Tier]}}", false},
		{"a cookie less", "", ", cache: {key: {cookies: [plan]}}", false},
		{"another query", ", cache: {key: {query: {ignore: [utm_*]}}}", ", cache: {key: {query: {keep: [id]}}}", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := origin(t, answer)
			p := newPairOf(t, config(u, c.eu), config(u, c.us), func(o *Options) { o.Purges = allKnown{} })
			for _, plan := range []string{"gold", "free"} {
				want := fmt.Sprintf("id=1 for plan %q", plan)
				if !strings.Contains(c.eu, "X-Plan") {
					want = `id=1 for plan "gold"` // not in the key: who comes first decides, as the config says
				}
				if _, body := p.eu.get("GET", "/p?id=1", "X-Plan: "+plan); body != want {
					t.Errorf("plan %s got %s", plan, body)
				}
			}
			if held := p.us.cache.Stats().Objects; (held > 0) != c.shared {
				t.Errorf("the shield holds %d objects", held)
			}
		})
	}
}

// Where the key's fields change, what was stored by the old ones is not taken for what the new ones mean.
func TestKeyPolicyAfterReload(t *testing.T) {
	old := &cache.KeyPolicy{Headers: []string{"X-Plan"}}
	for _, other := range []*cache.KeyPolicy{{Headers: []string{"X-Tier"}}, {Cookies: []string{"X-Plan"}}, {}} {
		h := http.Header{"X-Plan": {"gold"}, "X-Tier": {"gold"}, "Cookie": {"X-Plan=gold"}}
		if cache.KeyOf(cache.Request{Header: h, Policy: old}) == cache.KeyOf(cache.Request{Header: h, Policy: other}) {
			t.Errorf("%+v has the key of %+v", other, old)
		}
	}
}
