package routing

import (
	"cmp"
	"math"
	"slices"
)

// A rank key is all that ranks a choice in one number, the lowest first: from the top its tier, its order, its distance,
// and, which ranks nothing, the source of that and the region. Numbers are sorted many times as fast as choices.
const (
	regionBits = 17 // fleets have at most a hundred thousand regions
	sourceBits = 3
	costShift  = regionBits + sourceBits
	orderShift = costShift + 32
	tierShift  = orderShift + 8

	// stackRegions is the fleet that is ranked without allocating.
	stackRegions = 64
)

func rankKey(ch *Choice, cost uint32, source Source, region int) uint64 {
	return uint64(ch.tier)<<tierShift | uint64(ch.order)<<orderShift | uint64(cost)<<costShift | uint64(source)<<regionBits | uint64(region)
}

func regionOf(key uint64) int    { return int(key & (1<<regionBits - 1)) }
func costOf(key uint64) uint32   { return uint32(key >> costShift) }
func sourceOf(key uint64) Source { return Source(key >> regionBits & (1<<sourceBits - 1)) }

// shift is how many of a key's last bits rank nothing under a policy: Weighted leaves distances out.
func (p Policy) shift() uint {
	if p == Weighted {
		return orderShift
	}
	return costShift
}

// rankByPlace fills keys with the sorted rank keys of a client of whom the place is all that is known: by far the commonest
// case. order is that of the regions around about there, so an insertion sort hardly moves any; and only the order counts,
// so the angle itself is the cost.
func (s *Snapshot) rankByPlace(keys []uint64, order []uint8, cs []Choice, from vector) []uint64 {
	for n, r := range order {
		i := int(r)
		to := &s.vectors[i]
		cost, source := uint32(unknownCost), NoDistance
		if to.located {
			cost, source = angleCost(from.x*to.x+from.y*to.y+from.z*to.z), Geography
		}
		k := rankKey(&cs[i], cost, source, i)
		for ; n > 0 && keys[n-1] > k; n-- {
			keys[n] = keys[n-1]
		}
		keys[n] = k
	}
	return keys
}

// rankByAny appends the sorted rank keys to keys, by whatever is known of the client.
func (s *Snapshot) rankByAny(keys []uint64, cs []Choice, c *Client, from vector, shift uint) []uint64 {
	switch {
	case shift != costShift: // they mostly stand in order already
		keys = s.distances(keys, cs, c, from)
		slices.SortStableFunc(keys, func(a, b uint64) int { return cmp.Compare(a>>shift, b>>shift) })
	case len(cs) > stackRegions:
		keys = s.distances(keys, cs, c, from)
		slices.Sort(keys)
	default:
		var room [stackRegions]uint64
		keys = sortKeys(keys, s.distances(room[:0], cs, c, from))
	}
	return keys
}

// Keys fall into buckets of so much round trip; the last takes all that are farther, or behind the best tier and order.
const (
	buckets     = 32
	bucketShift = costShift + 13 // 8 ms
)

// sortKeys appends at most stackRegions keys to dst[:0], sorted. A world's distances are spread over the buckets, so the
// insertion sort that follows hardly moves any.
func sortKeys(dst, keys []uint64) []uint64 {
	var start [buckets]uint8
	for _, k := range keys {
		start[min(k>>bucketShift, buckets-1)]++
	}
	at := uint8(0)
	for b, n := range start {
		start[b] = at
		at += n
	}
	dst = dst[:len(keys)]
	for _, k := range keys {
		b := min(k>>bucketShift, buckets-1)
		dst[start[b]] = k
		start[b]++
	}
	for i, k := range dst {
		for ; i > 0 && dst[i-1] > k; i-- {
			dst[i] = dst[i-1]
		}
		dst[i] = k
	}
	return dst
}

// write puts the choices, which are by region, into dst in the order of the keys, with the distances that those hold.
func write(dst []Choice, keys []uint64, choices []Choice, angles bool) {
	for n, k := range keys {
		ch := &dst[n]
		*ch = choices[regionOf(k)]
		ch.Source, ch.cost, ch.angle = sourceOf(k), costOf(k), angles
	}
}

// orderTies orders each run of equally ranked candidates, whose keys agree but for the last shift bits, by weighted rendezvous hashing, so that each region gets its
// weight's share of the clients, a client keeps its region, and only the clients of a region that goes must move.
// (Thaler and Ravishankar 1998; weights after Schindelhauer and Schomaker 2005.)
func (s *Snapshot) orderTies(keys []uint64, shift uint, service *Service, client uint64) {
	for i := 1; i < len(keys); i++ {
		if (keys[i]^keys[i-1])>>shift != 0 {
			continue
		}
		start := i - 1
		for i+1 < len(keys) && (keys[i+1]^keys[start])>>shift == 0 {
			i++
		}
		s.orderRun(keys[start:i+1], service, client)
	}
}

func (s *Snapshot) orderRun(run []uint64, service *Service, client uint64) {
	var room [stackRegions]float64
	scores := room[:0]
	if len(run) > stackRegions {
		scores = make([]float64, 0, len(run))
	}
	for n, k := range run {
		i := regionOf(k)
		score := s.score(i, service.Places[i].Weight, client)
		scores = append(scores, score)
		j := n
		for ; j > 0 && scores[j-1] > score; j-- {
			scores[j], run[j] = scores[j-1], run[j-1]
		}
		scores[j], run[j] = score, k
	}
}

// score is the rendezvous score of a region for a client: exponentially distributed with the weight as its rate, lowest
// wins.
func (s *Snapshot) score(region int, weight uint16, key uint64) float64 {
	u := (float64(mix(key^s.hashes[region])>>11) + 0.5) / (1 << 53)
	return -math.Log(u) / math.Max(float64(weight), 1e-3)
}
