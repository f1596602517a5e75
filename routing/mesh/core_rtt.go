package mesh

import (
	"encoding/binary"
	"maps"
	"slices"
	"time"
)

// roundTrip is the measured round trip to a peer: smoothed, and the least over the last minute or two.
type roundTrip struct {
	smoothed    time.Duration // 0: not measured
	least, prev time.Duration // of this window and the one before
	since       time.Time
}

const rttWindow = time.Minute

func (r *roundTrip) add(now time.Time, sample time.Duration) {
	sample = max(sample, time.Microsecond)
	r.smoothed = smooth(r.smoothed, sample)
	if now.Sub(r.since) >= rttWindow {
		r.since, r.prev, r.least = now, r.least, sample
	}
	r.least = min(r.least, sample)
}

// min is the least round trip of the window; 0: not measured.
func (r *roundTrip) min() time.Duration {
	if r.prev > 0 {
		return min(r.least, r.prev)
	}
	return r.least
}

// rttBody is this node's round trips to the regions, the least of each. A figure is told anew only when it has changed
// by a quarter and a millisecond, so that noise says nothing new.
func (c *core) rttBody() []byte {
	least := map[string]time.Duration{}
	for _, mb := range c.members {
		if r := mb.rtt.min(); r > 0 && mb.reach.standing == reachable {
			if old, ok := least[mb.info.Region]; !ok || r < old {
				least[mb.info.Region] = r
			}
		}
	}
	var b []byte
	for _, region := range slices.Sorted(maps.Keys(least)) {
		d := least[region].Round(time.Microsecond)
		if told := c.toldRTT[region]; told > 0 && (d-told).Abs() <= max(told/4, time.Millisecond) {
			d = told
		}
		least[region] = d
		b = binary.AppendUvarint(appendText(b, region), uint64(d.Microseconds()))
	}
	c.toldRTT = least
	return b
}

// rttsIn decodes rttBody.
func rttsIn(b []byte) map[string]time.Duration {
	out := map[string]time.Duration{}
	r := &wire{rest: b}
	for len(r.rest) > 0 && len(out) < MaxMembers {
		region := r.name()
		us := r.number()
		if r.failed || us > uint64(time.Minute/time.Microsecond) {
			break
		}
		out[region] = time.Duration(us) * time.Microsecond
	}
	return out
}
