package cache

import (
	"container/list"
	"math"
	"math/rand/v2"
	"sort"
	"testing"

	"github.com/maypok86/otter/v2"
)

// The eviction is chosen by what it does to traces of the shapes that caches meet: popularity by Zipf's law, with scans
// (a crawler asking for everything once) and with one-time objects. Each request is of a key and the object's size.

type access struct {
	key  uint64
	size int64
}

// zipf draws 0 to n-1 with a skew that may be below 1, unlike the library's.
func zipf(n int, skew float64) func(*rand.Rand) int {
	sums := make([]float64, n)
	total := 0.0
	for i := range sums {
		total += math.Pow(float64(i+1), -skew)
		sums[i] = total
	}
	return func(r *rand.Rand) int { return sort.SearchFloat64s(sums, r.Float64()*total) }
}

const (
	traceKeys     = 20_000
	traceRequests = 200_000
)

func sizeOf(key uint64) int64 { return 200 + int64(key*0x9E3779B97F4A7C15>>52) } // 200 to 4295

// trace draws requests. once is the share of those for objects that nobody asks for again; every scanEvery requests,
// scanLength objects are asked for in a row.
func trace(skew, once float64, scanEvery, scanLength int) (out []access) {
	r := rand.New(rand.NewPCG(7, 11))
	draw := zipf(traceKeys, skew)
	fresh, scan := uint64(1<<40), uint64(1<<32)
	for len(out) < traceRequests {
		switch {
		case scanEvery > 0 && len(out)%scanEvery == scanEvery-1:
			for range scanLength {
				scan++
				out = append(out, access{1<<32 + scan%(3*traceKeys), sizeOf(scan)})
			}
		case r.Float64() < once:
			fresh++
			out = append(out, access{fresh, sizeOf(fresh)})
		default:
			key := uint64(draw(r))
			out = append(out, access{key, sizeOf(key)})
		}
	}
	return out
}

// ratio is the share of hits.
func ratio(trace []access, hit func(access) bool) float64 {
	hits := 0
	for _, a := range trace {
		if hit(a) {
			hits++
		}
	}
	return float64(hits) / float64(len(trace))
}

// ours is the policy of this package, as the cache uses it.
func ours(room int64) func(access) bool {
	b := newBudget(room, NewMetrics(nil))
	stored := map[uint64]*object{}
	return func(a access) bool {
		if o := stored[a.key]; o != nil {
			o.used()
			return true
		}
		victims, ok := b.reserve(a.size)
		for _, v := range victims {
			delete(stored, v.born.body)
		}
		if ok {
			o := &object{size: a.size, hash: a.key * 0x9E3779B97F4A7C15, born: born{body: a.key}} // born holds the key
			b.commit(o, a.size)
			stored[a.key] = o
		}
		return false
	}
}

func lru(room int64) func(access) bool {
	l, stored, used := list.New(), map[uint64]*list.Element{}, int64(0)
	return func(a access) bool {
		if e := stored[a.key]; e != nil {
			l.MoveToFront(e)
			return true
		}
		for used+a.size > room {
			old := l.Remove(l.Back()).(access)
			delete(stored, old.key)
			used -= old.size
		}
		stored[a.key] = l.PushFront(a)
		used += a.size
		return false
	}
}

// sieve is what this cache had before: a queue in order of arrival, and a hand that spares what was used.
func sieve(room int64) func(access) bool {
	type entry struct {
		access
		visited bool
	}
	l, stored, used := list.New(), map[uint64]*list.Element{}, int64(0)
	var hand *list.Element
	return func(a access) bool {
		if e := stored[a.key]; e != nil {
			e.Value.(*entry).visited = true
			return true
		}
		for used+a.size > room {
			if hand == nil {
				hand = l.Back()
			}
			for hand.Value.(*entry).visited {
				hand.Value.(*entry).visited = false
				if hand = hand.Prev(); hand == nil {
					hand = l.Back()
				}
			}
			next := hand.Prev()
			old := l.Remove(hand).(*entry)
			hand = next
			delete(stored, old.key)
			used -= old.size
		}
		stored[a.key] = l.PushFront(&entry{access: a})
		used += a.size
		return false
	}
}

// tinyLFU is W-TinyLFU, as the library has it.
func tinyLFU(room int64) func(access) bool {
	c := otter.Must(&otter.Options[uint64, int64]{
		MaximumWeight: uint64(room), Weigher: func(_ uint64, size int64) uint32 { return uint32(size) },
		Executor: func(run func()) { run() },
	})
	return func(a access) bool {
		if _, ok := c.GetIfPresent(a.key); ok {
			return true
		}
		c.Set(a.key, a.size)
		return false
	}
}

// TestHitRatio holds the policy against the alternatives: never worse than LRU, and never much worse than the best.
func TestHitRatio(t *testing.T) {
	const room = traceKeys * 2248 / 10 // a tenth of what is asked for again and again
	for _, c := range []struct {
		name  string
		trace []access
	}{
		{"zipf 0.8", trace(0.8, 0, 0, 0)},
		{"zipf 1.0", trace(1.0, 0, 0, 0)},
		{"zipf 1.1", trace(1.1, 0, 0, 0)},
		{"zipf 0.9 with scans", trace(0.9, 0, 10_000, 4000)},
		{"zipf 0.9, 40% asked for once", trace(0.9, 0.4, 0, 0)},
		{"zipf 1.0, scans, 20% asked for once", trace(1.0, 0.2, 20_000, 5000)},
	} {
		got := ratio(c.trace, ours(room))
		byLRU, bySieve, byLFU := ratio(c.trace, lru(room)), ratio(c.trace, sieve(room)), ratio(c.trace, tinyLFU(room))
		t.Logf("%-36s S3-FIFO (ours) %.1f%%, SIEVE %.1f%%, W-TinyLFU (otter) %.1f%%, LRU %.1f%%", c.name, 100*got, 100*bySieve, 100*byLFU, 100*byLRU)
		if got < byLRU || got < max(byLFU, bySieve)-0.015 {
			t.Errorf("%s: too few hits", c.name)
		}
	}
}
