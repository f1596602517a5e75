package homes

import (
	"maps"
	"math"
	"slices"
)

// Ring spreads keys over regions by weighted rendezvous hashing (Thaler and Ravishankar, 1998; weights after Resch, 2015):
// each region draws a lot for each key and the best one is the key's home, the next best its second choice. When a region
// comes or goes, only the keys that it gains or had move. Immutable; the same on every node and in every version.
type Ring struct {
	regions []string // sorted
	weights []float64
	salts   []uint64
}

// NewRing makes a ring of regions by weight. A region whose weight is 0 or less is not in it.
func NewRing(weights map[string]int) Ring {
	var r Ring
	for _, name := range slices.Sorted(maps.Keys(weights)) {
		if weights[name] > 0 {
			r.regions = append(r.regions, name)
			r.weights = append(r.weights, float64(weights[name]))
			r.salts = append(r.salts, hash(name))
		}
	}
	return r
}

// Home is the region of a key; empty for a ring without regions.
func (r Ring) Home(key uint64) string {
	best, home := math.Inf(1), ""
	for i, name := range r.regions {
		if lot := r.lot(i, key); lot < best {
			best, home = lot, name
		}
	}
	return home
}

// Order are all regions, the key's best first.
func (r Ring) Order(key uint64) []string {
	order := slices.Clone(r.regions)
	lots := make(map[string]float64, len(order))
	for i, name := range r.regions {
		lots[name] = r.lot(i, key)
	}
	slices.SortStableFunc(order, func(a, b string) int {
		if lots[a] < lots[b] {
			return -1
		}
		if lots[a] > lots[b] {
			return 1
		}
		return 0
	})
	return order
}

// lot is exponentially distributed with the region's weight as its rate, so that the smallest one is a region's with a
// probability of its share of all weights.
func (r Ring) lot(i int, key uint64) float64 {
	u := (float64(mix(key^r.salts[i])>>11) + 1) / (1 << 53) // above 0, up to 1
	return -math.Log(u) / r.weights[i]
}

// KeyOf is a key's hash: FNV-1a with a mixed end.
func KeyOf(key string) uint64 { return mix(hash(key)) }

func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// mix is the finaliser of SplitMix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
