package routing

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// randomFleet is a fleet of n regions in all states, as the generator has it; some stand at one place.
func randomFleet(rng *rand.Rand, n int) *Snapshot {
	s := Snapshot{Panic: rng.Float64(), AllDown: -1, Services: []Service{{Policy: Policy(rng.IntN(3))}}}
	bad := rng.IntN(4) == 0 // a fleet in trouble has every exception
	odd := func(one int) bool { return rng.IntN(one) == 0 && (bad || rng.IntN(4) == 0) }
	for i := range n {
		at := Point{rng.Float64()*180 - 90, rng.Float64()*360 - 180, !odd(6)}
		if i > 0 && rng.IntN(10) == 0 {
			at = s.Regions[i-1].Location
		}
		s.Regions = append(s.Regions, Region{Name: fmt.Sprintf("r%02d", i), Location: at, Drained: odd(4), Dead: odd(4), Nodes: []Node{{Name: "n"}}})
		p := Place{HasPool: !odd(6), Weight: uint16(rng.IntN(4)), Order: uint8(rng.IntN(3))}
		if odd(4) {
			p.Pool = State(1 + 2*rng.IntN(2))
		}
		if odd(3) {
			p.Spill, p.Drained, p.SpillBeyond = rng.Float64(), rng.Float64()/2, uint32(rng.IntN(2)*60000)
		}
		s.Services[0].Places = append(s.Services[0].Places, p)
	}
	return NewSnapshot(s)
}

// However the keys are sorted, the order is the one that the naive ranking finds: in fleets of every size, for clients of
// whom the place, round trips or nothing is known.
func TestLargeFleetsAgreeWithNaive(t *testing.T) {
	for _, n := range []int{1, 9, 30, stackRegions, stackRegions + 1} {
		rng := rand.New(rand.NewPCG(uint64(n), 7))
		for range 60 {
			s := randomFleet(rng, n)
			for range 20 {
				c := Client{Key: rng.Uint64(), Point: Point{rng.Float64()*180 - 90, rng.Float64()*360 - 180, rng.IntN(4) > 0}}
				if rng.IntN(2) == 0 {
					c.RTT = make([]RTT, n)
					for i := range c.RTT {
						c.RTT[i] = RTT{uint32(rng.IntN(2) * rng.IntN(400_000)), Measured}
					}
				}
				d := s.Decide(nil, 0, c)
				var got []int
				for _, ch := range d.Choices[:d.Usable] {
					got = append(got, ch.Region)
				}
				if want := naive(s, 0, c); !slices.Equal(got, want) {
					t.Fatalf("%d regions, client %+v: candidates %v, want %v", n, c, got, want)
				}
				seen := map[int]bool{}
				for _, ch := range d.Choices {
					seen[ch.Region] = true
				}
				if len(seen) != n {
					t.Fatalf("%d of %d regions have a choice", len(seen), n)
				}
			}
		}
	}
}

// The grid's order is only a start: places at its edges and poles, and off it, are ranked right.
func TestTheGridCoversTheEarth(t *testing.T) {
	s := fleet(30, true)
	for _, p := range []Point{{90, 0, true}, {-90, 180, true}, {0, -180, true}, {89.999, 179.999, true}, {12, 300, true}, {-100, -400, true}} {
		c := Client{Point: p}
		if d := s.Decide(nil, 0, c); d.Choices[0].Region != naive(s, 0, c)[0] {
			t.Errorf("from %+v: %+v", p, d.Choices[0])
		}
	}
}

// What a node pays each time that it publishes a snapshot.
func BenchmarkNewSnapshot(b *testing.B) {
	s := fleet(30, true)
	b.ReportAllocs()
	for b.Loop() {
		NewSnapshot(*s)
	}
}
