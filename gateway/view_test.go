package gateway

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"landfall/configs"
	"landfall/routing"
	"landfall/routing/mesh"
)

const threeRegions = `
regions: {ap: {location: [1.35, 103.99]}, eu: {location: [53.35, -6.26]}, us: {location: [38.95, -77.45]}}
services:
  shop:
    hosts: [shop.test]
    steering: {weights: {us: 3}}
    pools: {eu: {origins: ["http://127.0.0.1:1"]}, us: {origins: ["http://127.0.0.1:1"]}}
  web: {hosts: ["*"], pools: {any: {origins: ["http://127.0.0.1:1"]}}}
`

// told is a member in a few words: "eu-1 serving shop=up,web=down", "us-1 dead", "eu-1 serving !us-1" (unreachable from
// it), "ap-1 serving unreachable" (from here), "ap-1 serving stale".
func told(t *testing.T, text string, self string) member {
	words := strings.Fields(text)
	name := words[0]
	region, _, _ := strings.Cut(name, "-")
	m := member{Member: mesh.Member{Name: name, Region: region, State: mesh.NodeState(words[1]), Reachable: words[1] != "dead", Self: name == self, Linked: name != self,
		Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, fresh: words[1] != "dead", report: report{Pools: map[string]string{"shop": "up", "web": "up"}}}
	for _, w := range words[2:] {
		switch {
		case w == "unreachable":
			m.Reachable = false
		case w == "stale":
			m.fresh = false
		case strings.HasPrefix(w, "!"):
			m.Unreachable = append(m.Unreachable, w[1:])
		case strings.Contains(w, "="):
			for pair := range strings.SplitSeq(w, ",") {
				service, state, _ := strings.Cut(pair, "=")
				m.report.Pools[service] = state
			}
		default:
			t.Fatalf("%q?", w)
		}
	}
	return m
}

// shown is a snapshot in a few words: each region's verdict and nodes, then the services' pools there.
func shown(s *routing.Snapshot) string {
	var out []string
	for i, r := range s.Regions {
		state := "up"
		if r.Dead {
			state = "dead"
		} else if r.Drained {
			state = "drained"
		}
		var nodes []string
		for _, n := range r.Nodes {
			nodes = append(nodes, strings.TrimPrefix(n.Name, r.Name+"-"))
		}
		text := fmt.Sprintf("%s %s[%s]", r.Name, state, strings.Join(nodes, " "))
		for _, svc := range s.Services {
			if p := svc.Places[i]; p.HasPool {
				text += " " + svc.Name + "=" + p.Pool.String()
			}
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

func TestSnapshot(t *testing.T) {
	c, err := configs.Parse("x", []byte(threeRegions), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	const apUp, euUp, usUp = "ap up[1] web=up", "eu up[1] shop=up web=up", "us up[1] shop=up web=up"
	for _, x := range []struct {
		name    string
		members string // by semicolons; the first is this node
		drains  string // "region eu", "node us-1"
		quorum  string
		want    string
	}{
		{"all serve", "ap-1 serving; eu-1 serving; us-1 serving", "", "", apUp + "; " + euUp + "; " + usUp},
		{"a node is dead", "ap-1 serving; eu-1 serving; us-1 dead; us-2 serving", "", "", apUp + "; " + euUp + "; us up[2] shop=up web=up"},
		{"a node of a living region fell silent a moment ago", "ap-1 serving; eu-1 serving !us-1; us-1 serving unreachable; us-2 serving !us-1", "", "",
			apUp + "; " + euUp + "; us up[2] shop=up web=up"},
		{"the same where all nodes are of one region", "us-3 serving; us-1 serving unreachable; us-2 serving !us-1", "", "",
			"ap dead[] web=unknown; eu dead[] shop=unknown web=unknown; us up[2 3] shop=up web=up"},
		{"a region is dead: the last nodes that were known stay named", "ap-1 serving; eu-1 serving; us-1 dead; us-2 dead", "", "",
			apUp + "; " + euUp + "; us dead[1 2] shop=unknown web=unknown"},
		{"a region nobody ever heard of", "ap-1 serving; eu-1 serving", "", "", apUp + "; " + euUp + "; us dead[] shop=unknown web=unknown"},
		{"a region is drained", "ap-1 serving; eu-1 serving; us-1 serving", "region us", "", apUp + "; " + euUp + "; us drained[1] shop=up web=up"},
		{"a drained region's nodes say so", "ap-1 serving; eu-1 serving; us-1 draining", "region us", "", apUp + "; " + euUp + "; us drained[1] shop=up web=up"},
		{"a node is drained, another is left", "ap-1 serving; eu-1 serving; us-1 serving; us-2 serving", "node us-1", "", apUp + "; " + euUp + "; us up[2] shop=up web=up"},
		{"a region's only node is drained", "ap-1 serving; eu-1 serving; us-1 serving", "node us-1", "", apUp + "; " + euUp + "; us drained[1] shop=up web=up"},
		{"a node leaves, another is left", "ap-1 serving; eu-1 serving; us-1 leaving; us-2 serving", "", "", apUp + "; " + euUp + "; us up[2] shop=up web=up"},
		{"a region's only node leaves: that is not death", "ap-1 serving; eu-1 serving; us-1 leaving", "", "", apUp + "; " + euUp + "; us drained[1] shop=up web=up"},
		{"a node joins, another serves", "ap-1 serving; eu-1 serving; us-1 joining; us-2 serving", "", "", apUp + "; " + euUp + "; us up[2] shop=up web=up"},
		{"a region's only node joins: it is named at the worst", "ap-1 serving; eu-1 serving; us-1 joining", "", "", apUp + "; " + euUp + "; us dead[1] shop=up web=up"},
		{"it is better than one that is gone", "ap-1 serving; eu-1 serving; us-1 dead; us-2 joining", "", "", apUp + "; " + euUp + "; us dead[2] shop=up web=up"},
		{"this node is alone and joins", "ap-1 joining", "", "", "ap dead[1] web=up; eu dead[] shop=unknown web=unknown; us dead[] shop=unknown web=unknown"},
		{"a pool is down", "ap-1 serving; eu-1 serving shop=down; us-1 serving", "", "", apUp + "; eu up[1] shop=down web=up; " + usUp},
		{"one node of two can't reach the origins", "ap-1 serving; eu-1 serving shop=down; eu-2 serving; us-1 serving", "", "", apUp + "; eu up[1 2] shop=up web=up; " + usUp},
		{"a report is stale", "ap-1 serving; eu-1 serving shop=down stale; us-1 serving", "", "", apUp + "; eu up[1] shop=unknown web=unknown; " + usUp},
		{"a word of another version", "ap-1 serving; eu-1 serving shop=splendid; us-1 serving", "", "", apUp + "; eu up[1] shop=unknown web=up; " + usUp},
		{"a dead node's report counts for nothing", "ap-1 serving; eu-1 dead shop=up; us-1 serving", "", "", apUp + "; eu dead[1] shop=unknown web=unknown; " + usUp},

		{"one of two other regions can't reach a node", "ap-1 serving; eu-1 serving !us-1; us-1 serving", "", "majority", apUp + "; " + euUp + "; " + usUp},
		{"both can't", "ap-1 serving; eu-1 serving !us-1; us-1 serving unreachable", "", "majority", apUp + "; " + euUp + "; us dead[1] shop=unknown web=unknown"},
		{"one is enough for any", "ap-1 serving; eu-1 serving !us-1; us-1 serving", "", "any", apUp + "; " + euUp + "; us dead[1] shop=unknown web=unknown"},
		{"one is not enough for all", "ap-1 serving; eu-1 serving !us-1; us-1 serving", "", "all", apUp + "; " + euUp + "; " + usUp},
		{"its own region's voice does not count", "ap-1 serving; eu-1 serving; us-1 serving; us-2 serving !us-1", "", "any", apUp + "; " + euUp + "; us up[1 2] shop=up web=up"},
		{"an observer that is cut off has no voice", "ap-1 serving; eu-1 serving !us-1 unreachable; us-1 serving !eu-1", "", "majority", apUp + "; eu dead[1] shop=unknown web=unknown; " + usUp},
		{"this node that is cut off is no quorum", "ap-1 serving; eu-1 serving unreachable; us-1 serving unreachable", "", "majority",
			apUp + "; " + euUp + "; " + usUp},
		{"until the others are dead to it", "ap-1 serving; eu-1 dead; us-1 dead", "", "majority",
			apUp + "; eu dead[1] shop=unknown web=unknown; us dead[1] shop=unknown web=unknown"},
		{"this node never thinks itself dead", "ap-1 serving; eu-1 serving !ap-1; us-1 serving !ap-1", "", "any", apUp + "; " + euUp + "; " + usUp},
		{"a region that the config does not know", "ap-1 serving; eu-1 serving; us-1 serving; mars-1 serving", "", "", apUp + "; " + euUp + "; " + usUp},
	} {
		v := view{config: c, now: time.Now(), version: 7}
		for i, text := range strings.Split(x.members, "; ") {
			self := ""
			if i == 0 {
				self = strings.Fields(text)[0]
			}
			v.members = append(v.members, told(t, text, self))
		}
		if kind, name, ok := strings.Cut(x.drains, " "); ok {
			v.drains = []Drain{{Kind: kind, Name: name}}
		}
		c := *c
		if x.quorum != "" {
			c.Health.Quorum = x.quorum
		}
		v.config = &c
		s, facts := v.snapshot()
		if got := shown(s); got != x.want {
			t.Errorf("%s:\n got %s\nwant %s", x.name, got, x.want)
		}
		if s.Version != 7 || s.AllDown != -1 || len(facts) != 3 || s.Services[0].Places[2].Weight != 3 || s.Services[0].Places[1].Weight != 1 {
			t.Errorf("%s: %+v %+v", x.name, s, facts)
		}
	}
}

func TestSnapshotAllDownRegion(t *testing.T) {
	c, err := configs.Parse("x", []byte(threeRegions+"health: {all_down: us, panic: 70%}\n"), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := view{config: c}.snapshot()
	if s.Regions[s.AllDown].Name != "us" || s.Panic != 0.7 || !s.Regions[0].Location.Located {
		t.Errorf("%+v", s)
	}
}

func TestDrainsIn(t *testing.T) {
	now := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	registers := []mesh.Register{
		{Key: "drain/region/us", Value: []byte(`{"kind":"region","name":"us","since":"2026-09-01T11:00:00Z"}`)},
		{Key: "drain/node/eu-1", Value: []byte(`{"kind":"node","name":"eu-1","until":"2026-09-01T12:00:01Z","future":1}`)},
		{Key: "drain/node/eu-2", Value: []byte(`{"kind":"node","name":"eu-2","until":"2026-09-01T12:00:00Z"}`)}, // over
		{Key: "drain/node/eu-3"}, // deleted
		{Key: "drain/node/eu-4", Value: []byte(`{"kind":"node","name":"eu-5"}`)}, // not what its key says
		{Key: "drain/node/eu-6", Value: []byte(`[]`)},
	}
	var got []string
	for _, d := range drainsIn(registers, now) {
		got = append(got, d.key())
	}
	if strings.Join(got, " ") != "drain/node/eu-1 drain/region/us" {
		t.Error(got)
	}
}

func TestRate(t *testing.T) {
	var r rate
	now := time.Now()
	r.tick(now)
	for range 40 {
		r.count.Add(25)
		now = now.Add(250 * time.Millisecond)
		r.tick(now)
	}
	if v := r.value(); v < 95 || v > 101 {
		t.Errorf("100 requests/s are shown as %g", v)
	}
	r.tick(now) // no time passed
	for range 80 {
		now = now.Add(250 * time.Millisecond)
		r.tick(now)
	}
	if v := r.value(); v > 0.1 {
		t.Errorf("silence is shown as %g", v)
	}
}
