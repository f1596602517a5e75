package proxy

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"landfall/configs"
)

// sides is a rig with a stable and a canary service, each of which says its name; route is what the route has beside.
func sides(t *testing.T, route string, stable, next http.HandlerFunc) *rig {
	t.Helper()
	named := func(name string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			_, _ = io.WriteString(w, name)
		}
	}
	if stable == nil {
		stable = named("stable")
	}
	if next == nil {
		next = named("canary")
	}
	return newRig(t, "flags: {new: {weight: 0%, by: \"cookie:uid\"}}\n"+one("    routes: ["+route+"]\n", origin(t, stable))+
		"  v2:\n    hosts: [v2.test]\n    pools: {any: {origins: ["+origin(t, next)+"]}}\n", nil)
}

func (g *rig) controls(c Controls) { g.proxy.o.Lasting.SetControls(&c) }

// TestCanarySplit: a canary gets its share of the clients, each stays where it is, and growing only adds to it.
func TestCanarySplit(t *testing.T) {
	g := sides(t, `{match: {path: /*}, cache: off, canary: {to: v2, weight: 25%}}`, nil, nil)
	order := CanaryName{"web", "v2"}
	print := g.proxy.Canaries()[0].Print
	const clients = 300
	cookies, on := make([]string, clients), 0
	for i := range cookies {
		resp, body := g.get("GET", "/")
		c := resp.Cookies()
		if len(c) != 1 || c[0].Name != sideCookie || !c[0].HttpOnly || !strings.Contains(resp.Header.Get("Cache-Control")+strings.Join(resp.Header["Cache-Control"], " "), "private") {
			t.Fatalf("%v", resp.Header)
		}
		cookies[i] = sideCookie + "=" + c[0].Value
		resp, again := g.get("GET", "/", "Cookie: "+cookies[i])
		if again != body || len(resp.Cookies()) > 0 {
			t.Fatalf("first %s, then %s %v", body, again, resp.Cookies())
		}
		if body == "canary" {
			on++
		}
	}
	if on < clients*15/100 || on > clients*35/100 {
		t.Errorf("%d of %d clients are on a canary of 25%%", on, clients)
	}
	g.controls(Controls{Canaries: map[CanaryName]CanaryOrder{order: {Print: print, Weight: 0.6}}})
	for _, c := range cookies {
		g.controls(Controls{Canaries: map[CanaryName]CanaryOrder{order: {Print: print, Weight: 0.25}}})
		_, before := g.get("GET", "/", "Cookie: "+c)
		g.controls(Controls{Canaries: map[CanaryName]CanaryOrder{order: {Print: print, Weight: 0.6}}})
		if _, after := g.get("GET", "/", "Cookie: "+c); before == "canary" && after != "canary" {
			t.Fatal("a canary that grew lost a client")
		}
	}
	g.controls(Controls{Canaries: map[CanaryName]CanaryOrder{order: {Print: "another config's", Stopped: true}}})
	if c := g.proxy.Canaries()[0]; c.Stopped || c.Weight != 0.25 {
		t.Error("an order for another config holds:", c.Weight, c.Stopped)
	}
}

// TestCanaryChoice: who goes to the canary, whatever its weight.
func TestCanaryChoice(t *testing.T) {
	g := sides(t, `{match: {path: /*}, cache: off, canary: {to: v2, weight: 0%, header: "X-Canary: yes", cookie: try}}`, nil, nil)
	name := g.proxy.Canaries()[0].CanaryName
	print := g.proxy.Canaries()[0].Print
	for _, tt := range []struct {
		name, header string
		order        *CanaryOrder
		want         string
	}{
		{"nobody", "X-A: b", nil, "stable"},
		{"by header", "X-Canary: yes", nil, "canary"},
		{"another value", "X-Canary: no", nil, "stable"},
		{"by cookie", "Cookie: a=b; try=1", nil, "canary"},
		{"another cookie", "Cookie: tried=1", nil, "stable"},
		{"promoted", "X-A: b", &CanaryOrder{Print: print, Weight: 1}, "canary"},
		{"taken back", "X-Canary: yes", &CanaryOrder{Print: print, Stopped: true}, "stable"},
	} {
		c := Controls{}
		if tt.order != nil {
			c.Canaries = map[CanaryName]CanaryOrder{name: *tt.order}
		}
		g.controls(c)
		if resp, body := g.get("GET", "/", tt.header); body != tt.want || len(resp.Cookies()) > 0 {
			t.Errorf("%s: %q %v, want %q", tt.name, body, resp.Cookies(), tt.want)
		}
	}
}

// TestCanaryOfAClient: the side that is told of a client by its address is the one that serves it.
func TestCanaryOfAClient(t *testing.T) {
	g := sides(t, `{match: {path: /*}, cache: off, canary: {to: v2, weight: 40%, sticky: client}}`, nil, nil)
	seen := map[string]int{}
	for i := range 60 {
		addr := fmt.Sprintf("192.0.2.%d", i)
		g.from(addr)
		_, body := g.get("GET", "/")
		c, side, ok := g.proxy.CanaryOf("web", 0, netip.MustParseAddr(addr))
		if !ok || side != body || c.To != "v2" || c.Weight != 0.4 {
			t.Errorf("%s: told %q, served by %q; %+v", addr, side, body, c)
		}
		seen[body]++
	}
	if len(seen) != 2 {
		t.Error(seen)
	}
	if _, side, _ := g.proxy.CanaryOf("web", 0, netip.Addr{}); side != "" {
		t.Error("the side of nobody is", side)
	}
	if _, _, ok := g.proxy.CanaryOf("v2", 0, netip.Addr{}); ok {
		t.Error("a route without a canary has one")
	}
}

