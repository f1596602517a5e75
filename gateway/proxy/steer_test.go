package proxy

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

const steering = `
listen: {http: [":0"]}
regions: {eu: {}, us: {}}
services:
  web:
    hosts: [shop.test, "*.shop.test"]
    steering: {redirect: {names: {eu: eu.shop.test, us: us.shop.test}, METHODS}}
    pools: {any: {origins: ["ORIGIN"]}}
`

func steeringRig(t *testing.T, extra string, better Better, ok bool) *rig {
	t.Helper()
	text := strings.NewReplacer("METHODS", extra, "ORIGIN", origin(t, served("eu"))).Replace(steering)
	return newRig(t, text, func(o *Options) {
		o.Better, o.AltSvcPort = func(string, netip.Addr) (Better, bool) { return better, ok }, "8443"
	})
}

// A client far from here is sent to the better region's name, once, and only where that is safe.
func TestSteeredByRedirect(t *testing.T) {
	far := Better{Region: "us", Saves: 80 * time.Millisecond}
	g := steeringRig(t, "detour: 60ms", far, true)
	for _, c := range []struct {
		method, target, header, to string
	}{
		{"GET", "/a?b=1", "", "http://us.shop.test/a?b=1"},
		{"HEAD", "/", "", "http://us.shop.test/"},
		{"GET", "https:///a", "Host: shop.test:8443", "https://us.shop.test:8443/a"},
		{"GET", "/", "Sec-Fetch-Mode: navigate", "http://us.shop.test/"},
		{"GET", "/", "Sec-Fetch-Mode: cors", ""},
		{"POST", "/", "", ""},
		{"GET", "/", "Host: us.shop.test", ""}, // sent on already
		{"GET", "/", "Host: EU.shop.test", ""},
		{"GET", "/", "Host: www.shop.test", "http://us.shop.test/"},
	} {
		var header []string
		if c.header != "" {
			header = append(header, c.header)
		}
		resp, _ := g.get(c.method, c.target, header...)
		if got := resp.Header.Get("Location"); got != c.to || (resp.StatusCode == 307) != (c.to != "") {
			t.Errorf("%s %s %s: %d to %q, want %q", c.method, c.target, c.header, resp.StatusCode, got, c.to)
		}
		if c.to != "" && resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s may be stored: %v", c.target, resp.Header)
		}
	}
	for name, g := range map[string]*rig{
		"near enough": steeringRig(t, "detour: 100ms", far, true), "no better region": steeringRig(t, "detour: 60ms", far, false),
		"a region without a name": steeringRig(t, "detour: 60ms", Better{Region: "ap", Saves: time.Second}, true),
	} {
		if resp, body := g.get("GET", "/"); resp.StatusCode != 200 || !strings.Contains(body, "by eu") {
			t.Errorf("%s: %d %v", name, resp.StatusCode, resp.Header)
		}
	}
	must := steeringRig(t, "status: 308", Better{Region: "us", Must: true}, true)
	if resp, _ := must.get("GET", "/"); resp.StatusCode != 308 || resp.Header.Get("Location") != "http://us.shop.test/" {
		t.Errorf("where residency forbids: %d %v", resp.StatusCode, resp.Header)
	}
	if resp, _ := g.get("GET", "/", "Connection: Upgrade", "Upgrade: websocket"); resp.StatusCode == 307 {
		t.Error("an upgrade was sent on")
	}
}

// By Alt-Svc the response is served here, and names the better region's nodes; by TLS alone.
func TestSteeredByAltSvc(t *testing.T) {
	g := steeringRig(t, "by: alt_svc", Better{Region: "us", Saves: 80 * time.Millisecond}, true)
	for target, want := range map[string]string{"/": "", "https:///": `h2="us.shop.test:8443"; ma=300`} {
		resp, body := g.get("GET", target)
		if resp.StatusCode != 200 || !strings.Contains(body, "by eu") || resp.Header.Get("Alt-Svc") != want {
			t.Errorf("%s: %d %q, Alt-Svc %q, want %q", target, resp.StatusCode, body, resp.Header.Get("Alt-Svc"), want)
		}
	}
	g.proxy.o.AltSvcH3 = true
	if resp, _ := g.get("GET", "https:///"); resp.Header.Get("Alt-Svc") != `h3="us.shop.test:8443"; ma=300, h2="us.shop.test:8443"; ma=300` {
		t.Errorf("with HTTP/3: %v", resp.Header)
	}
	if resp, _ := g.get("GET", "https:///", "Host: us.shop.test"); resp.Header.Get("Alt-Svc") != "" {
		t.Errorf("one who asks by a region's name is told of another: %v", resp.Header)
	}
}

// What a trusted proxy tells of its client's distance is taken, and of nobody else.
func TestRoundTripIsTakenFromTrustedProxies(t *testing.T) {
	told := map[string]time.Duration{}
	text := "listen: {http: [\":0\"], trusted_proxies: [10.0.0.0/8]}\ndns: {rtt: {header: X-Client-RTT}}\nservices: {web: {hosts: [shop.test], pools: {any: {origins: [\"" + origin(t, served("eu")) + "\"]}}}}\n"
	g := newRig(t, text, func(o *Options) {
		o.ToldRTT = func(client netip.Addr, rtt time.Duration) { told[client.String()] = rtt }
	})
	for _, c := range []struct{ from, behind, rtt string }{
		{"10.0.0.1", "192.0.2.1", "42.5"}, {"10.0.0.1", "192.0.2.2", "-1"}, {"10.0.0.1", "192.0.2.3", "NaN"}, {"10.0.0.1", "192.0.2.4", "1e9"},
		{"10.0.0.1", "10.0.0.9", "5"}, {"198.51.100.1", "192.0.2.5", "5"},
	} {
		g.from(c.from)
		if resp, _ := g.get("GET", "/", "X-Forwarded-For: "+c.behind, "X-Client-RTT: "+c.rtt); resp.StatusCode != 200 {
			t.Errorf("%+v: %d", c, resp.StatusCode)
		}
	}
	if len(told) != 1 || told["192.0.2.1"] != 42500*time.Microsecond {
		t.Errorf("told %v", told)
	}
}
