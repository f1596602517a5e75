package gateway

import (
	"net/netip"
	"testing"
	"time"

	"landfall/configs"
	"landfall/routing"
	"landfall/routing/rtt"
)

// farNode is a node of region us of the steered fleet, all of it up, that has measured a client 150 ms away; eu told of 20.
func farNode(t *testing.T, region string) (*Node, view) {
	t.Helper()
	v := steeredView(t, "ap-1 serving", "eu-1 serving", "us-1 serving")
	n := &Node{id: identity{region: region}, o: Options{Now: func() time.Time { return v.now }}}
	n.generation.Store(&generation{config: v.config})
	n.openRTT(v.config)
	client := netip.MustParseAddr("192.0.2.7")
	for i, name := range v.config.RegionNames() {
		other := &Node{id: identity{region: name}}
		other.openRTT(v.config)
		own := other.rtts.Load()
		own.Observe(client, rtt.Network{}, map[string]time.Duration{"ap": 250, "eu": 20, "us": 150}[name]*time.Millisecond, v.now)
		if msg := own.Deltas(); name == region {
			n.rtts.Load().Observe(client, rtt.Network{}, map[string]time.Duration{"ap": 250, "eu": 20, "us": 150}[name]*time.Millisecond, v.now)
		} else if err := n.rtts.Load().Merge(i, msg, v.now); err != nil {
			t.Fatal(err)
		}
	}
	s, _ := v.snapshot()
	n.snapshot.Store(s)
	return n, v
}

func TestBetterRegion(t *testing.T) {
	client := netip.MustParseAddr("192.0.2.7")
	n, v := farNode(t, "us")
	if b, ok := n.better("web", client); !ok || b.Region != "eu" || b.Saves != 130*time.Millisecond || b.Must {
		t.Errorf("a client of eu in us: %+v %t", b, ok)
	}
	if b, ok := n.better("web", netip.MustParseAddr("203.0.113.1")); ok {
		t.Errorf("one of whom nothing is known: %+v", b)
	}
	if b, ok := n.better("none", client); ok {
		t.Errorf("no such service: %+v", b)
	}
	home, _ := farNode(t, "eu")
	if b, ok := home.better("web", client); ok {
		t.Errorf("a client at home: %+v", b)
	}
	for name, spoil := range map[string]func(*view){
		"drained": func(v *view) { v.drains = []Drain{{Kind: kindRegion, Name: "eu", Since: v.now}} },
		"down":    func(v *view) { v.members[1].report.Pools["web"] = "down" },
		"unknown": func(v *view) { v.members[1].fresh = false },
		"full":    func(v *view) { v.members[1].report.Spill = map[string]spillReport{"web": {Share: 1}} },
		"weight 0": func(v *view) {
			v.weights = []Weight{{Service: "web", Region: "eu", Weight: 0}}
		},
	} {
		n, v = farNode(t, "us")
		spoil(&v)
		s, _ := v.snapshot()
		n.snapshot.Store(s)
		if b, ok := n.better("web", client); ok && b.Region == "eu" {
			t.Errorf("eu is %s, and yet: %+v", name, b)
		}
	}
}

// A region's own name leads to it for as long as it will do.
func TestNamedRegion(t *testing.T) {
	v := steeredView(t, "ap-1 serving", "eu-1 serving", "us-1 serving")
	s, _ := v.snapshot()
	c := &configs.Service{Steering: configs.Steering{Redirect: &configs.SteerRedirect{Names: map[string]string{"us": "us.web.test"}}}}
	if got := named(c, s, "us.web.test"); got != s.Region("us")+1 {
		t.Errorf("us.web.test is %d", got)
	}
	if got := named(c, s, "web.test") + named(nil, s, "us.web.test"); got != 0 {
		t.Errorf("a name of all is %d", got)
	}
	client := routing.Client{Point: routing.Point{Lat: 50, Lon: 8, Located: true}, Named: s.Region("us") + 1}
	if d := s.Decide(nil, s.Service("web"), client); s.Regions[d.Choices[0].Region].Name != "us" || d.Choices[0].Reason != routing.ByName || s.Regions[d.Choices[1].Region].Name != "eu" {
		t.Errorf("got %+v", d.Choices)
	}
	v.members[2].report.Pools["web"] = "down"
	s, _ = v.snapshot()
	if d := s.Decide(nil, s.Service("web"), client); s.Regions[d.Choices[0].Region].Name != "eu" || d.Choices[0].Reason != routing.Chosen {
		t.Errorf("with us down: %+v", d.Choices)
	}
}
