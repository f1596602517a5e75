package gateway

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"landfall/gateway/admin"
)

// testFleet is three regions with a node each, all in this process, on loopback addresses of their own: client prefixes
// 192.0.2.0/24, 198.51.100.0/24 and 203.0.113.0/24 lie at ap, eu and us.
type testFleet struct {
	t       *testing.T
	net     int // third byte of the addresses
	site    *site
	port    []string // http, https, dns, mesh, peer, admin
	file    string
	regions []string
	origins map[string]*httptest.Server
	nodes   map[string]*process // by region
	data    map[string]string

	mu      sync.Mutex
	clients map[string]*http.Client // by region
}

var fleetClients = map[string]string{"ap": "192.0.2.7", "eu": "198.51.100.7", "us": "203.0.113.7"}

// newFleet starts a fleet on 127.0.net.0/24, which no other test may use: fleets run at the same time.
func newFleet(t *testing.T, net int) *testFleet {
	t.Helper()
	f := &testFleet{t: t, net: net, regions: []string{"ap", "eu", "us"}, origins: map[string]*httptest.Server{}, nodes: map[string]*process{}, data: map[string]string{}}
	f.port = ports(t, 6, f.host("ap"), f.host("eu"), f.host("us"))
	f.site = newSite(t, "ap-1", "eu-1", "us-1")
	f.site.places(t, map[string][2]float64{"192.0.2.0/24": {1.35, 103.99}, "198.51.100.0/24": {53.35, -6.26}, "203.0.113.0/24": {38.95, -77.45}})
	for _, r := range f.regions {
		f.startOrigin(r, "127.0.0.1:0")
		f.data[r] = t.TempDir()
	}
	f.file = write(t, f.site.file("fleet.yaml"), f.config(""))
	for _, r := range f.regions {
		f.launch(r)
	}
	for _, r := range f.regions {
		f.nodes[r].awaitReady()
	}
	f.settle()
	return f
}

// host is the loopback address of a region's node.
func (f *testFleet) host(region string) string {
	return fmt.Sprintf("127.0.%d.%d", f.net, 1+slices.Index(f.regions, region))
}

func (f *testFleet) at(region string, port int) string {
	return net.JoinHostPort(f.host(region), f.port[port])
}

func (f *testFleet) config(extra string) string {
	return fmt.Sprintf(`
fleet: test
regions: {ap: {location: [1.35, 103.99]}, eu: {location: [53.35, -6.26]}, us: {location: [38.95, -77.45]}}
listen: {http: [":%s"], https: [":%s"], http_redirect: false, dns: [":%s"], mesh: ":%s", peer: ":%s"}
mesh: {join: [%s, %s], key: "%s", tls: {ca: ca.pem, cert: "${NODE}.pem", key: "${NODE}.key"}}
dns: {zones: {shop.test: {ttl: 1s}}, geoip: places.mmdb}
tls: {certificates: [{cert: web.pem, key: web.key}]}
shutdown: {dns_wait: 300ms, grace: 5s}
services:
  web:
    hosts: [shop.test, "*.shop.test"]
    debug: true
    purgers: [127.0.0.0/8]
    pool: {check: {path: /, interval: 200ms, timeout: 200ms, rise: 1, fall: 3}, breaker: {open: 500ms}}
    pools: {ap: {origins: ["%s"]}, eu: {origins: ["%s"]}, us: {origins: ["%s"]}}
%s`, f.port[0], f.port[1], f.port[2], f.port[3], f.port[4], f.at("ap", 3), f.at("us", 3), f.site.key,
		f.origins["ap"].URL, f.origins["eu"].URL, f.origins["us"].URL, extra)
}

// startOrigin starts a region's origin, on the address that it had before when it comes back.
func (f *testFleet) startOrigin(region, addr string) {
	f.t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		f.t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			pathf("by %s", region)(w, r)
			return
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		_ = c.Write(r.Context(), websocket.MessageText, []byte("by "+region))
		_, _, _ = c.Read(r.Context())
	}))
	_ = s.Listener.Close()
	s.Listener = l
	s.Start()
	f.origins[region] = s
	f.t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
}

func (f *testFleet) launch(region string) {
	f.t.Helper()
	f.nodes[region] = launch(f.t, Options{
		ConfigFile: f.file, Name: region + "-1", Region: region, Bind: f.host(region), DataDir: f.data[region], Admin: f.at(region, 5),
	})
}

