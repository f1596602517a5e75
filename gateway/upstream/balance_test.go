package upstream

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"landfall/routing"
)

// spread counts how n requests, one at a time, are spread over a pool's origins.
func spread(t testing.TB, p *Pool, n int, key func(i int) uint64) []int {
	t.Helper()
	list := p.members.Load().list
	got := make([]int, len(list))
	for i := range n {
		k := uint64(0)
		if key != nil {
			k = key(i)
		}
		l, refused := p.acquire(nil, k, Normal)
		if refused != "" {
			t.Fatal(refused)
		}
		got[slices.Index(list, l.origin)]++
		finish(l)
	}
	return got
}

// finish ends an attempt that was never made.
func finish(l lease) {
	l.ticket.done(errNeutral)
	l.origin.pending.Add(-1)
	l.release()
}

func TestWeights(t *testing.T) {
	weights := map[string]int{names(3)[0]: 1, names(3)[1]: 2, names(3)[2]: 5}
	for _, balance := range []string{"least_request", "ewma", "round_robin", "random", "hash"} {
		t.Run(balance, func(t *testing.T) {
			p := newTestPool(t, PoolOptions{Origins: names(3), Weights: weights, Balance: balance})
			got := spread(t, p, 8000, func(i int) uint64 { return HashKey(fmt.Sprint(i), 0) })
			if balance == "least_request" || balance == "ewma" {
				// Two different ones are drawn, so the heaviest can't have more than its turn.
				if got[2] < got[1] || got[1] < got[0] {
					t.Errorf("%v is not in the order of the weights", got)
				}
				return
			}
			for i, w := range []int{1, 2, 5} {
				if want := 1000 * w; math.Abs(float64(got[i]-want)) > 0.15*float64(want) {
					t.Errorf("%v, want about 1000 to 2000 to 5000", got)
				}
			}
		})
	}
}

// TestSmoothTurns: over a schedule each comes as often as its weight says, and never in a clump.
func TestSmoothTurns(t *testing.T) {
	if got := fmt.Sprint(smoothTurns([]int{5, 1, 1})); got != "[0 0 1 0 2 0 0]" { // nginx's own example
		t.Error(got)
	}
	if n := len(smoothTurns([]int{1000, 999, 7})); n > maxTurns {
		t.Errorf("a schedule of %d turns", n)
	}
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.IntRange(1, 20), 1, 12).Draw(t, "weights")
		turns, total, divisor := smoothTurns(weights), 0, 0
		for _, w := range weights {
			total, divisor = total+w, gcd(divisor, w)
		}
		if len(turns) != total/divisor {
			t.Fatalf("%d turns for %v", len(turns), weights)
		}
		seen := make([]int, len(weights))
		for _, i := range turns {
			seen[i]++
		}
		for i, w := range weights {
			if seen[i] != w/divisor {
				t.Fatalf("%v for %v", seen, weights)
			}
		}
	})
}

func TestRoundRobinPassesOver(t *testing.T) {
	p := newTestPool(t, PoolOptions{Origins: names(3), Balance: "round_robin"})
	if got := spread(t, p, 300, nil); fmt.Sprint(got) != "[100 100 100]" {
		t.Error(got)
	}
	p.SetState(names(3)[1], routing.Down)
	if got := spread(t, p, 300, nil); got[1] != 0 || got[0]+got[2] != 300 {
		t.Error(got)
	}
}

// TestMaglev: shares are even, keys stay when an origin goes, and the order of the config doesn't matter.
func TestMaglev(t *testing.T) {
	all, ones := names(10), slices.Repeat([]int{1}, 10)
	table := maglev(all, ones, maglevSize)
	count := make([]int, 10)
	for _, i := range table {
		count[i]++
	}
	for i, n := range count {
		if share := float64(n) / maglevSize; math.Abs(share-0.1) > 0.002 {
			t.Errorf("origin %d has %.3f of the table", i, share)
		}
	}
	less := maglev(all[:9], ones[:9], maglevSize)
	moved := 0
	for i := range table {
		if table[i] != 9 && table[i] != less[i] {
			moved++
		}
	}
	if share := float64(moved) / maglevSize; share > 0.05 {
		t.Errorf("%.1f%% of the keys of other origins moved when one of ten went", share*100)
	}
	reversed := slices.Clone(all)
	slices.Reverse(reversed)
	for i, o := range maglev(reversed, ones, maglevSize) {
		if reversed[o] != all[table[i]] {
			t.Fatal("the table depends on the order of the origins")
		}
	}
}

