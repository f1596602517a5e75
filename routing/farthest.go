package routing

import (
	"math"
	"time"
)

// Distances is how far a region's clients are, to find those that it sends on first: a histogram in logarithmic steps, with
// those of whom nothing is known beside it. Clients that were sent on no longer come, yet they count: what is known of a
// distance from which clients are sent on may grow but does not fade. The zero value is empty. It is not safe for
// concurrent use.
type Distances struct {
	pending, live, held      [distanceSteps]float64 // weights since the last tick; smoothed rates; those that count
	newUnknown, unknown, all float64
}

const (
	distanceSteps = 96
	// A step is an eighth of a doubling, from a quarter of a millisecond up.
	stepsPerDoubling = 8
	firstStepMicros  = 250
	// A client's distance is taken with a spread by its hash, this much up and down: all of a city's clients are equally
	// far, and must not all go at once.
	distanceSpread = 0.25
)

// spreadCost is a distance with the client's own spread.
func spreadCost(cost uint32, key, region uint64) float64 {
	u := float64(mix(key^region^saltSpill)>>11) / (1 << 53)
	return float64(cost) * (1 - distanceSpread + 2*distanceSpread*u)
}

// Add counts a client that region i serves, with a weight.
func (h *Distances) Add(s *Snapshot, i int, c *Client, weight float64) {
	h.all += weight
	cost, known := s.clientCost(i, c, c.Point.vector())
	if !known {
		h.newUnknown += weight
		return
	}
	h.pending[stepOf(spreadCost(cost, c.Key, s.hashes[i]))] += weight
}

func stepOf(micros float64) int {
	return min(max(int(stepsPerDoubling*math.Log2(math.Max(micros, 1)/firstStepMicros)), 0), distanceSteps-1)
}

// The histogram follows newcomers within seconds, as a region that just lost its neighbour must, and forgets slowly.
const (
	distancesRise = 10 * time.Second
	distancesFade = time.Minute
)

// Tick folds in what was added in the last dt, in which the region sent on the clients beyond a distance (0: none).
func (h *Distances) Tick(dt time.Duration, beyond uint32) {
	if dt <= 0 {
		return
	}
	rise, fade := 1-math.Exp(-dt.Seconds()/distancesRise.Seconds()), 1-math.Exp(-dt.Seconds()/distancesFade.Seconds())
	frozen := distanceSteps
	if beyond > 0 {
		frozen = stepOf(float64(beyond))
	}
	for i := range h.live {
		h.live[i] += (h.pending[i]/dt.Seconds() - h.live[i]) * rise
		h.pending[i] = 0
		switch {
		case h.live[i] > h.held[i]:
			h.held[i] = h.live[i]
		case i < frozen:
			h.held[i] += (h.live[i] - h.held[i]) * fade
		}
	}
	h.unknown += (h.newUnknown/dt.Seconds() - h.unknown) * rise
	h.newUnknown = 0
}

// minDistances is the weight of clients before a histogram is believed.
const minDistances = 50

// Beyond is the distance, in microseconds of round trip, beyond which a share of the clients is; 0 when too little is known
// to say.
func (h *Distances) Beyond(share float64) uint32 {
	known := 0.0
	for _, v := range h.held {
		known += v
	}
	if share <= 0 || h.all < minDistances || known <= h.unknown {
		return 0
	}
	left := share * known
	for i := distanceSteps - 1; i >= 0; i-- {
		if h.held[i] >= left && h.held[i] > 0 {
			part := 1 - left/h.held[i] // of the step, from below
			return uint32(firstStepMicros * math.Exp2((float64(i)+part)/stepsPerDoubling))
		}
		left -= h.held[i]
	}
	return 1
}

// clientCost is how far a client is from region i, in microseconds of round trip, where that is known of the client itself; from is
// its place.
func (s *Snapshot) clientCost(i int, c *Client, from vector) (cost uint32, known bool) {
	switch {
	case i < len(c.RTT) && c.RTT[i].Micros > 0:
		return c.RTT[i].Micros, true
	case from.located && s.vectors[i].located:
		return geographicCost(from.dot(s.vectors[i])), true
	}
	return 0, false
}

// sentOn tells whether a full region i sends a client on: the farthest first, by Place.SpillBeyond; where that or the
// client's distance is not known, a share of all by a hash.
func (s *Snapshot) sentOn(p *Place, i int, c *Client, from vector) bool {
	if p.Spill <= 0 {
		return false
	}
	if p.SpillBeyond > 0 {
		if cost, known := s.clientCost(i, c, from); known {
			return spreadCost(cost, c.Key, s.hashes[i]) > float64(p.SpillBeyond)
		}
	}
	return inShare(p.Spill, c.Key, s.hashes[i], saltSpill)
}
