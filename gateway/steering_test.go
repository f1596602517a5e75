package gateway

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/serf/coordinate"

	"landfall/configs"
	"landfall/routing"
	"landfall/routing/mesh"
)

const steeredFleet = `
regions:
  ap: {location: [1.35, 103.99], capacity: 100, jurisdictions: [sg]}
  eu: {location: [53.35, -6.26], capacity: 300, jurisdictions: [eu]}
  us: {location: [38.95, -77.45], capacity: 200, jurisdictions: [us]}
services:
  bank:
    hosts: [bank.test]
    residency: [{clients: [EU], jurisdictions: [eu], strict: true}, {clients: [unknown], jurisdictions: [us]}]
    pools: {any: {origins: ["http://127.0.0.1:1"]}}
  shop:
    hosts: [shop.test]
    steering: {policy: priority, order: [us, ap]}
    pools: {any: {origins: ["http://127.0.0.1:1"]}}
  web:
    hosts: [web.test]
    pools: {any: {origins: ["http://127.0.0.1:1"]}}
`

func steeredView(t *testing.T, members ...string) view {
	t.Helper()
	c, err := configs.Parse("x", []byte(steeredFleet), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	v := view{config: c, now: time.Unix(1_800_000_000, 0)}
	for _, text := range members {
		m := told(t, text, "eu-1")
		m.report.Pools = map[string]string{"bank": "up", "shop": "up", "web": "up"}
		v.members = append(v.members, m)
	}
	return v
}

// where is the order of a service's candidates for a client of a country, who is in the middle of Europe.
func where(s *routing.Snapshot, service, country string) string {
	d := s.Decide(nil, s.Service(service), routing.Client{Point: routing.Point{Lat: 50, Lon: 8, Located: true}, Key: 5, Country: routing.CountryOf(country)})
	var out []string
	for i, c := range d.Choices {
		if i == d.Usable {
			out = append(out, "|")
		}
		out = append(out, s.Regions[c.Region].Name+":"+c.Reason.String())
	}
	return strings.Join(out, " ")
}

func TestSnapshotOfSteering(t *testing.T) {
	v := steeredView(t, "ap-1 serving", "eu-1 serving", "eu-2 serving", "us-1 serving")
	s, _ := v.snapshot()
	for _, c := range []struct{ service, country, want string }{
		{"bank", "DE", "eu:chosen | us:residency ap:residency"},
		{"bank", "", "us:chosen eu:residency_prefers ap:residency_prefers"},
		{"bank", "US", "eu:chosen us:farther ap:farther"},
		{"shop", "DE", "us:chosen ap:later_in_order eu:later_in_order"},
	} {
		if got := where(s, c.service, c.country); got != c.want {
			t.Errorf("%s for %q: %s, want %s", c.service, c.country, got, c.want)
		}
	}
	// Residency holds even when nothing else is left: the answer is the region's own, down as it is.
	v.members[1].report.Pools["bank"], v.members[2].report.Pools["bank"] = "down", "down"
	s, _ = v.snapshot()
	if got := where(s, "bank", "DE"); got != "eu:chosen | us:residency ap:residency" {
		t.Errorf("with eu down: %s", got)
	}
}

func TestGradualDrainGrows(t *testing.T) {
	v := steeredView(t, "ap-1 serving", "eu-1 serving", "us-1 serving")
	v.drains = []Drain{{Kind: kindRegion, Name: "eu", Since: v.now, Over: 10 * time.Minute}, {Kind: kindService, Name: "bank/us", Since: v.now}}
	for minutes, want := range map[int]float64{0: 0, 3: 0.3, 10: 1, 20: 1} {
		at := v
		at.now = v.now.Add(time.Duration(minutes) * time.Minute)
		s, _ := at.snapshot()
		if eu := s.Regions[s.Region("eu")]; math.Abs(eu.Draining-want) > 1e-9 || eu.Drained != (want == 1) {
			t.Errorf("after %d minutes: share %g, drained %t", minutes, eu.Draining, eu.Drained)
		}
		if p := s.Services[s.Service("bank")].Places[s.Region("us")]; p.Drained != 1 {
			t.Errorf("the service's drain: %+v", p)
		}
		if p := s.Services[s.Service("shop")].Places[s.Region("us")]; p.Drained != 0 {
			t.Errorf("another service: %+v", p)
		}
	}
}

func TestLoadAndSpillComeFromTheReports(t *testing.T) {
	v := steeredView(t, "ap-1 serving", "eu-1 serving", "eu-2 serving", "eu-3 serving stale", "us-1 serving")
	for i, m := range v.members {
		if m.Region == "eu" {
			v.members[i].report.Load = 120
			v.members[i].report.Spill = map[string]spillReport{"bank": {Share: float64(i) / 10, Beyond: 7000, Fit: 0.5}}
			v.members[i].report.Strain = map[string]strainReport{"bank": {Waiting: 5, Stretch: float64(i)}}
		}
	}
	s, _ := v.snapshot()
	eu := s.Region("eu")
	if r := s.Regions[eu]; r.Load != 240 || r.Capacity != 300 {
		t.Errorf("eu has %g of %g", r.Load, r.Capacity)
	}
	// The first by name speaks for its region.
	if p := s.Services[s.Service("bank")].Places[eu]; p.Spill != 0.1 {
		t.Errorf("spill %g", p.Spill)
	}
	if p := s.Services[s.Service("bank")].Places[eu]; p.SpillBeyond != 7000 || p.Strain != (routing.Strain{Waiting: 10, Stretch: 1.5, Fit: 0.5}) {
		t.Errorf("place %+v", p)
	}
	if !roomElsewhere(s, s.Service("bank"), eu, 0.8) {
		t.Error("the others have room")
	}
}

func TestRunTimeWeights(t *testing.T) {
	v := steeredView(t, "ap-1 serving", "eu-1 serving", "us-1 serving")
	v.weights = []Weight{{Service: "bank", Region: "eu", Weight: 0}}
	s, _ := v.snapshot()
	if got := where(s, "bank", "US"); got != "us:chosen ap:farther eu:weight_zero" {
		t.Errorf("got %s", got)
	}
}

// A drain or a weight that leaves too little is refused, with the figure that is missing.
func TestGuards(t *testing.T) {
	v := steeredView(t, "ap-1 serving", "eu-1 serving", "us-1 serving")
	for i := range v.members {
		v.members[i].report.Load = 130
	}
	before, _ := v.snapshot()
	n := &Node{}
	n.snapshot.Store(before)
	drained := v
	drained.drains = []Drain{{Kind: kindRegion, Name: "eu", Since: v.now}}
	if got := n.leftWithout(drained, "draining region eu"); !strings.Contains(got, "capacity of 300 requests/s for a load of 390: 90 are missing") {
		t.Errorf("got %q", got)
	}
	drained.drains[0].Name = "ap"
	if got := n.leftWithout(drained, "draining region ap"); got != "" {
		t.Errorf("refused: %s", got)
	}
	none := v
	for _, r := range []string{"ap", "eu", "us"} {
		none.weights = append(none.weights, Weight{Service: "shop", Region: r, Weight: 0})
	}
	if got := n.leftWithout(none, "weight 0"); !strings.Contains(got, "no other region up for service shop") {
		t.Errorf("got %q", got)
	}
}

func TestDrainShare(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	d := Drain{Since: now, Over: time.Minute}
	var got []string
	for _, after := range []time.Duration{-time.Second, 0, 15 * time.Second, time.Minute, time.Hour} {
		got = append(got, fmt.Sprint(d.share(now.Add(after))))
	}
	if want := "0 0 0.25 1 1"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// A region that nobody measured has the estimate, until it is measured; then never again.
func TestEstimatedRTT(t *testing.T) {
	if got := steadyRTT(nil, []member{told(t, "us-1 serving", "eu-1")}); len(got) > 0 {
		t.Errorf("without coordinates: %v", got)
	}
	at := func(miss, seconds float64) *mesh.Coordinate {
		c := coordinate.NewCoordinate(coordinate.DefaultConfig())
		c.Error, c.Vec[3] = miss, seconds
		return &mesh.Coordinate{At: c}
	}
	near, far := at(0.1, 0.01), at(0.1, 0.07)
	self, other := member{}, told(t, "us-1 serving", "eu-1")
	self.Name, self.Region, self.Self, self.Coordinate, other.Coordinate = "eu-1", "eu", true, near, far
	members := []member{self, other}
	got := steadyRTT(nil, members)
	if p := got["us"]; !p.estimated || p.millis < 60 || p.millis > 62 || len(got) != 1 {
		t.Fatalf("with coordinates: %+v", got)
	}
	regions := []routing.Region{{Name: "eu"}, {Name: "us"}}
	if rows, estimated := (view{self: "eu", peers: got}).peerRTT(regions); rows[0][1] != uint32(got["us"].millis*1000) || !estimated[0][1] || estimated[1][0] || estimated[0][0] {
		t.Errorf("in the snapshot: %v, %v", rows, estimated)
	}
	members[1].RTT = 62 * time.Millisecond
	if got = steadyRTT(got, members); got["us"] != (peerRTT{millis: 62}) {
		t.Errorf("once measured: %+v", got)
	}
	members[1].RTT = 0
	if got = steadyRTT(got, members); got["us"] != (peerRTT{millis: 62}) {
		t.Errorf("once the link is lost: %+v", got)
	}
	members[1].Coordinate = at(0.9, 0.07)
	if got = steadyRTT(nil, members); len(got) > 0 {
		t.Errorf("before it settles: %+v", got)
	}
}

// Round trips between regions that jitter change nothing; those that move do.
func TestSteadyRTT(t *testing.T) {
	rtt := func(ms float64) []member {
		m := told(t, "us-1 serving", "eu-1")
		m.RTT = time.Duration(ms * float64(time.Millisecond))
		return []member{m}
	}
	last := steadyRTT(nil, rtt(80))
	for _, step := range []struct{ ms, want float64 }{{85, 80}, {98, 80}, {0, 80}, {140, 140}, {120, 140}, {90, 90}} {
		if last = steadyRTT(last, rtt(step.ms)); last["us"] != (peerRTT{millis: step.want}) {
			t.Errorf("at %g ms: %+v, want %g", step.ms, last["us"], step.want)
		}
	}
}
