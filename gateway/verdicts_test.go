package gateway

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"landfall/configs"
	"landfall/healthcheck"
	"landfall/routing"
	"landfall/routing/mesh"
)

func TestForcesIn(t *testing.T) {
	now := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	good := force{Region: "eu", Service: "shop", State: "down", Reason: "works", By: "ann", Until: now.Add(time.Minute)}
	whole := force{Region: "eu", State: "up", Reason: "works", By: "ann", Until: now.Add(time.Minute)}
	over, odd, moved := good, good, good
	over.Until, odd.State = now, "sideways"
	var rs []mesh.Register
	add := func(key string, f force) {
		raw, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, mesh.Register{Key: key, Value: raw})
	}
	add(good.key(), good)
	add(whole.key(), whole)
	add(over.key(), over)
	add(odd.key(), odd)
	add("force/us", moved) // not what its key says
	rs = append(rs, mesh.Register{Key: "force/gone"}, mesh.Register{Key: "force/x", Value: []byte(`[]`)})
	if got := forcesIn(rs, now); len(got) != 2 || got[0] != good || got[1] != whole {
		t.Errorf("got %+v", got)
	}
	if good.key() != "force/eu/shop" || whole.key() != "force/eu" {
		t.Errorf("keys %s, %s", good.key(), whole.key())
	}
}

// What holds for all nodes of a region is said once.
func TestEvidenceIsSaidOnce(t *testing.T) {
	c, err := configs.Parse("x", []byte(threeRegions), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	v := view{config: c, now: time.Now()}
	for i, text := range []string{"ap-1 serving", "us-1 serving", "us-2 serving"} {
		v.members = append(v.members, told(t, text, map[bool]string{true: "ap-1"}[i == 0]))
	}
	_, facts := v.snapshot()
	if e := facts[2].evidence; strings.Count(e, "reached from") != 1 || facts[2].live != 2 {
		t.Errorf("%d live nodes: %s", facts[2].live, e)
	}
}

// A region's nodes vanish and come back: the snapshot follows at once, and back after the hold; a cut-off observer keeps
// what it knew.
func TestVerdictsInTheSnapshot(t *testing.T) {
	start := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	node := []routing.Node{{Name: "n"}}
	j := newJudging(healthcheck.Policy{Hold: 2 * time.Second, Distrust: 0.5})
	step := func(second int, seen string) (string, []string) { // a letter for each of a, b, c: u up, d down; home is up
		s := routing.Snapshot{Services: []routing.Service{{Name: "shop"}}}
		facts := []regionFacts{{live: 1, total: 1}}
		s.Regions = append(s.Regions, routing.Region{Name: "home", Nodes: node})
		s.Services[0].Places = append(s.Services[0].Places, routing.Place{HasPool: true, Pool: routing.Up})
		for i, letter := range seen {
			s.Regions = append(s.Regions, routing.Region{Name: "abc"[i : i+1], Nodes: node, Dead: letter == 'd'})
			facts = append(facts, regionFacts{total: 1, evidence: "seen"})
			s.Services[0].Places = append(s.Services[0].Places, routing.Place{HasPool: true, Pool: routing.Up})
		}
		var told []string
		for _, e := range j.weigh(view{now: start.Add(time.Duration(second) * time.Second)}, "home", &s, facts) {
			told = append(told, e[0])
		}
		out := ""
		for _, r := range s.Regions[1:] {
			out += map[bool]string{true: "d", false: "u"}[r.Dead]
		}
		return out, told
	}
	for second, c := range []struct{ seen, want, event string }{
		{"uuu", "uuu", ""}, {"duu", "duu", ""}, {"uuu", "duu", ""}, {"uuu", "duu", ""}, {"uuu", "uuu", ""},
		{"ddd", "uuu", "observer.isolated"}, {"ddd", "uuu", ""}, {"uuu", "uuu", "observer.back"},
	} {
		got, told := step(second, c.seen)
		if got != c.want || strings.Join(told, " ") != c.event {
			t.Errorf("second %d: seen %s, found %s %v; wanted %s %s", second, c.seen, got, told, c.want, c.event)
		}
	}
}

// A node that meets a region whose nodes are about to serve finds nothing about it yet, and finds it up as soon as one does;
// a region that was up before has to wait its hold out.
func TestVerdictsWhileAFleetStarts(t *testing.T) {
	c, err := configs.Parse("x", []byte(threeRegions), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	j := newJudging(healthcheck.Policy{Hold: 2 * time.Second, Distrust: 0.5})
	for second, x := range []struct {
		members string
		want    string // of eu and us
	}{
		{"ap-1 joining", "unknown unknown"},
		{"ap-1 joining; eu-1 joining; us-1 joining", "unknown unknown"},
		{"ap-1 serving; eu-1 serving; us-1 joining", "up unknown"},
		{"ap-1 serving; eu-1 serving; us-1 serving", "up up"},
		{"ap-1 serving; eu-1 serving; us-1 dead", "up down"},
		{"ap-1 serving; eu-1 serving; us-1 joining", "up down"},
		{"ap-1 serving; eu-1 serving; us-1 serving", "up down"},
	} {
		v := view{config: c, now: time.Unix(int64(second), 0), self: "ap"}
		v.weigh = func(s *routing.Snapshot, facts []regionFacts) {
			if events := j.weigh(v, "ap", s, facts); len(events) > 0 {
				t.Errorf("second %d: %v", second, events)
			}
		}
		for text := range strings.SplitSeq(x.members, "; ") {
			v.members = append(v.members, told(t, text, "ap-1"))
		}
		v.snapshot()
		got := j.judge.Verdict(healthcheck.Subject{Region: "eu"}).State.String() + " " + j.judge.Verdict(healthcheck.Subject{Region: "us"}).State.String()
		if got != x.want {
			t.Errorf("second %d: %s: found %s, not %s", second, x.members, got, x.want)
		}
	}
}
