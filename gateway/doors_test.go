package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"landfall/configs"
	"landfall/gateway/admin"
	"landfall/healthcheck"
	"landfall/routing"
	"landfall/routing/mesh"
)

const quickDoors = "health: {hold: 200ms, slow_start: 1s, front_doors: {interval: 200ms, timeout: 1s, rise: 1, fall: 3}}\n"

// reload gives one node, or all, another config.
func (f *testFleet) reload(text string, regions ...string) {
	f.t.Helper()
	write(f.t, f.file, text)
	for _, r := range regions {
		if err := f.nodes[r].n.Reload(); err != nil {
			f.t.Fatal(err)
		}
	}
}

// verdict is what a node finds of the service in a region.
func (f *testFleet) verdict(node, region string) admin.Verdict {
	f.t.Helper()
	all, _, err := f.nodes[node].admin.Verdicts(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	for _, v := range all {
		if v.Region == region && v.Service == "web" {
			return v
		}
	}
	f.t.Fatalf("no verdict on web in %s", region)
	return admin.Verdict{}
}

// seenBy are the observers of a verdict with what they saw.
func seenBy(v admin.Verdict) string {
	var out []string
	for _, s := range v.Sightings {
		out = append(out, s.Region+"/"+s.Observer+" "+s.Saw)
	}
	return strings.Join(out, ", ")
}

// A region whose nodes live and whose origins are well, but which no client can come in to: its front door takes no
// connections. The others find it, by quorum, say so with their evidence, and take it back when it opens.
func TestFrontDoorOfARegionDown(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 87)
	f.reload(f.config(quickDoors), f.regions...)
	for _, node := range f.regions {
		eventually(t, node+" hears both observers of us", func() bool {
			return seenBy(f.verdict(node, "us")) == "ap/ap-1 up, eu/eu-1 up"
		})
	}

	f.reload(f.config(quickDoors+"limits: {connections_per_client: 1}\n"), "us")
	held, stop := make(chan struct{}), make(chan struct{})
	go func() { // the one connection that it takes
		defer close(held)
		for {
			if c, err := net.Dial("tcp", f.at("us", 1)); err == nil {
				ended := make(chan struct{})
				go func() { defer close(ended); _, _ = c.Read(make([]byte, 1)) }()
				select {
				case <-stop:
				case <-ended:
				}
				_ = c.Close()
				<-ended
			}
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	defer func() {
		select {
		case <-stop:
		default:
			close(stop)
		}
		<-held
	}()
	eventually(t, "nobody is sent to us any more", func() bool { return !f.named("us", "ap", "eu") })
	v := f.verdict("eu", "us")
	if v.State != "down" || seenBy(v) != "ap/ap-1 down, eu/eu-1 down" || !strings.Contains(v.Evidence, "front door fails ap (ap-1 since ") ||
		!strings.Contains(v.Evidence, "2 of 2 regions must agree") || v.At.IsZero() || v.Sightings[0].Since.IsZero() || v.Sightings[0].Detail == "" {
		t.Errorf("the verdict is %+v", v)
	}
	e, err := f.nodes["ap"].admin.Explain(t.Context(), "https://shop.test/", netip.MustParseAddr(fleetClients["us"]))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range e.Regions {
		if r.Region == "us" && (r.Reason != "door_down" || r.Usable || !strings.Contains(r.Evidence, "front door fails")) {
			t.Errorf("us is explained as %+v", r)
		}
	}
	st, err := f.nodes["ap"].admin.Status(t.Context())
	if err != nil || len(st.Regions) != 3 {
		t.Fatalf("%+v, %v", st, err)
	}
	eventually(t, "an event tells of it", func() bool { return f.nodes["ap"].hasEvent("pool.down web/us: ") })

	close(stop)
	<-held
	f.reload(f.config(quickDoors), "us")
	eventually(t, "us's clients are at home again", func() bool { return f.answers("ap", "us") != "" && strings.HasPrefix(f.answers("eu", "us"), "us") })
	if f.nodes["us"].hasEvent("region.down") || f.nodes["ap"].hasEvent("region.down us") {
		t.Error("the region as such was called down")
	}
}

// An observer whose own line is at fault finds everybody silent: it withholds its word, and nothing goes down.
func TestObserverThatSeesNobodySuspectsItself(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 88)
	f.reload(f.config(quickDoors), f.regions...)
	eventually(t, "ap looks at both", func() bool { return len(f.verdict("eu", "us").Sightings) == 2 })
	f.nodes["ap"].n.observers.passes.SetKeys([][]byte{bytes.Repeat([]byte{9}, 32)}) // nobody answers to that
	eventually(t, "it says so", func() bool { return f.nodes["ap"].hasEvent("observer.withholds ap-1: ") })
	eventually(t, "its word is withdrawn", func() bool { return seenBy(f.verdict("us", "eu")) == "us/us-1 up" })
	for _, r := range f.regions[1:] {
		if s := f.verdict("ap", r).State; s != "up" {
			t.Errorf("ap finds %s %s", r, s)
		}
	}
	// The front door of ap itself takes nobody's pass now: two of two find that.
	eventually(t, "ap is down by quorum", func() bool { return f.verdict("us", "ap").State == "down" })
}

func TestDoorOf(t *testing.T) {
	c, err := configs.Parse("x", []byte(`
listen: {http: [":80"], https: ["10.0.0.1:8443"]}
tls: {certificates: [{cert: a.pem, key: a.key}]}
services:
  shop: {hosts: [Plain.test, "*.shop.test"], pools: {any: {origins: ["http://127.0.0.1:1"]}}}
  wild: {hosts: ["*"], pools: {any: {origins: ["http://127.0.0.1:1"]}}}
`), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		service, certs, http, want string
	}{
		{"shop", "", ":80", "plain.test false 80"},
		{"shop", "plain.test", ":80", "plain.test true 8443"},
		{"shop", "front-door.shop.test", ":80", "front-door.shop.test true 8443"},
		{"shop", "", "", "plain.test true 8443"},
		{"wild", "", ":80", "front-door.invalid false 80"},
		{"wild", "", ":0", "front-door.invalid true 8443"},
	} {
		c.Listen.HTTP = nil
		if x.http != "" {
			c.Listen.HTTP = []string{x.http}
		}
		host, secure, port := doorOf(c, x.service, func(h string) bool { return h == x.certs })
		if got := fmt.Sprint(host, " ", secure, " ", port); got != x.want {
			t.Errorf("%s with a certificate for %q and http %q: %s, want %s", x.service, x.certs, x.http, got, x.want)
		}
	}
}

// What doors show becomes part of the snapshot, with damping and a slow start.
func TestDoorsInTheSnapshot(t *testing.T) {
	c, err := configs.Parse("x", []byte(threeRegions+"health: {hold: 2s, slow_start: 10s}\n"), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	j := newJudging(healthcheck.Policy{Hold: 2 * time.Second, Distrust: 0.5})
	see := func(second int, apSees, euSees string) (routing.Place, string) {
		v := view{config: c, now: start.Add(time.Duration(second) * time.Second)}
		for i, text := range []string{"ap-1 serving", "eu-1 serving", "us-1 serving"} {
			self := ""
			if i == 0 {
				self = "ap-1"
			}
			m := told(t, text, self)
			if word := map[int]string{0: apSees, 1: euSees}[i]; word != "" {
				m.doors = doorsSaid{"us": {"web": {State: word, Since: start.UnixMilli(), Detail: "refused"}}, "mars": {"web": {State: "down"}}}
			}
			v.members = append(v.members, m)
		}
		v.weigh = func(s *routing.Snapshot, facts []regionFacts) { j.weigh(v, "ap", s, facts) }
		s, facts := v.snapshot()
		return s.Services[s.Service("web")].Places[2], facts[2].doors["web"].evidence
	}
	for _, x := range []struct {
		second  int
		ap, eu  string
		state   routing.State
		shut    bool
		waiting float64
	}{
		{0, "up", "up", routing.Up, false, 0},
		{1, "down", "up", routing.Up, false, 0},
		{2, "down", "", routing.Up, false, 0}, // one of two, the other has no opinion
		{3, "down", "splendid", routing.Up, false, 0},
		{4, "down", "down", routing.Down, true, 0},
		{5, "up", "down", routing.Down, true, 0}, // it looks well again; held for 2 s
		{7, "up", "up", routing.Up, false, 0.99},
		{12, "up", "up", routing.Up, false, 0.5},
		{17, "up", "up", routing.Up, false, 0},
		{18, "down", "down", routing.Down, true, 0},
		{19, "up", "up", routing.Down, true, 0},
		{21, "up", "up", routing.Down, true, 0}, // the second fall of ten minutes: twice as long
		{23, "up", "up", routing.Up, false, 0.99},
	} {
		p, evidence := see(x.second, x.ap, x.eu)
		if p.Pool != x.state || p.Shut != x.shut || p.Return < x.waiting-0.001 || p.Return > x.waiting+0.001 {
			t.Errorf("second %d: %s, shut %t, %.2f waiting (%s); want %s %t %.2f", x.second, p.Pool, p.Shut, p.Return, evidence, x.state, x.shut, x.waiting)
		}
	}
}

func TestDoorsTold(t *testing.T) {
	var sights []healthcheck.DoorSight
	for i := range 1500 {
		sights = append(sights, healthcheck.DoorSight{Region: "r", Service: fmt.Sprint(i), State: routing.Down, Since: time.Unix(1, 0), Detail: strings.Repeat("x", 200)})
	}
	b := doorsTold(sights)
	var said doorsSaid
	if err := json.Unmarshal(b, &said); err != nil || len(b) > mesh.MaxReport || len(said["r"]) != 1500 || said["r"]["7"].Detail != "" {
		t.Errorf("%d bytes, %d doors, %v", len(b), len(said["r"]), err)
	}
	if b := doorsTold(sights[:1]); !bytes.Contains(b, []byte("xxx")) {
		t.Errorf("the reason is not told: %s", b)
	}
	if b := doorsTold([]healthcheck.DoorSight{{Region: "r", Service: "s", State: routing.Unknown}}); b != nil {
		t.Errorf("no opinion is told as %s", b)
	}
}

// What a peer tells is decoded whatever it is.
func FuzzDoorsHeard(f *testing.F) {
	f.Add([]byte(`{"us":{"web":{"s":"down","t":1,"d":"refused"}}}`))
	f.Add([]byte(`{"us":null}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		h := heardDoors{}.hear(raw)
		again := h.hear(raw)
		for region, services := range h.said {
			if len(again.said[region]) != len(services) {
				t.Errorf("%q is heard in two ways", raw)
			}
		}
		facts := []regionFacts{{live: 1}}
		c := &configs.Config{Services: map[string]*configs.Service{"web": {}}}
		view{config: c, members: []member{{Member: mesh.Member{Name: "n", Region: "eu", Reachable: true}, doors: h.said, fresh: true}}}.
			findings([]routing.Region{{Name: "us"}}, facts)
		for _, s := range facts[0].doors["web"].sightings {
			if s.State != routing.Up && s.State != routing.Down {
				t.Errorf("%q makes a sighting of %s", raw, s.State)
			}
		}
	})
}
