package routing

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// worldwide are clients all over, of whom a share is not located.
func worldwide(n int, unknown float64) []Client {
	var out []Client
	for k := range n {
		key := mix(uint64(k))
		c := Client{Key: key, Point: Point{math.Mod(float64(k)*0.37, 120) - 60, math.Mod(float64(k)*1.7, 360) - 180, true}}
		if float64(k%100) < unknown*100 {
			c.Point = Point{}
		}
		out = append(out, c)
	}
	return out
}

// What a region sends on is the share asked, the farthest of its clients before the nearer ones, and a growing share only
// adds to those who were sent on before.
func TestTheFarthestAreSentOnFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := fleet(4, true)
		clients := worldwide(4000, rapid.SampledFrom([]float64{0, 0.2, 1}).Draw(t, "unknown"))
		var far Distances
		var own []Client
		for _, c := range clients {
			if s.Decide(nil, 0, c).Choices[0].Region == 1 {
				far.Add(s, 1, &c, 1)
				own = append(own, c)
			}
		}
		far.Tick(time.Second, 0)
		was := map[uint64]bool{}
		for _, share := range []float64{0.1, 0.35, 0.7, 0.9} {
			s.Services[0].Places[1].Spill, s.Services[0].Places[1].SpillBeyond = share, far.Beyond(share)
			s = NewSnapshot(*s)
			gone, nearestGone, farthestLeft := 0.0, math.Inf(1), 0.0
			for _, c := range own {
				cost, known := s.clientCost(1, &c, c.Point.vector())
				if s.Decide(nil, 0, c).Choices[0].Region != 1 {
					gone++
					was[c.Key] = true
					if known {
						nearestGone = min(nearestGone, float64(cost))
					}
				} else {
					if was[c.Key] {
						t.Fatalf("client %x came back while the share grew", c.Key)
					}
					if known {
						farthestLeft = max(farthestLeft, float64(cost))
					}
				}
			}
			if got := gone / float64(len(own)); math.Abs(got-share) > 0.06 {
				t.Fatalf("%.2f were sent on, want %.2f", got, share)
			}
			if farthestLeft > nearestGone*(1+distanceSpread)/(1-distanceSpread)*1.02 && far.Beyond(share) > 0 {
				t.Fatalf("at %.2f one at %.0f us stays while one at %.0f us is sent on", share, farthestLeft, nearestGone)
			}
		}
	})
}

func TestDistancesSayNothingOfTooFew(t *testing.T) {
	s, c := fleet(2, true), Client{Point: Point{10, 10, true}}
	var h Distances
	for range minDistances - 1 {
		h.Add(s, 0, &c, 1)
	}
	h.Tick(time.Second, 0)
	if h.Beyond(0.5) != 0 {
		t.Error("too few clients, and yet a distance")
	}
	h.Add(s, 0, &c, 2)
	if h.Beyond(0.5) == 0 || h.Beyond(0) != 0 {
		t.Errorf("got %d and %d", h.Beyond(0.5), h.Beyond(0))
	}
	// Those that are sent on stay known; once nobody is, those that no longer come are forgotten.
	h.Tick(time.Second, 0)
	edge := h.Beyond(0.99)
	near := Client{Point: s.Regions[0].Location}
	for range 600 {
		h.Add(s, 0, &near, 1)
		h.Tick(time.Second, edge)
	}
	kept := h.Beyond(0.2)
	for range 600 {
		h.Add(s, 0, &near, 1)
		h.Tick(time.Second, 0)
	}
	if forgot := h.Beyond(0.2); kept < edge || forgot >= edge {
		t.Errorf("beyond %d us: kept %d, later %d", edge, kept, forgot)
	}
}

// A region whose latency doubles before its capacity is reached is found to take less, keeps to that while the rush lasts,
// and its load does not swing; afterwards it is believed again.
func TestLatencyCorrectsTheCapacity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		truth := rapid.Float64Range(0.4, 1.3).Draw(t, "what it can take")
		lag := 20 * time.Second
		p := plant{demand: rapid.Float64Range(0.1, 3).Draw(t, "demand"), lag: time.Duration(rapid.Float64Range(10, 40).Draw(t, "lag") * float64(time.Second))}
		stretch := func() float64 { return 1 / math.Max(1-p.load/truth, 0.1) } // a queue's
		var s Spill
		low, high, turns, last := math.Inf(1), 0.0, 0, 0.0
		for i := range 2400 {
			p.step(s.Share, time.Second)
			next := s.Next(Load{Ratio: p.load, Stretch: stretch()}, MarksAt(0.8), true, lag, time.Second)
			if move := next.Share - s.Share; move != 0 {
				if last != 0 && math.Signbit(move) != math.Signbit(last) {
					turns++
				}
				last = move
			}
			s = next
			if i > 1800 {
				low, high = min(low, p.load), max(high, p.load)
			}
		}
		if high-low > 0.02 || turns > 8 {
			t.Fatalf("the load swings from %.3f to %.3f, the share turned %d times", low, high, turns)
		}
		if p.load > truth*0.95 && s.Share < maxSpill-0.01 && truth > minFit*1.1 {
			t.Fatalf("load %.3f of a true %.3f with %+v", p.load, truth, s)
		}
		p.demand = 0.1
		for range 3600 {
			p.step(s.Share, time.Second)
			s = s.Next(Load{Ratio: p.load, Stretch: stretch()}, MarksAt(0.8), true, lag, time.Second)
		}
		if s.Share != 0 || s.Fit != 1 {
			t.Fatalf("after the rush: %+v", s)
		}
	})
}
