package routing

// The salts keep the shares of a region independent of each other: whom a drain moves first is not whom a spill sends on
// first, nor whom weights prefer.
const (
	saltDrain = 0x9d39247e33776d41
	saltSpill = 0x2af7398005aaa5c7

	saltReturn  = 0x9c15f73e62a76ae2
	saltExplore = 0x44db015024623547
)

// SpilledFrom is the region that a client would have gone to, were it not full.
func (d Decision) SpilledFrom() (region int, ok bool) {
	for i := range d.Choices[:d.Usable] {
		if c := &d.Choices[i]; c.Reason == Full && i > 0 && (c.order < d.Choices[0].order || c.order == d.Choices[0].order && c.cost <= d.Choices[0].cost) {
			return c.Region, true
		}
	}
	return 0, false
}

// Explores tells whether a client is in the share that goes to the runner-up in a period: another share in each.
func Explores(share float64, key, period uint64) bool {
	return inShare(share, key, mix(period), saltExplore)
}

// inShare tells whether a client is among the share of all clients that a region gives away. A growing share keeps those
// that it had, so that each client moves once.
func inShare(share float64, key, region, salt uint64) bool {
	if share <= 0 {
		return false
	}
	return float64(mix(key^region^salt)>>11)/(1<<53) < share
}
