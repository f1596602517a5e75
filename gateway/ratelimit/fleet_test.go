package ratelimit

import (
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var start = time.Unix(1_800_000_000, 0)

// nodes are fleets that hear each other at the end of each round.
type nodes struct {
	fleets []*Fleet
	limits []*Limit
	now    time.Time
}

func newNodes(n int, t Terms) *nodes {
	s := &nodes{now: start}
	for range n {
		f := NewFleet()
		s.fleets = append(s.fleets, f)
		s.limits = append(s.limits, f.NewLimit("web /*", t, true))
	}
	return s
}

// round sends each node so many requests of one key, evenly over a second, and gives what was let through of each.
func (s *nodes) round(demand []int, cut bool) []int {
	const steps = 1000
	taken := make([]int, len(demand))
	for step := range steps {
		at := s.now.Add(time.Duration(step) * Round / steps)
		for i, d := range demand {
			for range d*(step+1)/steps - d*step/steps {
				if ok, _ := s.limits[i].Take(7, at); ok {
					taken[i]++
				}
			}
		}
	}
	s.now = s.now.Add(Round)
	for i, f := range s.fleets {
		msg, _ := f.Step(s.now)
		for j, other := range s.fleets {
			if i != j && !cut {
				if err := other.Hear(fmt.Sprint("node-", i), msg, s.now); err != nil {
					panic(err)
				}
			}
		}
	}
	return taken
}

func sum(list []int) (n int) {
	for _, v := range list {
		n += v
	}
	return n
}

// TestFleetBound is the bound that the package promises: under steady demand of any shape the fleet lets through the rate
// and 5%, and no less than the rate when that much is asked for; a move of the demand costs a bounded excess.
func TestFleetBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 6).Draw(t, "nodes")
		rate := rapid.IntRange(50, 400).Draw(t, "rate")
		terms := Terms{Rate: float64(rate), Burst: rate / 5}
		s := newNodes(n, terms)
		for range 3 {
			demand := make([]int, n)
			for i := range demand {
				demand[i] = rapid.SampledFrom([]int{0, 0, rate / 100, rate / 10, rate / 2, rate, 3 * rate}).Draw(t, "demand")
			}
			const settle, steady = 3, 4
			moved := 0
			for range settle {
				moved += sum(s.round(demand, false))
			}
			if most := float64(n) * (float64(settle*rate) + float64(terms.Burst)) * 1.05; float64(moved) > most {
				t.Fatalf("%d in %d rounds of a move, more than %g", moved, settle, most)
			}
			taken := 0
			for range steady {
				taken += sum(s.round(demand, false))
			}
			most := 1.05*float64(steady*rate) + float64(terms.Burst) + float64(n)
			if float64(taken) > most {
				t.Fatalf("demand %v of %d/s: %d in %d rounds, more than %g", demand, rate, taken, steady, most)
			}
			want := 0.93*float64(steady)*float64(min(sum(demand), rate)) - float64(n)
			if float64(taken) < want {
				t.Fatalf("demand %v of %d/s: only %d in %d rounds, less than %g", demand, rate, taken, steady, want)
			}
		}
	})
}

// TestFleetApart: nodes that stop hearing each other give a key its whole rate each, not less; together again they share.
func TestFleetApart(t *testing.T) {
	s := newNodes(2, Terms{Rate: 100, Burst: 10})
	both := []int{200, 200}
	for range 4 {
		s.round(both, false)
	}
	if got := sum(s.round(both, false)); got > 106 {
		t.Errorf("together: %d", got)
	}
	for range 4 {
		s.round(both, true)
	}
	if got := s.round(both, true); got[0] < 98 || got[1] < 98 {
		t.Errorf("apart: %v", got)
	}
	for range 4 {
		s.round(both, false)
	}
	if got := sum(s.round(both, false)); got > 106 {
		t.Errorf("together again: %d", got)
	}
}

