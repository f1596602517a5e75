package mesh

import "time"

// outcome is how an attempt to talk ended: a closed list.
type outcome uint8

const (
	good    outcome = iota // answered
	missed                 // no answer in time
	refused                // nobody listens there, or it was turned down: the answer came at once, and it was no
	cut                    // an open connection broke: a process that is killed ends so
)

// standing is this node's own verdict on a peer.
type standing uint8

const (
	untried standing = iota
	reachable
	unreachable
)

// The counts that turn a verdict. A killed process refuses at once, so two refusals suffice; a lost packet is silence,
// so silence needs more.
const (
	refusalsDown = 2
	missesDown   = 3
	goodsUp      = 2
)

// reach is the state machine of one peer's reachability. It knows no clock: step is given the time.
type reach struct {
	standing standing
	since    time.Time // of the last good beat, or of the first try
	refusals int       // in a row
	misses   int       // in a row, refusals included
	goods    int       // in a row
}

// step is the machine's one transition. silence is how long a peer may stay silent.
func (r reach) step(now time.Time, o outcome, silence time.Duration) reach {
	if r.since.IsZero() {
		r.since = now
	}
	if o == good {
		r.since, r.refusals, r.misses = now, 0, 0
		r.goods = min(r.goods+1, goodsUp)
		if r.standing != unreachable || r.goods >= goodsUp {
			r.standing = reachable
		}
		return r
	}
	r.goods = 0
	if o == cut {
		r.standing = unreachable
		return r
	}
	r.misses = min(r.misses+1, missesDown)
	r.refusals++
	if o != refused {
		r.refusals = 0
	}
	r.refusals = min(r.refusals, refusalsDown)
	if r.refusals >= refusalsDown || r.misses >= missesDown || now.Sub(r.since) >= silence {
		r.standing = unreachable
	}
	return r
}

// silenceLimit is how long a peer may stay silent: five beats, at least a second and a quarter, and two round trips more:
// a segment that is lost twice over comes after three retransmission timeouts, each a fifth of a second and a round trip.
func silenceLimit(beat, rtt time.Duration) time.Duration {
	return max(5*beat, 1250*time.Millisecond) + 2*rtt
}

// smooth is the running round trip after one more sample, by the weight of RFC 6298 section 2.3.
func smooth(old, sample time.Duration) time.Duration {
	if old == 0 {
		return sample
	}
	return old + (sample-old)/8
}