// settle waits until every node finds every region up.
func (f *testFleet) settle() {
	f.t.Helper()
	for _, r := range f.regions {
		eventually(f.t, r+" sees every region up", func() bool {
			st, err := f.nodes[r].admin.Status(f.t.Context())
			return err == nil && len(st.Regions) == 3 && !slices.ContainsFunc(st.Regions, func(s admin.RegionSummary) bool { return s.State != "up" })
		})
	}
}

// answers are the regions that a node's DNS names for the client of a region, in order.
func (f *testFleet) answers(node, client string) string {
	f.t.Helper()
	var out []string
	for _, a := range ask(f.t, f.at(node, 2), "shop.test", fleetClients[client]) {
		for _, r := range f.regions {
			if f.host(r) == a {
				out = append(out, r)
			}
		}
	}
	return strings.Join(out, " ")
}

// named tells whether any node of regions names a region to any client.
func (f *testFleet) named(region string, regions ...string) bool {
	for _, node := range regions {
		for _, client := range f.regions {
			if strings.Contains(f.answers(node, client), region) {
				return true
			}
		}
	}
	return false
}

func (f *testFleet) get(region, path string) (*http.Response, string) {
	f.t.Helper()
	return get(f.t, browser(f.t, f.at(region, 1), f.site.trust), "GET", "https://shop.test"+path)
}

func TestFleetServesTheNearest(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 91)
	for _, node := range f.regions {
		for client, want := range map[string]string{"ap": "ap eu", "eu": "eu us", "us": "us eu"} {
			if got := f.answers(node, client); got != want {
				t.Errorf("%s's DNS sends a client of %s to %q, want %q", node, client, got, want)
			}
		}
		resp, body := f.get(node, "/")
		if body != "by "+node || resp.ProtoMajor != 2 || resp.Header.Get("X-Landfall-Region") != node {
			t.Errorf("%s %s %v", resp.Proto, body, resp.Header)
		}
	}
	f.explainIsDNS()
}

// explainIsDNS holds explain's answer against DNS's, for many clients at every node.
func (f *testFleet) explainIsDNS() {
	f.t.Helper()
	clients := []string{"192.0.2.1", "198.51.100.255", "203.0.113.9", "2001:db8::1"}
	for i := range 30 {
		clients = append(clients, fmt.Sprintf("%d.%d.%d.9", 11+i*7, i*3, i))
	}
	for _, node := range f.regions {
		for _, c := range clients {
			var e admin.Explanation
			var got []string
			// On a busy machine the fleet may change between the two questions: the answer before and after must be one.
			eventually(f.t, "two equal answers", func() bool {
				before := ask(f.t, f.at(node, 2), "shop.test", c)
				var err error
				if e, err = f.nodes[node].admin.Explain(f.t.Context(), "https://shop.test/x", netip.MustParseAddr(c)); err != nil {
					f.t.Fatal(err)
				}
				got = ask(f.t, f.at(node, 2), "shop.test", c)
				return slices.Equal(before, got)
			})
			if !slices.Equal(got, []string(e.Answer.Addresses)) {
				f.t.Errorf("%s, client %s: DNS %v, explain %v", node, c, got, e.Answer.Addresses)
			}
			if len(got) == 0 || f.host(e.Regions[0].Region) != got[0] || e.Regions[0].Reason != "chosen" {
				f.t.Errorf("%s, client %s: %+v, DNS %v", node, c, e.Regions[0], got)
			}
		}
	}
}