// TestAllocate: parts add up to the rate when all nodes see the same, and none is negative.
func TestAllocate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(1e-4, 1e6).Draw(t, "rate")
		shares := rapid.SliceOfN(rapid.Float64Range(1e-3, 1), 1, 20).Draw(t, "demand")
		total, got := 0.0, 0.0
		for i := range shares {
			shares[i] *= rate
			total += shares[i]
		}
		for _, d := range shares {
			part := allocate(d, total-d, len(shares)-1, rate)
			if part <= 0 || part > rate*(1+1e-9) {
				t.Fatalf("%g of %g", part, rate)
			}
			got += part
		}
		if math.Abs(got-rate) > rate*1e-6 {
			t.Fatalf("the parts of %g add up to %g", rate, got)
		}
	})
}

// TestSetTerms: what was taken counts on under new terms, in either direction.
func TestSetTerms(t *testing.T) {
	l := New(Terms{Rate: 1.0 / 3600, Burst: 4}, false)
	for range 4 {
		if ok, _ := l.Take(7, start); !ok {
			t.Fatal("refused within the burst")
		}
	}
	if ok, _ := l.Take(7, start); ok {
		t.Fatal("let through beyond the burst")
	}
	l.SetTerms(Terms{Rate: 10, Burst: 4}, start)
	if ok, wait := l.Take(7, start); ok || wait > 200*time.Millisecond {
		t.Errorf("%v, after %s", ok, wait)
	}
	if ok, _ := l.Take(7, start.Add(150*time.Millisecond)); !ok {
		t.Error("the old rate goes on")
	}
	l.SetTerms(Terms{Rate: 1, Burst: 1}, start.Add(150*time.Millisecond))
	if ok, _ := l.Take(8, start.Add(150*time.Millisecond)); !ok {
		t.Error("another key pays")
	}
}

// TestDrop: a limit that is gone is told of no more; one that took its name stays.
func TestDrop(t *testing.T) {
	f := NewFleet()
	old := f.NewLimit("a", Terms{1, 1}, false)
	now := f.NewLimit("a", Terms{2, 1}, false)
	if f.Drop(old); f.Empty() {
		t.Error("the newer limit went with the older")
	}
	if f.Drop(now); !f.Empty() {
		t.Error("the limit is still there")
	}
}

// FuzzParse: what is accepted is bounded and could have been written by Step.
func FuzzParse(f *testing.F) {
	s := newNodes(1, Terms{Rate: 10, Burst: 5})
	s.round([]int{20}, true)
	msg, _ := s.fleets[0].Step(s.now)
	f.Add(msg)
	f.Add([]byte{version})
	f.Add([]byte{version, 0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255, 15})
	f.Fuzz(func(t *testing.T, data []byte) {
		limits, err := parse(data)
		if err != nil {
			return
		}
		entries := 0
		for _, list := range limits {
			entries += len(list)
			for _, e := range list {
				if !(e.rate > 0) || math.IsInf(e.rate, 0) {
					t.Fatalf("a demand of %g", e.rate)
				}
			}
		}
		if entries > maxEntries || 12*entries > len(data) {
			t.Fatalf("%d entries out of %d bytes", entries, len(data))
		}
	})
}

func BenchmarkTake(b *testing.B) {
	for _, shared := range []bool{false, true} {
		b.Run(map[bool]string{false: "local", true: "fleet"}[shared], func(b *testing.B) {
			l := New(Terms{Rate: 1e9, Burst: 1000}, false)
			if shared {
				l = NewFleet().NewLimit("a", Terms{Rate: 1e9, Burst: 1000}, false)
			}
			key, now := uint64(0), start
			b.ReportAllocs()
			for b.Loop() {
				key += 0x9e3779b97f4a7c15
				l.Take(key, now)
			}
		})
	}
}

func BenchmarkStep(b *testing.B) {
	f := NewFleet()
	l := f.NewLimit("a", Terms{Rate: 10, Burst: 100}, false)
	for key := range uint64(30_000) {
		l.Take(key*0x9e3779b97f4a7c15, start)
	}
	b.ReportAllocs()
	for b.Loop() {
		f.Step(start)
	}
}
