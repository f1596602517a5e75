package gateway

import (
	"math"
	"slices"
	"time"

	"landfall/routing"
)

// peerRTT is the round trip to another region.
type peerRTT struct {
	millis    float64
	estimated bool // by network coordinates, since nobody measured it
}

// peerRTT is the round trips from this node's region to the others, in microseconds, and which of them are estimates: of
// the other rows nothing is known here, nor needed.
func (v view) peerRTT(regions []routing.Region) ([][]uint32, [][]bool) {
	rows, estimated := make([][]uint32, len(regions)), make([][]bool, len(regions))
	for i := range rows {
		rows[i], estimated[i] = make([]uint32, len(regions)), make([]bool, len(regions))
		if regions[i].Name != v.self {
			continue
		}
		for j, r := range regions {
			if p := v.peers[r.Name]; i != j {
				rows[i][j], estimated[i][j] = uint32(p.millis*1000), p.estimated
			}
		}
	}
	return rows, estimated
}

// A round trip between regions counts as changed when it moved by this much, in milliseconds and as a share: the order of
// far regions must not follow every jitter.
const (
	peerRTTStep  = 10
	peerRTTShare = 0.25
)

// steadyRTT is the round trips to the other regions, as they were until they moved by enough. What was measured once is not
// replaced by an estimate.
func steadyRTT(old map[string]peerRTT, members []member) map[string]peerRTT {
	out := map[string]peerRTT{}
	for _, m := range members {
		if _, done := out[m.Region]; done {
			continue
		}
		was := old[m.Region]
		is := peerRTT{millis: math.Ceil(regionRTT(members, m.Region))}
		if is.millis == 0 && (was.millis == 0 || was.estimated) {
			is = peerRTT{math.Ceil(estimatedRTT(members, m.Region)), true}
		}
		if was.millis > 0 && (is.millis == 0 || is.estimated == was.estimated && math.Abs(is.millis-was.millis) <= max(peerRTTStep, was.millis*peerRTTShare)) {
			is = was
		}
		if is.millis > 0 {
			out[m.Region] = is
		}
	}
	return out
}

// estimatedRTT is the round trip to a region that network coordinates let expect, in milliseconds: the median over its
// nodes; 0 when they are not known, or not settled.
func estimatedRTT(members []member, region string) float64 {
	self := slices.IndexFunc(members, func(m member) bool { return m.Self })
	if self < 0 || members[self].Region == region || members[self].Coordinate == nil || !members[self].Coordinate.Settled() {
		return 0
	}
	var all []time.Duration
	for _, m := range members {
		if m.Region == region && m.Coordinate != nil && m.Coordinate.Settled() {
			all = append(all, members[self].Coordinate.Estimate(m.Coordinate))
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return millis(all[(len(all)-1)/2])
}
