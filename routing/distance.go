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

// distances fills in how far the client is from each region when places are all that is known: by far the commonest case.
// Only the order counts then, so the angle itself is the cost.
func (s *Snapshot) distances(cs []Choice, from vector) {
	vectors := s.vectors[:len(cs)]
	for i := range cs {
		ch, to := &cs[i], &vectors[i]
		if *to == (vector{}) { // no place has it
			ch.cost = unknownCost
			continue
		}
		ch.known, ch.Source = true, Geography
		ch.cosine = from.x*to.x + from.y*to.y + from.z*to.z
		ch.cost = angleCost(ch.cosine)
	}
}

// angleCost grows with the angle, in steps that are 200 m at the client's own place and less beyond, so that only regions
// at one place are ever equally far.
func angleCost(cosine float64) uint32 {
	if cosine > 1 { // by a rounding error, at the client's own place
		return 0
	}
	return uint32(int64((1 - cosine) * (1<<31 - 1)))
}

// distancesMixed fills in how far the client is from each region by the best source that there is for each.
func (s *Snapshot) distancesMixed(cs []Choice, c *Client) {
	from := c.Point.vector()
	for i := range cs {
		ch := &cs[i]
		ch.cost = unknownCost
		if c.Point.Located && s.Regions[i].Location.Located {
			ch.known, ch.cosine = true, from.dot(s.vectors[i])
		}
		switch {
		case i < len(c.RTT) && c.RTT[i].Micros > 0:
			ch.Source, ch.cost = c.RTT[i].Source, c.RTT[i].Micros
		case ch.known:
			ch.Source, ch.cost = Geography, geographicCost(ch.cosine)
		case c.Via-1 == i:
			ch.Source, ch.cost = PeerRTT, 0
		case c.Via > 0 && c.Via <= len(s.PeerRTT) && s.PeerRTT[c.Via-1][i] > 0:
			ch.Source, ch.cost = PeerRTT, s.PeerRTT[c.Via-1][i]
			if s.Estimated != nil && s.Estimated[c.Via-1][i] {
				ch.Source = Coordinates
			}
		}
	}
}

// geographicCost is the round trip that the angle between two places lets expect, in steps of 10 microseconds (half a
// kilometre), so that only regions at one place are ever equally far. The arc cosine is Abramowitz and Stegun's 4.4.45: it
// errs by less than half a kilometre and is monotone in such steps, at a tenth of the exact one's price.
func geographicCost(cosine float64) uint32 {
	x := math.Min(math.Abs(cosine), 1)
	angle := math.Sqrt(1-x) * (1.5707288 + x*(-0.2121144+x*(0.0742610-x*0.0187293)))
	if cosine < 0 {
		angle = math.Pi - angle
	}
	return uint32(baseMicros/10+microsPerKM*earthRadiusKM/10*angle+0.5) * 10
}

// DistanceKM is the great-circle distance between client and region in kilometres; ok is false when it is not known.
func (c Choice) DistanceKM() (km float64, ok bool) {
	if !c.known {
		return 0, false
	}
	return earthRadiusKM * math.Acos(math.Min(1, math.Max(-1, c.cosine))), true
}

// RTTMillis is the round trip that the choice was made by, in milliseconds: measured, or, with Source Geography, what the
// distance lets expect. ok is false without any.
func (c Choice) RTTMillis() (ms float64, ok bool) {
	switch {
	case c.cost == unknownCost:
		return 0, false
	case c.Source == Geography:
		return float64(geographicCost(c.cosine)) / 1000, true
	}
	return float64(c.cost) / 1000, true
}
