package feeds

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"landfall/configs"
)

func TestRule(t *testing.T) {
	r := newRule(configs.PurgeRule{
		Service: "shop", Soft: true, Keys: []string{"sku-{product.sku}", "{tags}", "{{x}}-{a}-{b}"},
		URLs: []string{"https://shop.test/p/{slug}?q={product.sku}"}, Prefixes: []string{"https://shop.test/c/{list.cat}/"},
	})
	for _, c := range []struct{ event, keys, urls, prefixes string }{
		{`{"product": {"sku": 12345678901234567890}}`, "sku-12345678901234567890", "", ""},
		{`{"tags": ["a", "b c", "", null, true, {"x": 1}, "a"]}`, "a,b c", "", ""},
		{`{"a": ["1", "2"], "b": "3"}`, "{x}-1-3,{x}-2-3", "", ""},
		{`{"slug": "a b/ü?#%", "product": {"sku": "s&t"}}`, "sku-s&t", "https://shop.test/p/a%20b/%C3%BC%3F%23%25?q=s%26t", ""},
		{`{"list": [{"cat": "x"}, {"cat": "y"}, 3]}`, "", "", "https://shop.test/c/x/,https://shop.test/c/y/"},
		{`{}`, "", "", ""},
	} {
		p, err := r.apply([]byte(c.event))
		if err != nil || p.Service != "shop" || !p.Soft || strings.Join(p.Keys, ",") != c.keys || strings.Join(p.URLs, ",") != c.urls || strings.Join(p.Prefixes, ",") != c.prefixes {
			t.Errorf("%s: %+v %v", c.event, p, err)
		}
	}
	wide, _ := json.Marshal(map[string]any{"a": slices.Repeat([]string{"x"}, 200), "b": slices.Repeat([]string{"y"}, 200)})
	for _, bad := range []string{"", "x", "[]", `{"a":1} {}`, `{"a":1`, string(wide), `{"tags":"` + strings.Repeat("x", maxEvent) + `"}`} {
		if _, err := r.apply([]byte(bad)); err == nil {
			t.Errorf("%.30q was read", bad)
		}
	}
}

func FuzzRule(f *testing.F) {
	r := newRule(configs.PurgeRule{Service: "s", Keys: []string{"k-{a}-{b.c}"}, URLs: []string{"https://h.test/{a}"}})
	f.Add([]byte(`{"a": [1, "x"], "b": [{"c": "y"}, {"c": [2, 3]}]}`))
	f.Fuzz(func(t *testing.T, event []byte) {
		p, err := r.apply(event)
		if err != nil {
			return
		}
		for _, k := range p.Keys {
			if !strings.HasPrefix(k, "k-") {
				t.Fatal(k)
			}
		}
		for _, u := range p.URLs {
			if rest, ok := strings.CutPrefix(u, "https://h.test/"); !ok || strings.ContainsAny(rest, "?#\x00 ") {
				t.Fatalf("%q leaves its place", u)
			}
		}
	})
}
