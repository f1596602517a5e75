package mesh

import (
	"math"
	"slices"
	"testing"
	"time"
)

// globe gives pairs of regions the one-way delays of cables between places on the Earth, with detours of up to a third.
func (s *sim) globe() {
	type spot struct{ x, y, z float64 }
	at := map[string]spot{}
	way := map[[2]string]time.Duration{}
	regions := s.regions()
	for i, a := range regions {
		z, turn := 1.6*s.rng.Float64()-0.7, 2*math.Pi*s.rng.Float64() // hardly anybody lives near the south pole
		flat := math.Sqrt(1 - z*z)
		at[a] = spot{flat * math.Cos(turn), flat * math.Sin(turn), z}
		way[[2]string{a, a}] = 300 * time.Microsecond
		for _, b := range regions[:i] {
			p, q := at[a], at[b]
			km := 6371 * math.Acos(min(max(p.x*q.x+p.y*q.y+p.z*q.z, -1), 1))
			d := time.Duration((2 + km/200*(1+s.rng.Float64()/3)) * float64(time.Millisecond))
			way[[2]string{a, b}], way[[2]string{b, a}] = d, d
		}
	}
	s.oneWay = func(a, b string) time.Duration { return way[[2]string{a, b}] }
}

// placeErrors are how wrong the estimates of round trips are, as shares of the true ones, in order: of the pairs of nodes in
// different regions that never measured each other.
func (s *sim) placeErrors(unmeasured func(a, b *simNode) bool) (all []float64) {
	for _, a := range s.nodes {
		for _, b := range s.nodes {
			if a.region == b.region || !unmeasured(a, b) {
				continue
			}
			at := a.core.place.regions[b.region]
			if at == nil {
				all = append(all, math.Inf(1))
				continue
			}
			truth := 2.02 * s.oneWay(a.region, b.region).Seconds()
			guess := (&Coordinate{a.core.place.own}).Estimate(at).Seconds()
			all = append(all, math.Abs(guess-truth)/truth)
		}
	}
	slices.Sort(all)
	return all
}

// Nodes that never measured each other know about how far they are; two regions that can't reach each other at all, too.
// Once they know, they are silent.
func TestSimCoordinates(t *testing.T) {
	s := newSim(51)
	s.fleet(10, 3)
	s.globe()
	s.cuts[[2]string{"r00", "r01"}], s.cuts[[2]string{"r01", "r00"}] = true, true
	for _, n := range s.nodes {
		s.start(n)
	}
	s.run(s.now + 100*time.Second)
	apart := func(a, b *simNode) bool {
		return a.region == "r00" && b.region == "r01" || a.region == "r01" && b.region == "r00"
	}
	cut := s.placeErrors(apart)
	never := s.placeErrors(func(a, b *simNode) bool { m := a.core.members[b.name]; return m == nil || m.rtt.smoothed == 0 })
	median := func(all []float64) float64 { return all[len(all)/2] }
	t.Logf("after %s the estimates for %d pairs that never measured are off by %.1f%% in the median, for 9 of 10 by less than %.1f%%; for the %d pairs of two regions that are cut off from each other by %.1f%% in the median",
		s.now, len(never), 100*median(never), 100*never[len(never)*9/10], len(cut), 100*median(cut))
	if len(never) < 200 || median(never) > 0.1 || never[len(never)*9/10] > 0.3 || len(cut) != 18 || median(cut) > 0.3 {
		t.Error("the estimates are too far off")
	}
	for _, n := range s.nodes {
		if at := (&Coordinate{n.core.place.own}); !at.Settled() {
			t.Errorf("%s has not settled: %+v", n.name, at.At)
		}
	}
	tellings := func() (sum uint64) {
		for _, n := range s.nodes {
			sum += n.core.self.version
		}
		return sum
	}
	was := tellings()
	s.run(s.now + 40*time.Second)
	if told := tellings() - was; told > uint64(len(s.nodes)/2) {
		t.Errorf("nothing moves, and yet the %d nodes tell %d times of it in 40 s", len(s.nodes), told)
	}
}

// Equal seeds give equal coordinates.
func TestSimCoordinatesReplay(t *testing.T) {
	run := func() (all []float64) {
		s := newSim(52)
		s.fleet(3, 2)
		for _, n := range s.nodes {
			s.start(n)
		}
		s.run(s.now + 25*time.Second)
		for _, n := range s.nodes {
			all = append(all, n.core.place.own.Vec...)
		}
		return all
	}
	if first, second := run(), run(); !slices.Equal(first, second) {
		t.Errorf("%v is not %v", first, second)
	}
}
