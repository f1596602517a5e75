package routing

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A region that is drained, down or forbidden is never first while another one will do.
func TestNeverABadRegionWhileAnotherWillDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		c := drawClient(t, s)
		d := s.Decide(nil, 0, c)
		if d.Usable == 0 {
			return
		}
		first := d.Choices[0]
		if s.Forbidden(0, first.Region, c.Country) {
			t.Fatalf("%+v is forbidden", first)
		}
		for i := range s.Regions {
			cs := slices.Clone(s.ready[0].choices)
			s.personal(cs, &s.ready[0], &s.Services[0], s.Services[0].rule(c.Country), &c, c.Point.vector())
			good := cs[i]
			if good.tier == tierUp && !s.Forbidden(0, i, c.Country) && first.State != Up && d.Mode != PanicMode {
				t.Fatalf("%+v is first though region %d is up", first, i)
			}
			if good.tier <= tierWeightZero && !s.Forbidden(0, i, c.Country) && first.State == Draining {
				t.Fatalf("%+v is drained though region %d is not", first, i)
			}
		}
	})
}

// A gradual drain moves a growing share, and each client once: away, and not back while it lasts.
func TestGradualDrainIsMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := fleet(rapid.IntRange(2, 6).Draw(t, "regions"), rapid.Bool().Draw(t, "located"))
		drained := rapid.IntRange(0, len(s.Regions)-1).Draw(t, "which")
		c := Client{Key: rapid.Uint64().Draw(t, "key"), Point: drawPoint(t)}
		before := s.Decide(nil, 0, c).Choices[0].Region
		last, moves := before, 0
		for step := range 21 {
			regions := slices.Clone(s.Regions)
			regions[drained].Draining = float64(step) / 20
			next := NewSnapshot(Snapshot{Regions: regions, Services: s.Services, Panic: 0.5, AllDown: -1})
			now := next.Decide(nil, 0, c).Choices[0].Region
			if now != last {
				moves++
			}
			if before != drained && now != before {
				t.Fatalf("a client of region %d moved by the drain of %d", before, drained)
			}
			last = now
		}
		if before == drained && (last == drained || moves != 1) {
			t.Fatalf("the client moved %d times and is in %d at the end", moves, last)
		}
	})
}

func TestDrainedShareIsTheShareAsked(t *testing.T) {
	s := fleet(4, true)
	s.Regions[1].Draining = 0.3
	s.Services[0].Places[2].Spill = 0.6
	s = NewSnapshot(*s)
	var at, moved [4]float64
	for key := range uint64(40000) {
		c := Client{Key: mix(key), Point: Point{math.Mod(float64(key)*0.37, 120) - 60, math.Mod(float64(key)*1.7, 360) - 180, true}}
		plain := fleet(4, true).Decide(nil, 0, c).Choices[0].Region
		at[plain]++
		if now := s.Decide(nil, 0, c).Choices[0].Region; now != plain {
			moved[plain]++
		}
	}
	for i, want := range []float64{0, 0.3, 0.6, 0} {
		if got := moved[i] / at[i]; math.Abs(got-want) > 0.02 {
			t.Errorf("region %d gave %.3f of its clients away, want %.2f", i, got, want)
		}
	}
}

// When all regions are full nobody is refused, and the nearest takes them.
func TestAllFull(t *testing.T) {
	s := fleet(5, true)
	c := Client{Key: 7, Point: Point{48, 2, true}}
	nearest := s.Decide(nil, 0, c).Choices[0].Region
	for i := range s.Services[0].Places {
		s.Services[0].Places[i].Spill = 1
	}
	s = NewSnapshot(*s)
	d := s.Decide(nil, 0, c)
	if d.Choices[0].Region != nearest || d.Choices[0].Reason != FullToo || d.Usable != 5 || d.Mode != Normal {
		t.Errorf("got %+v, want %d first", d, nearest)
	}
}

// Exploring is bounded: only to an up runner-up, within the detour, and never against residency.
func TestExploreIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		c := drawClient(t, s)
		plain := s.Decide(nil, 0, c)
		c.Explore = true
		d := s.Decide(nil, 0, c)
		if d.Usable == 0 || d.Choices[0].Region == plain.Choices[0].Region {
			return
		}
		first := d.Choices[0]
		if s.Services[0].rule(c.Country) != nil || first.State != Up || d.Mode != Normal || first.Region != plain.Choices[1].Region {
			t.Fatalf("explored %+v instead of %+v", first, plain.Choices[0])
		}
		near, _ := plain.Choices[0].RTTMillis()
		if far, ok := first.RTTMillis(); !ok || far > near+math.Max(near*detourShare, detourMillis) {
			t.Fatalf("a detour from %g to %g ms", near, far)
		}
	})
}

// A region that is asked for by its own name comes first exactly where it is as usable as the best, and the others keep
// their order.
func TestByNameChangesTheFirstOnly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		c := drawClient(t, s)
		plain := s.Decide(nil, 0, c)
		c.Named = rapid.IntRange(1, len(s.Regions)).Draw(t, "named")
		d := s.Decide(nil, 0, c)
		if d.Usable != plain.Usable || d.Mode != plain.Mode {
			t.Fatalf("%d usable in mode %v, without the name %d in %v", d.Usable, d.Mode, plain.Usable, plain.Mode)
		}
		rest := func(cs []Choice) (out []int) {
			for _, ch := range cs {
				if ch.Region != c.Named-1 {
					out = append(out, ch.Region)
				}
			}
			return out
		}
		if !slices.Equal(rest(d.Choices), rest(plain.Choices)) {
			t.Fatalf("the others' order changed from %+v to %+v", plain, d)
		}
		at := slices.IndexFunc(plain.Choices, func(ch Choice) bool { return ch.Region == c.Named-1 })
		same := at < plain.Usable && plain.Choices[at].tier == plain.Choices[0].tier && plain.Choices[at].State == plain.Choices[0].State
		if first := d.Usable > 0 && d.Choices[0].Region == c.Named-1; first != (at == 0 && d.Usable > 0) && !same {
			t.Fatalf("%+v is first, %+v before", d.Choices[0], plain.Choices)
		}
	})
}

func TestMeasuredBeatsGeography(t *testing.T) {
	s := fleet(3, true)
	c := Client{Key: 1, Point: s.Regions[0].Location}
	if d := s.Decide(nil, 0, c); d.Choices[0].Region != 0 || d.Choices[0].Source != Geography {
		t.Fatalf("got %+v", d.Choices[0])
	}
	c.RTT = []RTT{{250_000, Measured}, {20_000, Measured}, {}}
	if d := s.Decide(nil, 0, c); d.Choices[0].Region != 1 || d.Choices[0].Source != Measured {
		t.Fatalf("got %+v", d.Choices[0])
	}
	c = Client{Key: 1, Via: 3}
	s.PeerRTT = [][]uint32{{0, 1, 1}, {1, 0, 1}, {90_000, 40_000, 0}}
	d := s.Decide(nil, 0, c)
	if got := fmt.Sprint(d.Choices[0].Region, d.Choices[1].Region, d.Choices[2].Region, d.Choices[1].Source); got != "2 1 0 peer_rtt" {
		t.Errorf("by peers: %s", got)
	}
	s.Estimated = [][]bool{nil, nil, {true, false, false}}
	d = s.Decide(nil, 0, c)
	if got := fmt.Sprint(d.Choices[1].Region, d.Choices[1].Source, d.Choices[2].Region, d.Choices[2].Source); got != "1 peer_rtt 0 coordinates" {
		t.Errorf("by coordinates: %s", got)
	}
}