// TestBoundedLoads: one hot key can't put more than its bound on one origin.
func TestBoundedLoads(t *testing.T) {
	p := newTestPool(t, PoolOptions{Origins: names(4), Balance: "hash"})
	var held []lease
	for range 100 {
		l, refused := p.acquire(nil, 42, Normal)
		if refused != "" {
			t.Fatal(refused)
		}
		held = append(held, l)
	}
	most := int64(0)
	for _, o := range p.members.Load().list {
		most = max(most, o.inFlight.Load())
	}
	if most > 32 { // 1.25 times a quarter of 100, rounded up
		t.Errorf("%d of 100 requests of one key are on one origin", most)
	}
	for _, l := range held {
		finish(l)
	}
	if got := spread(t, p, 100, func(int) uint64 { return 42 }); slices.Max(got) != 100 {
		t.Errorf("one at a time, a key should stay: %v", got)
	}
}

// TestEWMA: an origin that is slow gets few requests, and is forgiven in time.
func TestEWMA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(t, PoolOptions{Origins: names(2), Balance: "ewma"})
		list := p.members.Load().list
		now := time.Now().UnixNano()
		list[0].learnLatency(200*time.Millisecond, now)
		list[1].learnLatency(10*time.Millisecond, now)
		if got := spread(t, p, 100, nil); got[1] != 100 {
			t.Error(got)
		}
		pass(2 * time.Minute)
		list[1].learnLatency(10*time.Millisecond, time.Now().UnixNano())
		if got := spread(t, p, 100, nil); got[0] == 0 {
			t.Error("a latency of two minutes ago still counts:", got)
		}
	})
}

// TestSlowStart: an origin that comes back gets a tenth of its share at first, and all of it in the end.
func TestSlowStart(t *testing.T) {
	for _, balance := range []string{"random", "round_robin"} {
		t.Run(balance, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newTestPool(t, PoolOptions{Origins: names(2), Balance: balance, SlowStart: 30 * time.Second, Panic: 1})
				p.SetState(names(2)[0], routing.Down)
				p.SetState(names(2)[0], routing.Up)
				for _, want := range []struct {
					after time.Duration
					least int
					most  int
				}{{0, 20, 260}, {15 * time.Second, 450, 900}, {30 * time.Second, 900, 1100}} {
					pass(want.after)
					if got := spread(t, p, 2000, nil); got[0] < want.least || got[0] > want.most {
						t.Errorf("%s later it gets %d of 2000", want.after, got[0])
					}
				}
				if n := p.returning.Load(); n != 0 {
					t.Errorf("%d origins are still coming back", n)
				}
			})
		})
	}
}

// TestSetMembers: who stays keeps what is known of it, and what is on its way ends well.
func TestSetMembers(t *testing.T) {
	a, b, c := names(3)[0], names(3)[1], names(3)[2]
	p := newTestPool(t, PoolOptions{Origins: []string{a, b}})
	p.SetState(a, routing.Down)
	kept := p.members.Load().byName[b]
	held, _ := p.acquire([]*origin{p.members.Load().byName[a]}, 0, Normal)
	p.SetMembers([]Member{{URL: b, Weight: 3}, {URL: c}, {URL: c}})
	m := p.members.Load()
	if len(m.list) != 2 || m.byName[b] != kept || m.byName[a] != nil || kept.weight.Load() != 3 {
		t.Errorf("%+v", p.Status())
	}
	if p.Status().Panic {
		t.Error("an origin that went still counts as down")
	}
	finish(held)
	wantIdle(t, p)
}

func BenchmarkPick(b *testing.B) {
	for _, balance := range []string{"least_request", "ewma", "round_robin", "random", "hash"} {
		b.Run(balance, func(b *testing.B) {
			p := newTestPool(b, PoolOptions{Origins: names(5), Balance: balance})
			m := p.members.Load()
			var space [16]*origin
			b.ReportAllocs()
			for b.Loop() {
				candidates := p.candidates(m, space[:0], rankUp, nil, false)
				p.choose(m, candidates, 7)
			}
		})
	}
}

func BenchmarkBreaker(b *testing.B) {
	br := newBreaker(normalBreaker(testBreaker), time.Now, nil)
	b.ReportAllocs()
	for b.Loop() {
		leave, _ := br.allow()
		leave.done(nil)
	}
}
