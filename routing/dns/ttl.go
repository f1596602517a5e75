package dns

import "time"

// TTL is how long an answer may be kept that has stayed what it is for the time calm: half of that time, since what has
// just changed will change again, within least and most. It goes in doubling steps from least, so that nodes that saw a
// change a moment apart still say the same, and a signed answer has few forms. Without a least it is most.
func TTL(least, most, calm time.Duration) time.Duration {
	if least <= 0 {
		return max(most, 0)
	}
	ttl := least
	for ttl < most && calm/2 >= min(ttl*2, most) {
		ttl *= 2
	}
	return min(ttl, most)
}

// ttlAfter is the TTL of a steered answer, in seconds.
func (z *zone) ttlAfter(calm time.Duration) uint32 {
	return uint32(TTL(time.Duration(z.minTTL)*time.Second, time.Duration(z.ttl)*time.Second, calm) / time.Second)
}