// A drain set on one node is known to all, DNS stops naming what is drained, and explain says why.
func TestDrainIsKnownToAll(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 92)
	ctx := t.Context()
	for _, target := range []admin.DrainTarget{{Kind: admin.DrainRegion, Name: "us"}, {Kind: admin.DrainNode, Name: "us-1"}} {
		res, err := f.nodes["eu"].admin.Drain(ctx, target, admin.DrainSpec{Reason: "works"}, 5*time.Second)
		if err != nil || !slices.Equal(res.Applied, []string{"ap-1", "eu-1", "us-1"}) || len(res.Missing) != 0 || !res.Changed {
			t.Fatalf("%+v %v", res, err)
		}
		eventually(t, "no DNS names us any more", func() bool { return !f.named("us", f.regions...) })
		for _, node := range f.regions {
			list, err := f.nodes[node].admin.Drains(ctx)
			if err != nil || len(list) != 1 || list[0].DrainTarget != target || list[0].Reason != "works" || list[0].By == "" {
				t.Errorf("%s: %+v %v", node, list, err)
			}
			e, err := f.nodes[node].admin.Explain(ctx, "https://shop.test/", netip.MustParseAddr(fleetClients["us"]))
			if err != nil || e.Regions[0].Region != "eu" || !slices.ContainsFunc(e.Regions, func(r admin.ExplainedRegion) bool {
				return r.Region == "us" && !r.Usable && r.State == "draining" && r.Reason == "drained"
			}) {
				t.Errorf("%s: %+v %v", node, e.Regions, err)
			}
		}
		if resp, body := f.get("us", "/"); resp.StatusCode != 200 || body != "by us" {
			t.Errorf("a drained node serves whom it has: %d %s", resp.StatusCode, body)
		}
		f.explainIsDNS()
		if _, err := f.nodes["ap"].admin.Undrain(ctx, target, 5*time.Second); err != nil {
			t.Fatal(err)
		}
		eventually(t, "us is named again", func() bool { return f.answers("ap", "us") == "us eu" && f.answers("us", "us") == "us eu" })
	}
	// What would leave nobody is refused, unless forced; and ends by itself when asked to.
	for _, r := range []string{"ap", "eu"} {
		if _, err := f.nodes["eu"].admin.Drain(ctx, admin.DrainTarget{Kind: "region", Name: r}, admin.DrainSpec{}, 5*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	last := admin.DrainTarget{Kind: "region", Name: "us"}
	if _, err := f.nodes["ap"].admin.Drain(ctx, last, admin.DrainSpec{}, 5*time.Second); err == nil || !strings.Contains(err.Error(), "web") {
		t.Errorf("the last region was drained: %v", err)
	}
	if _, err := f.nodes["ap"].admin.Drain(ctx, last, admin.DrainSpec{Force: true, For: admin.Duration(time.Second)}, 5*time.Second); err != nil {
		t.Error(err)
	}
	if got := f.answers("eu", "eu"); got == "" {
		t.Error("with every region drained DNS answers nothing")
	}
	eventually(t, "the drain ends by itself", func() bool { return f.answers("eu", "eu") == "us" })
}

// A purge removes on every node and tells how many; a second one says that nothing was found.
func TestPurgeEverywhere(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 93)
	ctx := t.Context()
	for _, r := range f.regions {
		f.get(r, "/cached")
		if resp, _ := f.get(r, "/cached"); !strings.Contains(resp.Header.Get("Cache-Status"), "hit") {
			t.Fatalf("%s: %v", r, resp.Header)
		}
	}
	req := admin.PurgeRequest{Service: "web", URLs: []string{"https://shop.test/cached"}}
	res, err := f.nodes["eu"].admin.Purge(ctx, req, "", 5*time.Second)
	if err != nil || res.Removed != 3 || len(res.Applied) != 3 || len(res.Missing) != 0 {
		t.Fatalf("%+v %v", res, err)
	}
	for _, a := range res.Applied {
		if a.Removed != 1 {
			t.Errorf("%+v", a)
		}
	}
	for _, r := range f.regions {
		if resp, _ := f.get(r, "/cached"); strings.Contains(resp.Header.Get("Cache-Status"), "hit") {
			t.Errorf("%s still serves it: %v", r, resp.Header)
		}
	}
	again, err := f.nodes["us"].admin.PurgeByID(ctx, res.ID)
	if err != nil || again.Removed != 3 {
		t.Errorf("another node's word of the purge: %+v %v", again, err)
	}
	other := admin.PurgeRequest{Service: "web", URLs: []string{"https://shop.test/never"}}
	if res, err := f.nodes["ap"].admin.Purge(ctx, other, "", 5*time.Second); err != nil || res.Removed != 0 || len(res.Applied) != 3 {
		t.Errorf("nothing there: %+v %v", res, err)
	}
	// The PURGE method on a data listener does the same.
	c := browser(t, f.at("ap", 0), nil)
	if resp, body := get(t, c, "PURGE", "http://shop.test/cached"); resp.StatusCode != 200 || !strings.Contains(body, `"removed":3`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if resp, body := get(t, c, "PURGE", "http://shop.test/cached"); resp.StatusCode != 404 || !strings.Contains(body, `"removed":0`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if _, err := f.nodes["ap"].admin.Purge(ctx, admin.PurgeRequest{Service: "web", URLs: []string{"https://other.test/"}}, "", time.Second); err == nil {
		t.Error("a URL of nobody was purged")
	}
	// A purge of many URLs takes several registers.
	var many []string
	for i := range 200 {
		many = append(many, fmt.Sprintf("https://shop.test/%s/%d", strings.Repeat("x", 100), i))
	}
	if res, err := f.nodes["eu"].admin.Purge(ctx, admin.PurgeRequest{Service: "web", URLs: many}, "", 5*time.Second); err != nil || len(res.Applied) != 3 || len(res.URLs) != 200 {
		t.Errorf("%d applied, %d missing, %v", len(res.Applied), len(res.Missing), err)
	}
}

// A node that falls silent leaves DNS; when it comes back it is named again, with the drains set meanwhile.
func TestKilledRegion(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 94)
	begun := time.Now()
	go f.nodes["us"].cut()
	for _, node := range []string{"ap", "eu"} {
		eventually(t, node+"'s DNS forgets us", func() bool { return !f.named("us", node) })
		t.Logf("%s's DNS stopped naming the dead region after %s", node, time.Since(begun).Round(time.Millisecond))
	}
	_ = f.nodes["us"].wait()
	f.nodes["us"].admin.Close()
	if got := f.answers("ap", "us"); got != "eu ap" {
		t.Errorf("a client of us is sent to %q", got)
	}
	e, err := f.nodes["eu"].admin.Explain(t.Context(), "https://shop.test/", netip.MustParseAddr(fleetClients["us"]))
	if err != nil || !slices.ContainsFunc(e.Regions, func(r admin.ExplainedRegion) bool { return r.Region == "us" && r.State == "down" && !r.Usable }) {
		t.Errorf("%+v %v", e.Regions, err)
	}
	eventually(t, "an event tells of it", func() bool { return f.nodes["eu"].hasEvent("region.down us") })
	drain := admin.DrainTarget{Kind: "region", Name: "ap"}
	if _, err := f.nodes["eu"].admin.Drain(t.Context(), drain, admin.DrainSpec{}, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	f.launch("us")
	f.nodes["us"].awaitReady()
	if list, err := f.nodes["us"].admin.Drains(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("a node that is ready knows the drains: %+v %v", list, err)
	}
	eventually(t, "us is named again", func() bool { return f.answers("eu", "us") == "us eu" && f.answers("us", "us") == "us eu" })
}

// With a region's pool down its node serves through another region, for WebSockets too; reports carry the verdict, and
// stay fresh.
func TestPoolOfARegionDown(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 95)
	addr := f.origins["eu"].Listener.Addr().String()
	f.origins["eu"].CloseClientConnections()
	f.origins["eu"].Close()
	for range 20 {
		if resp, body := f.get("eu", "/"); resp.StatusCode != 200 || body != "by us" {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}
	eventually(t, "every DNS leaves eu out", func() bool { return !f.named("eu", f.regions...) })
	resp, body := f.get("eu", "/")
	if resp.Header.Get("X-Landfall-Region") != "eu" || strings.Count(resp.Header.Get("Via"), "landfall") != 2 || body != "by us" {
		t.Errorf("%s %v", body, resp.Header)
	}
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	plain := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, f.at("eu", 0))
	}}
	defer plain.CloseIdleConnections()
	ws, _, err := websocket.Dial(ctx, "http://shop.test/ws", &websocket.DialOptions{HTTPClient: &http.Client{Transport: plain}})
	if err != nil {
		t.Fatal(err)
	}
	if _, got, err := ws.Read(ctx); err != nil || string(got) != "by us" {
		t.Errorf("%s %v", got, err)
	}
	_ = ws.CloseNow()
	m, err := f.nodes["eu"].admin.Metrics(ctx)
	if err != nil || !bytes.Contains(m, []byte(`landfall_forwarded_total{from="eu",to="us"}`)) {
		t.Errorf("no metric tells of the forwarding: %v", err)
	}
	pools, err := f.nodes["ap"].admin.Pools(ctx, "web")
	if err != nil || !slices.ContainsFunc(pools, func(p admin.Pool) bool { return p.Region == "eu" && p.State == "down" }) {
		t.Errorf("%+v %v", pools, err)
	}
	f.startOrigin("eu", addr)
	eventually(t, "eu is named again", func() bool { return f.answers("us", "eu") == "eu us" })
	if _, body := f.get("eu", "/"); body != "by eu" {
		t.Errorf("%s", body)
	}
}
