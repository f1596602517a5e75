package routing

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// rush runs a region of a demand for so many seconds, with a latency that its load makes, and returns its control, how
// often the share turned, and the least and the most load of the last tenth.
func rush(s Spill, p *plant, seconds int, stretch func(load float64) float64) (after Spill, turns int, low, high float64) {
	low, high = math.Inf(1), 0
	last := 0.0
	for i := range seconds {
		p.step(s.Share, time.Second)
		next := s.Next(Load{Ratio: p.load, Stretch: stretch(p.load)}, MarksAt(0.8), true, 20*time.Second, time.Second)
		if move := next.Share - s.Share; move != 0 {
			if last != 0 && math.Signbit(move) != math.Signbit(last) {
				turns++
			}
			last = move
		}
		s = next
		if i > seconds*9/10 {
			low, high = min(low, p.load), max(high, p.load)
		}
	}
	return s, turns, low, high
}

// A region whose latency is high whatever its load (its database is slow, say) ends with all of its capacity, and not with
// the least that latency may leave it: sending clients on did not help, so it is not what they suffer from.
func TestSlownessOfOtherReasonsTakesNoCapacity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		slow := rapid.Float64Range(2.1, 9).Draw(t, "how slow")
		wobble := rapid.Float64Range(0, 0.15).Draw(t, "wobble")
		demand := rapid.Float64Range(0.1, 3).Draw(t, "demand")
		p := &plant{demand: demand, load: demand, lag: time.Duration(rapid.Float64Range(10, 40).Draw(t, "lag") * float64(time.Second))}
		at := 0
		s, turns, _, _ := rush(Spill{}, p, 2*3600, func(float64) float64 {
			at++
			return slow * (1 + wobble*math.Sin(float64(at)/7))
		})
		if s.Fit != 1 || turns > 12 {
			t.Fatalf("with a demand of %.2f: %+v, its share turned %d times", demand, s, turns)
		}
		if demand < 0.7 && s.Share != 0 {
			t.Fatalf("with room for all it sends %.3f on", s.Share)
		}
	})
}

// A slow hour in the middle of a rush leaves nothing behind, though the rush goes on.
func TestCapacityComesBackDuringARush(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &plant{demand: rapid.Float64Range(0.85, 3).Draw(t, "demand"), lag: 20 * time.Second}
		slow := rapid.Float64Range(2.1, 6).Draw(t, "how slow")
		s, _, _, _ := rush(Spill{}, p, rapid.IntRange(60, 600).Draw(t, "for"), func(float64) float64 { return slow })
		s, _, low, _ := rush(s, p, 3600, func(float64) float64 { return 1 })
		if s.Fit != 1 || low < 0.65 {
			t.Fatalf("an hour after: %+v, load %.2f", s, low)
		}
	})
}

// A region that bears less than its capacity and shows it only at the last moment is found out, too; and what is tried
// above that is tried more and more seldom.
func TestASuddenLimitIsFoundAndKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		truth := rapid.Float64Range(0.4, 0.68).Draw(t, "what it can take")
		p := &plant{demand: rapid.Float64Range(0.85, 3).Draw(t, "demand"), lag: time.Duration(rapid.Float64Range(10, 40).Draw(t, "lag") * float64(time.Second))}
		over := 0
		s, _, _, _ := rush(Spill{}, p, 8*3600, func(load float64) float64 {
			if load < truth {
				return 1.1
			}
			over++
			return 1.1 + 20*(load/truth-0.9)
		})
		if s.Fit >= 1 || over > 900 {
			t.Fatalf("%+v; past its limit for %d s of 8 h", s, over)
		}
	})
}

// Slowness of other reasons does not hide a limit that is there as well.
func TestALimitBehindSlownessIsFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		truth := rapid.Float64Range(0.5, 0.75).Draw(t, "what it can take")
		slow := rapid.Float64Range(2.1, 4).Draw(t, "how slow")
		p := &plant{demand: rapid.Float64Range(0.85, 3).Draw(t, "demand"), lag: 20 * time.Second}
		_, _, _, high := rush(Spill{}, p, 2*3600, func(load float64) float64 { return slow * (1 + 10*math.Max(load/truth-0.9, 0)) })
		if high > truth*1.15 {
			t.Fatalf("load %.3f of a true %.3f", high, truth)
		}
	})
}