// TestCanaryAndFlagsInTheCache: what one side answered never reaches the other's clients from the cache.
func TestCanaryAndFlagsInTheCache(t *testing.T) {
	g := sides(t, `{match: {path: /flagged, flag: new}, to: v2}, {match: {path: /*}, canary: {to: v2, weight: 0%, header: X-Canary}}`, nil, nil)
	for range 2 {
		for header, want := range map[string]string{"X-Canary: 1": "canary", "X-A: 1": "stable"} {
			if _, body := g.get("GET", "/", header); body != want {
				t.Errorf("with %s: %q", header, body)
			}
		}
	}
	if resp, _ := g.get("GET", "/", "X-Canary: 1"); !strings.Contains(resp.Header.Get("Cache-Status"), "hit") {
		t.Error("the canary's answer is not cached:", resp.Header)
	}
	for _, weight := range []float64{0, 1, 0} {
		g.controls(Controls{Flags: map[string]float64{"new": weight}})
		want := map[bool]string{true: "canary", false: "stable"}[weight == 1]
		if _, body := g.get("GET", "/flagged"); body != want {
			t.Errorf("flag at %g: %q", weight, body)
		}
	}
	g.controls(Controls{Flags: map[string]float64{"new": 0.5}})
	on := 0
	for i := range 200 {
		_, body := g.get("GET", "/flagged", fmt.Sprintf("Cookie: uid=%d", i))
		if _, again := g.get("GET", "/flagged", fmt.Sprintf("Cookie: uid=%d", i)); again != body {
			t.Fatal("a flag is not the same for the same cookie")
		}
		if body == "canary" {
			on++
		}
	}
	if on < 60 || on > 140 {
		t.Errorf("a flag of 50%% is on for %d of 200", on)
	}
	if removed, _, err := g.PurgeURL(t.Context(), "web", "http://shop.test/flagged", false); err != nil || removed != 2 {
		t.Error("a purge by URL takes both sides' answers:", removed, err)
	}
}

// TestCanaryVerdict: failures of the canary's origins, and not clients that leave, speak against it; what is served from
// the cache counts for neither side.
func TestCanaryVerdict(t *testing.T) {
	bad := func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) }
	g := sides(t, `{match: {path: /*}, cache: off, retry: {attempts: 1}, canary: {to: v2, header: X-Canary, rollback: {min_requests: 50}}}`, nil, bad)
	g.proxy.o.Pools["v2"].Close()
	for range 60 {
		g.get("GET", "/", "X-Canary: 1")
		g.get("GET", "/", "Cookie: "+sideCookie+"=ffffffffffffffff")
	}
	c := g.proxy.Canaries()[0]
	if c.Stable.Failed != 0 || c.Stable.Requests < 50 || c.Canary.Failed != c.Canary.Requests {
		t.Fatalf("stable %d of %d, canary %d of %d", c.Stable.Failed, c.Stable.Requests, c.Canary.Failed, c.Canary.Requests)
	}
	if reason := c.Look(time.Now(), 1); !strings.Contains(reason, "100% of its") {
		t.Errorf("%q", reason)
	}
	if n := valueOf(t, g.proxy.o.Metrics.canaries.WithLabelValues("web", "v2", "canary", "failed")); n != float64(c.Canary.Failed) {
		t.Error(n)
	}
	g.controls(Controls{Canaries: map[CanaryName]CanaryOrder{c.CanaryName: {Print: c.Print, Stopped: true}}})
	if c = g.proxy.Canaries()[0]; c.Canary.Requests != 0 || c.Look(time.Now().Add(time.Hour), 1) != "" {
		t.Error("a canary that is stopped is judged by what was before")
	}
}

// TestCanaryElsewhere: a request that the canary is to serve is served by the canary in another region too.
func TestCanaryElsewhere(t *testing.T) {
	v2 := origin(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "canary by us") })
	p := newPair(t, strings.Replace(two(refusing(t), refusing(t)), "    debug: true\n", "    debug: true\n    routes: [{cache: off, canary: {to: v2, weight: 100%}}]\n", 1)+
		"  v2:\n    hosts: [v2.test]\n    pools: {us: {origins: ["+v2+"]}}\n")
	if _, body := p.eu.get("GET", "/"); body != "canary by us" {
		t.Errorf("%q", body)
	}
}

// TestInForce: a reload keeps what the same canary has shown, and forgets that of one that is gone or changed.
func TestInForce(t *testing.T) {
	g := sides(t, `{match: {path: /*}, cache: off, canary: {to: v2, header: X-Canary}}`, nil, nil)
	g.get("GET", "/", "X-Canary: 1")
	again := func(edit func(*configs.Config)) *Proxy {
		c, err := configs.Parse("again.yaml", []byte("services: {web: {hosts: [shop.test], pools: {any: {origins: ['http://a:1']}}, routes: [{match: {path: /*}, canary: {to: v2, header: X-Canary}}]}, v2: {hosts: [v2.test], pools: {any: {origins: ['http://a:1']}}}}"), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		edit(c)
		o := g.proxy.o
		o.Config = c
		p, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		p.InForce()
		return p
	}
	if c := again(func(*configs.Config) {}).Canaries()[0]; c.Canary.Requests != 1 {
		t.Error("a reload forgot the canary:", c.Canary.Requests)
	}
	changed := again(func(c *configs.Config) { c.Services["web"].Routes[0].Canary.Weight = 0.5 }).Canaries()[0]
	if changed.Canary.Requests != 0 {
		t.Error("another canary inherited")
	}
	if n := len(g.proxy.o.Lasting.trials); n != 1 {
		t.Errorf("%d trials are kept", n)
	}
}
