package routing

import (
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// plant is a region in a closed loop: clients follow its share with a lag of their own, which the control only guesses.
type plant struct {
	demand, load float64
	lag          time.Duration
}

func (p *plant) step(share float64, dt time.Duration) {
	p.load += (p.demand*(1-share) - p.load) * (1 - math.Exp(-dt.Seconds()/p.lag.Seconds()))
}

// The loop settles, whatever the demand and however wrong the guess of the lag: after it has had time, the share no longer
// moves, and the load lies under the upper mark.
func TestSpillSettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		guess := 20 * time.Second
		p := plant{demand: rapid.Float64Range(0.1, 6).Draw(t, "demand"), lag: time.Duration(rapid.Float64Range(5, 60).Draw(t, "lag") * float64(time.Second))}
		marks := MarksAt(rapid.Float64Range(0.5, 1).Draw(t, "at"))
		noise := rapid.SampledFrom([]float64{0, 0.01, 0.03}).Draw(t, "noise")
		var s Spill
		dt := time.Second
		turns, last := 0, 0.0
		for i := range 1800 {
			p.step(s.Share, dt)
			wobble := 1 + noise*math.Sin(float64(i)*0.7)
			next := s.Next(Load{Ratio: p.load * wobble}, marks, true, guess, dt)
			if move := next.Share - s.Share; move != 0 {
				if last != 0 && math.Signbit(move) != math.Signbit(last) {
					turns++
				}
				last = move
			}
			if i > 900 && math.Abs(next.Share-s.Share) > 1e-9 && noise == 0 {
				t.Fatalf("after %d s the share still moves: %+v, load %.3f", i, next, p.load)
			}
			s = next
		}
		if turns > 6 {
			t.Fatalf("the share turned %d times: it oscillates", turns)
		}
		if limit := marks.At*1.05 + noise; p.load > limit && s.Share < maxSpill-0.01 {
			t.Fatalf("load %.3f past %.3f with share %.3f", p.load, limit, s.Share)
		}
		if p.demand < marks.Back && s.Share > 0 {
			t.Fatalf("sends %.3f on at a demand of %.3f", s.Share, p.demand)
		}
	})
}

// Only the excess goes: a region at 120% of its capacity keeps about what its mark allows.
func TestSpillMovesTheExcessOnly(t *testing.T) {
	p := plant{demand: 1.2, load: 1.2, lag: 20 * time.Second}
	var s Spill
	for range 600 {
		p.step(s.Share, time.Second)
		s = s.Next(Load{Ratio: p.load}, MarksAt(0.8), true, 20*time.Second, time.Second)
	}
	if p.load < 0.7 || p.load > 0.8 {
		t.Errorf("load %.3f, want between the marks", p.load)
	}
	full := s
	p.demand = 0.4 // the rush is over
	for range 900 {
		p.step(s.Share, time.Second)
		s = s.Next(Load{Ratio: p.load}, MarksAt(0.8), true, 20*time.Second, time.Second)
	}
	if s.Share != 0 {
		t.Errorf("share %.3f after the rush, was %.3f", s.Share, full.Share)
	}
}

// With nowhere to go nothing is sent on.
func TestSpillNeedsRoom(t *testing.T) {
	var s Spill
	for range 100 {
		s = s.Next(Load{Ratio: 1.5}, MarksAt(0.8), false, 20*time.Second, time.Second)
	}
	if s.Share != 0 {
		t.Errorf("share %.3f", s.Share)
	}
}

// TestSpillBetweenRegions closes the loop through the decision itself: three regions in a row, the first overloaded. Its
// excess goes to the second until that is full, then to the third, and no load swings.
func TestSpillBetweenRegions(t *testing.T) {
	base := Snapshot{Panic: 0.5, AllDown: -1, Services: []Service{{Name: "web"}}}
	for i := range 3 {
		base.Regions = append(base.Regions, Region{Name: fmt.Sprintf("r%d", i), Location: Point{0, float64(i) * 20, true}, Nodes: []Node{{Name: "n"}}})
		base.Services[0].Places = append(base.Services[0].Places, Place{HasPool: true, Weight: 1})
	}
	capacity := [3]float64{100, 60, 100}
	const clients = 4000
	place := func(k int) Point { // 150 at the first, 40 at the second, 20 at the third
		switch {
		case k < clients*150/210:
			return Point{0, -5, true}
		case k < clients*190/210:
			return Point{0, 21, true}
		}
		return Point{0, 45, true}
	}
	var spills [3]Spill
	var load [3]float64
	history := [][3]float64{}
	for second := range 900 {
		s := base
		s.Services = []Service{{Name: "web", Places: append([]Place(nil), base.Services[0].Places...)}}
		for i := range spills {
			s.Services[0].Places[i].Spill = spills[i].Share
		}
		now := NewSnapshot(s)
		var demand [3]float64
		buf := make([]Choice, 0, 3)
		for k := range clients {
			demand[now.Decide(buf, 0, Client{Key: mix(uint64(k)), Point: place(k)}).Choices[0].Region] += 210.0 / clients
		}
		room := 0
		for i := range load {
			load[i] += (demand[i] - load[i]) * (1 - math.Exp(-1.0/20))
			if load[i] < capacity[i]*0.8 {
				room++
			}
		}
		for i := range spills {
			spills[i] = spills[i].Next(Load{Ratio: load[i] / capacity[i]}, MarksAt(0.8), room > 0, 20*time.Second, time.Second)
		}
		if second >= 600 {
			history = append(history, load)
		}
	}
	for i := range load {
		low, high := math.Inf(1), 0.0
		for _, h := range history {
			low, high = math.Min(low, h[i]), math.Max(high, h[i])
		}
		if high-low > 0.03*capacity[i] || high > 0.83*capacity[i] {
			t.Errorf("region %d swings from %.1f to %.1f of %.0f", i, low, high, capacity[i])
		}
	}
}
