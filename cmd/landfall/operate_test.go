package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"landfall/gateway/admin"
)

// fakeNode is an admin API with canned answers that remembers what it was asked.
type fakeNode struct {
	*httptest.Server
	answers map[string]any // by method and path
	follow  string         // an event stream, which then stays open

	mu    sync.Mutex
	asked []string
	token string
}

func newFakeNode(t *testing.T, answers map[string]any, follow ...string) *fakeNode {
	t.Helper()
	n := &fakeNode{answers: answers, follow: strings.Join(follow, "")}
	n.Server = httptest.NewServer(n)
	t.Cleanup(n.Close)
	return n
}

func (n *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	n.mu.Lock()
	n.asked = append(n.asked, strings.TrimSpace(fmt.Sprintf("%s %s %s", r.Method, r.URL.RequestURI(), body)))
	n.token = r.Header.Get("Authorization")
	n.mu.Unlock()
	if n.follow != "" && strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, n.follow)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return
	}
	switch a := n.answers[r.Method+" "+r.URL.Path].(type) {
	case nil:
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"type":"about:blank","title":"Not found","status":404,"detail":"there is no such thing; look at what there is"}`)
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a)
	}
}

func (n *fakeNode) last() (asked, token string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked[len(n.asked)-1], n.token
}

var noon = time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)

func drainOfEast() admin.Drain {
	return admin.Drain{DrainTarget: admin.DrainTarget{Kind: "region", Name: "us-east"}, Reason: "new disks", By: "loopback", Since: noon, Expires: noon.Add(time.Hour)}
}

func fleetAnswers() map[string]any {
	place := &admin.Location{Lat: 53.35, Lon: -6.26}
	km, far, half, guess := 12.0, 5470.4, 0.5, 123.4
	return map[string]any{
		"GET /v1/status": admin.Status{
			Fleet: "shop", Node: "eu-west-1", Region: "eu-west", Version: "v1", ConfigHash: "0123456789ab", State: "serving", Uptime: admin.Duration(90 * time.Minute),
			Ready: false, NotReady: []string{"the node or its region is drained"}, SplitConfig: true, Panic: true, RequestsPerSecond: 1234.5,
			Regions: []admin.RegionSummary{
				{Name: "eu-west", State: "up", NodesLive: 2, NodesTotal: 2, Services: map[string]string{"shop": "up", "blog": "up"}},
				{Name: "us-east", State: "draining", NodesLive: 1, NodesTotal: 2, Drained: true, Services: map[string]string{"shop": "draining", "blog": "down"}, RTT: 16.04},
				{Name: "ap-southeast", State: "down", NodesTotal: 1, Services: map[string]string{"shop": "down"}, RTT: 231.2, Estimated: true},
			},
			DNSPush: []admin.DNSPush{
				{Target: "corporate", Zone: "shop.example.com", Node: "eu-west-1", Self: true, Kept: []string{"old.shop.example.com"}, LastPush: noon},
				{Target: "partner", Zone: "partner.example", Node: "ap-1", Kept: []string{}},
				{Target: "press", Zone: "press.example", Node: "eu-west-1", Self: true, Pending: 3, Kept: []string{}, Error: "set addresses in press.example: dns response error code \"REFUSED\" (5)"},
			},
		},
		"GET /v1/nodes": map[string]any{"nodes": []admin.Node{
			{Name: "eu-west-1", Region: "eu-west", State: "serving", Self: true, Addresses: []string{"192.0.2.1", "2001:db8::1"}},
			{Name: "us-east-1", Region: "us-east", State: "serving", Reachable: true, Drained: true, Addresses: []string{"198.51.100.1"}, RTT: 16.04},
			{Name: "us-east-2", Region: "us-east", State: "dead", Addresses: []string{"198.51.100.2"}},
		}},
		"GET /v1/drains": map[string]any{"drains": []admin.Drain{drainOfEast(), {DrainTarget: admin.DrainTarget{Kind: "node", Name: "eu-west-2"}, By: "deploy", Since: noon}}},
		"GET /v1/explain": admin.Explanation{
			URL: "https://shop.example.com/api/items", Host: "shop.example.com", Service: "shop", Mode: "normal", ModeText: "the nearest usable region",
			Client: admin.ExplainClient{Address: "192.0.2.7", Country: "IE", Location: place, Source: "geoip"},
			Regions: []admin.ExplainedRegion{
				{Region: "eu-west", Rank: 1, Usable: true, State: "up", ReasonText: "the nearest", DistanceKM: &km, DistanceSource: "geography", Weight: 1},
				{Region: "us-east", Rank: 2, Usable: true, State: "up", ReasonText: "farther", DistanceKM: &far, DistanceSource: "geography", Weight: 1,
					Load: &half, Requests: 1200, Waiting: 37, Latency: 2.1, Fit: 0.6, Spill: 0.125, SpillBeyond: 92.4},
				{Region: "ap-southeast", Rank: 3, State: "down", ReasonText: "its pool is down", Weight: 1},
				{Region: "sa-east", Rank: 4, State: "down", ReasonText: "its pool is down", RTT: &guess, DistanceSource: "coordinates", Weight: 1},
			},
			Answer:   &admin.DNSAnswer{Addresses: []string{"192.0.2.1", "198.51.100.1"}, TTL: 20, TTLText: "calm for 12m0s", Scope: 24},
			Steering: &admin.ExplainedSteering{From: "us-east", To: "eu-west", Name: "eu.shop.example.com", By: "redirect", Saves: 81, Sent: true},
			Route: &admin.ExplainedRoute{Index: 1, Match: "GET /api/*", Cache: "off", Canary: &admin.ExplainedCanary{To: "shop-next", Weight: 5, Sticky: "client", Header: "X-Canary", Side: "stable",
				Rules: "after 100 requests of each side in 1m, when 99% sure of 2% more failures or 2x the 99th percentile of the latency"}},
			Pool: &admin.ExplainedPool{Region: "eu-west", Origins: []admin.Origin{
				{URL: "http://10.1.1.1:8080", State: "up", Breaker: "closed"}, {URL: "http://10.1.1.2:8080", State: "down", Breaker: "open", Detail: "connection refused"},
			}},
		},
		"PUT /v1/regions/us-east/drain":    admin.DrainResult{DrainTarget: drainOfEast().DrainTarget, Drained: true, Changed: true, Applied: []string{"eu-west-1", "us-east-1"}, Missing: []string{"us-east-2"}},
		"DELETE /v1/regions/us-east/drain": admin.DrainResult{DrainTarget: drainOfEast().DrainTarget, Applied: []string{"eu-west-1", "us-east-1"}},
		"PUT /v1/nodes/eu-west-2/drain":    admin.DrainResult{DrainTarget: admin.DrainTarget{Kind: "node", Name: "eu-west-2"}, Drained: true, Applied: []string{"eu-west-1"}},
		"POST /v1/purge": admin.PurgeResult{
			ID: "p1", Service: "shop", Removed: 3, Applied: []admin.PurgeApplied{{Node: "eu-west-1", Region: "eu-west", Removed: 3}, {Node: "us-east-1", Region: "us-east"}},
			Missing: []admin.PurgeMissing{{Node: "us-east-2", Region: "us-east", Reason: "unreachable"}},
		},
		"GET /v1/homes": map[string]any{"homes": []admin.ServiceHomes{{Service: "shop", Ring: []string{"eu-west", "us-east"}, Next: []string{"eu-west"}, Share: 0.25,
			Moving: &admin.Move{To: 0.5, Since: noon, Over: admin.Duration(10 * time.Minute), By: "deploy", Reason: "room"},
			Movers: []admin.HomeMover{{From: "us-east", To: "eu-west", Share: 0.5, Moved: 0.125}}, Pins: 1}}},
		"GET /v1/homes/shop/users/u1": admin.UserHome{Service: "shop", User: "u1", Region: "eu-west", Why: "moved", Old: "us-east", Then: []string{"us-east"}, Wait: admin.Duration(500 * time.Millisecond)},
		"PUT /v1/homes/shop/move": admin.MoveResult{Service: "shop", Applied: []string{"eu-west-1"}, Missing: []string{"us-east-2"},
			Move: &admin.Move{To: 0.25, Since: noon, Over: admin.Duration(10 * time.Minute), By: "loopback"}},
		"PUT /v1/homes/shop/pins/u1":    admin.PinResult{Service: "shop", User: "u1", Applied: []string{"eu-west-1"}, Pin: &admin.Pin{Service: "shop", User: "u1", Region: "eu-west", Since: noon}},
		"DELETE /v1/homes/shop/pins/u1": admin.PinResult{Service: "shop", User: "u1", Applied: []string{"eu-west-1"}},
		"GET /v1/pins":                  map[string]any{"pins": []admin.Pin{{Service: "shop", User: "u1", Region: "eu-west", By: "loopback", Reason: "auditor", Since: noon}}},
		"PUT /v1/services/shop/regions/us-east/breaker": admin.BreakerResult{BreakerTarget: admin.BreakerTarget{Pool: "shop/us-east"}, Changed: true,
			Order: &admin.BreakerOrder{BreakerTarget: admin.BreakerTarget{Pool: "shop/us-east"}, State: "open", By: "loopback", Since: noon}, Applied: []string{"eu-west-1"}},
		"GET /v1/services/shop/pools": map[string]any{"pools": []admin.Pool{
			{Region: "eu-west", State: "up", Breaker: "open", Forced: true, Origins: []admin.Origin{{URL: "http://10.1.1.1:8080", State: "up", Breaker: "closed", Weight: 1, Share: 1}}},
			{Region: "us-east", State: "up", Origins: []admin.Origin{{URL: "http://10.2.1.1:8080", State: "up", Detail: "as us-east-1 sees it"}}},
		}},
		"GET /v1/events": map[string]any{"events": []admin.Event{
			{Seq: 1, Time: noon, Node: "eu-west-1", Kind: "node.ready", Subject: "eu-west-1", Detail: "serving eu-west"},
			{Seq: 2, Time: noon.Add(1500 * time.Millisecond), Node: "eu-west-1", Kind: "region.down", Subject: "us-east", Detail: "none of its nodes is alive and reachable"},
		}},
	}
}

// What each command prints for people, and that -o json is JSON with the same facts.
func TestOutputGolden(t *testing.T) {
	n := newFakeNode(t, fleetAnswers())
	for _, c := range []struct {
		name string
		args []string
		code int
	}{
		{"status", []string{"status"}, 0},
		{"explain", []string{"explain", "https://shop.example.com/api/items", "--client", "192.0.2.7"}, 0},
		{"drains", []string{"drains"}, 0},
		{"drain", []string{"drain", "region", "us-east", "--for", "1h", "--reason", "new disks"}, 0},
		{"drain-again", []string{"drain", "node", "eu-west-2"}, 0},
		{"undrain", []string{"undrain", "region", "us-east"}, 0},
		{"purge", []string{"purge", "--service", "shop", "--url", "http://shop.example.com/a"}, 1}, // a node is missing
		{"events", []string{"events"}, 0},
		{"home-list", []string{"home", "list"}, 0},
		{"home-find", []string{"home", "find", "shop", "u1"}, 0},
		{"home-migrate", []string{"home", "migrate", "shop", "25%", "--over", "10m"}, 0},
		{"home-pin", []string{"home", "pin", "shop", "u1", "eu-west", "--reason", "auditor"}, 0},
		{"breaker-pool", []string{"breaker", "open", "shop", "--region", "us-east"}, 0},
		{"pools", []string{"pools", "shop"}, 0},
		{"home-unpin", []string{"home", "unpin", "shop", "u1"}, 0},
		{"home-pins", []string{"home", "pins"}, 0},
		{"drill-list", []string{"drill", "list"}, 0},
	} {
		args := c.args
		if c.name != "drill-list" {
			args = append(args, "--admin", n.URL)
		}
		code, text, errs := command(t, args...)
		if code != c.code || errs != "" {
			t.Errorf("%v: exit %d, %s", args, code, errs)
		}
		golden(t, c.name+".txt", text)
		code, out, errs := command(t, append(args, "-o", "json")...)
		if code != c.code || errs != "" {
			t.Errorf("%v -o json: exit %d, %s", args, code, errs)
		}
		if c.name == "events" { // a stream: one object a line
			for line := range strings.Lines(out) {
				if !json.Valid([]byte(line)) {
					t.Errorf("events -o json: not JSON: %s", line)
				}
			}
			continue
		}
		if !json.Valid([]byte(out)) {
			t.Errorf("%v -o json is not JSON: %s", args, out)
		}
		golden(t, c.name+".json", out)
	}
}

// A node of which little is known, and a fleet in which nothing happens.
func TestOutputOfLittle(t *testing.T) {
	n := newFakeNode(t, map[string]any{
		"GET /v1/drains":  map[string]any{"drains": nil},
		"GET /v1/events":  map[string]any{"events": nil},
		"GET /v1/explain": admin.Explanation{URL: "https://a.example/", Service: "any", ModeText: "nothing is known"},
		"POST /v1/purge":  admin.PurgeResult{ID: "p2", Applied: []admin.PurgeApplied{{Node: "n1", Region: "local"}}},
	})
	for _, c := range []struct {
		args       []string
		text, json string
	}{
		{[]string{"drains"}, "nothing is drained\n", "[]\n"},
		{[]string{"events"}, "", ""},
		{[]string{"explain", "a.example"}, "a client of whom nothing is known (place unknown), service any", `"service": "any"`},
		{[]string{"explain", "a.example"}, "none matches: 404", `"url": "https://a.example/"`},
		{[]string{"purge", "--service", "s", "--url", "http://a/"}, "purge p2: nothing found", `"removed": 0`},
	} {
		args := append(c.args, "--admin", n.URL)
		if code, out, errs := command(t, args...); code != 0 || !strings.Contains(out, c.text) {
			t.Errorf("%v: exit %d\n%s%s", args, code, out, errs)
		}
		if code, out, errs := command(t, append(args, "-o", "json")...); code != 0 || !strings.Contains(out, c.json) || out != "" && !json.Valid([]byte(out)) {
			t.Errorf("%v -o json: exit %d\n%s%s", args, code, out, errs)
		}
	}
}

// What the flags ask the node for.
func TestCommandsAskTheNode(t *testing.T) {
	n := newFakeNode(t, fleetAnswers())
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"explain", "shop.example.com"}, "GET /v1/explain?url=https%3A%2F%2Fshop.example.com%2F"},
		{[]string{"explain", "http://shop.example.com/a", "--client", "2001:db8::1"}, "GET /v1/explain?client=2001%3Adb8%3A%3A1&url=http%3A%2F%2Fshop.example.com%2Fa"},
		{[]string{"drain", "region", "us-east", "--for", "90m", "--reason", "x", "--force"}, `PUT /v1/regions/us-east/drain {"for":"1h30m","reason":"x","force":true}`},
		{[]string{"drain", "node", "eu-west-2"}, `PUT /v1/nodes/eu-west-2/drain {}`},
		{[]string{"undrain", "region", "us-east"}, "DELETE /v1/regions/us-east/drain"},
		{[]string{"purge", "--service", "shop", "--url", "http://a/1,2", "--url", "http://a/3", "--soft", "--timeout", "2s"}, `POST /v1/purge?timeout=2s&wait=all {"service":"shop","urls":["http://a/1,2","http://a/3"],"soft":true}`},
		{[]string{"events", "--limit", "7"}, "GET /v1/events?limit=7"},
	} {
		command(t, append(c.args, "--admin", n.URL)...)
		if got, _ := n.last(); got != c.want {
			t.Errorf("%v asked\n%s, want\n%s", c.args, got, c.want)
		}
	}
}

func TestNodesRefusalIsTold(t *testing.T) {
	n := newFakeNode(t, nil)
	for _, args := range [][]string{{"status"}, {"drains"}, {"events"}, {"events", "--follow"}, {"explain", "a.example"}, {"drain", "region", "mars"}, {"purge", "--service", "s", "--url", "http://a/"}} {
		code, out, errs := command(t, append(args, "--admin", n.URL)...)
		if code != 1 || out != "" || !strings.Contains(errs, "there is no such thing; look at what there is") {
			t.Errorf("%v: exit %d\n%s%s", args, code, out, errs)
		}
	}
}

func TestWhereTheNodeIs(t *testing.T) {
	n := newFakeNode(t, fleetAnswers())
	t.Setenv("LANDFALL_ADMIN", n.URL)
	t.Setenv("LANDFALL_TOKEN", "from-env")
	for _, c := range []struct {
		args []string
		want string
	}{{[]string{"drains"}, "Bearer from-env"}, {[]string{"drains", "--token", "from-flag"}, "Bearer from-flag"}} {
		if code, _, errs := command(t, c.args...); code != 0 {
			t.Errorf("%v: exit %d, %s", c.args, code, errs)
		}
		if _, token := n.last(); token != c.want {
			t.Errorf("%v sends %q", c.args, token)
		}
	}
	if _, help, errs := command(t, "drains", "--help"); strings.Contains(help+errs, "from-env") {
		t.Error("the help prints the token")
	}
	if code, _, errs := command(t, "drains", "--admin", "http://127.0.0.1:1"); code != 3 || strings.Contains(errs, "from-env") {
		t.Errorf("the flag does not win over the environment: exit %d, %s", code, errs)
	}
	t.Setenv("LANDFALL_ADMIN", strings.TrimPrefix(n.URL, "http://")) // as the flag of `run` has it
	if code, _, errs := command(t, "drains"); code != 0 {
		t.Errorf("an address without a scheme: exit %d, %s", code, errs)
	}
}

func TestFollowGoesOnAfterTheLast(t *testing.T) {
	n := newFakeNode(t, fleetAnswers(), "id: 3\nevent: region.up\ndata: {\"seq\":3,\"time\":\"2026-09-01T12:00:02Z\",\"kind\":\"region.up\",\"subject\":\"us-east\"}\n\n")
	p := start(t, []string{"LANDFALL_ADMIN=" + n.URL}, "events", "--follow", "-o", "json")
	p.says(t, &p.out, `"region.up"`)
	p.interrupt()
	if code := p.exit(t); code != 0 || p.err.String() != "" {
		t.Errorf("Ctrl-C: exit %d, %s", code, p.err.String())
	}
	var seqs []uint64
	for dec := json.NewDecoder(bytes.NewReader([]byte(p.out.String()))); ; {
		var e admin.Event
		if err := dec.Decode(&e); err != nil {
			break
		}
		seqs = append(seqs, e.Seq)
	}
	if !reflect.DeepEqual(seqs, []uint64{1, 2, 3}) {
		t.Errorf("followed %v", seqs)
	}
}
