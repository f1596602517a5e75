package routing

import "math"

// unknownCost stands where no distance is known: behind all that are.
const unknownCost = math.MaxUint32

// What a kilometre of distance costs in round trip, in microseconds: light in glass takes 10, and cables don't run
// straight. The base is what any client spends before it reaches a long line. So estimates can stand beside measurements.
const (
	microsPerKM = 18
	baseMicros  = 8000
)

// angleCost grows with the angle, in steps that are 200 m at the client's own place and less beyond, so that only regions
// at one place are ever equally far.
func angleCost(cosine float64) uint32 {
	if cosine > 1 { // by a rounding error, at the client's own place
		return 0
	}
	return uint32(int64((1 - cosine) * angleSteps))
}

// angleCosine is the cosine that an angleCost stands for.
func angleCosine(cost uint32) float64 { return 1 - float64(cost)/angleSteps }

const angleSteps = 1<<31 - 1

// distances appends the rank keys of a client, with the distance to each region by the best source that there is for it.
func (s *Snapshot) distances(keys []uint64, cs []Choice, c *Client, from vector) []uint64 {
	var peers []uint32
	if c.Via > 0 && c.Via <= len(s.PeerRTT) {
		peers = s.PeerRTT[c.Via-1]
	}
	for i := range cs {
		cost, source := uint32(unknownCost), NoDistance
		switch {
		case i < len(c.RTT) && c.RTT[i].Micros > 0:
			cost, source = c.RTT[i].Micros, c.RTT[i].Source
		case from.located && s.vectors[i].located && c.RTT == nil:
			cost, source = angleCost(from.dot(s.vectors[i])), Geography
		case from.located && s.vectors[i].located:
			cost, source = stepsCost(stepsUp(from.dot(s.vectors[i]))), Geography // in two, so that both are inlined
		case from.located && c.RTT == nil:
			// A place is all that is known, and an angle is never held against a round trip.
		case c.Via-1 == i:
			cost, source = 0, PeerRTT
		case i < len(peers) && peers[i] > 0:
			cost, source = peers[i], PeerRTT
			if s.Estimated != nil && s.Estimated[c.Via-1][i] {
				source = Coordinates
			}
		}
		keys = append(keys, rankKey(&cs[i], cost, source, i))
	}
	return keys
}

// geographicCost is the round trip that the angle between two places lets expect, in steps of 10 microseconds (half a
// kilometre), so that only regions at one place are ever equally far. The arc cosine is Abramowitz and Stegun's 4.4.45: it
// errs by less than half a kilometre and is monotone in such steps, at a tenth of the exact one's price. It is told which
// hemisphere a place is in without a branch, since that can't be foretold.
func geographicCost(cosine float64) uint32 { return stepsCost(stepsUp(cosine)) }

func stepsCost(up float64) uint32 { return 10 * uint32(int64(stepsQuarter+0.5-up)) }

// stepsUp is how much nearer a place is than one a quarter of the way around.
func stepsUp(cosine float64) float64 {
	x := math.Abs(cosine)
	return math.Copysign(stepsAQuarter-math.Sqrt(max(1-x, 0))*(arc0+x*(arc1+x*(arc2+x*arc3))), cosine)
}

// All in steps of 10 microseconds.
const (
	stepsARadian  = microsPerKM * earthRadiusKM / 10
	stepsAQuarter = stepsARadian * math.Pi / 2
	stepsQuarter  = baseMicros/10 + stepsAQuarter // to a place a quarter of the way around

	arc0 = stepsARadian * 1.5707288
	arc1 = stepsARadian * -0.2121144
	arc2 = stepsARadian * 0.0742610
	arc3 = stepsARadian * -0.0187293
)

// DistanceKM is the great-circle distance between a client and region i in kilometres; ok is false when it is not known.
func (s *Snapshot) DistanceKM(i int, c *Client) (km float64, ok bool) {
	from := c.Point.vector()
	if !from.located || !s.vectors[i].located {
		return 0, false
	}
	return earthRadiusKM * math.Acos(math.Min(1, math.Max(-1, from.dot(s.vectors[i])))), true
}

// RTTMillis is the round trip that the choice was made by, in milliseconds: measured, or, with Source Geography, what the
// distance lets expect. ok is false without any.
func (c Choice) RTTMillis() (ms float64, ok bool) {
	switch {
	case c.cost == unknownCost:
		return 0, false
	case c.angle && c.Source == Geography:
		return float64(geographicCost(angleCosine(c.cost))) / 1000, true
	}
	return float64(c.cost) / 1000, true
}
