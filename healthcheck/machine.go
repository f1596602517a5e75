package healthcheck

import (
	"time"

	"landfall/routing"
)

// staleAfter is how many intervals without a result make a state unknown.
const staleAfter = 5

// machine is the state of one target. It is pure: time and results are handed in. Its transitions, all of them:
//
//	unknown  one success                 up       a target that was never measured is believed at its first success: a
//	                                              node that starts must not wait for rise intervals to serve
//	unknown  fall failures in a row      down
//	up       fall failures in a row      down
//	down     rise successes in a row     up
//	up,down  no result for staleAfter    unknown  the counts start anew
//
// A failure while up with fewer than fall in a row, and a success while down with fewer than rise, change nothing.
type machine struct {
	// Immutable.
	rise, fall int
	maxAge     time.Duration // a state without a result for longer is stale

	state routing.State // Unknown, Up or Down
	good  int           // successes in a row
	bad   int           // failures in a row
	since time.Time     // when state began
	last  time.Time     // the latest result; zero: none yet
}

func newMachine(rise, fall int, maxAge time.Duration, now time.Time) machine {
	return machine{rise: rise, fall: fall, maxAge: maxAge, state: routing.Unknown, since: now}
}

// step takes a probe's result and tells whether the state changed.
func (m *machine) step(now time.Time, healthy bool) (changed bool) {
	before := m.state
	m.expire(now) // a result after a long silence doesn't build on what was before it
	m.last = now
	if healthy {
		m.good, m.bad = m.good+1, 0
	} else {
		m.good, m.bad = 0, m.bad+1
	}
	switch {
	case m.state == routing.Unknown && m.good >= 1, m.state == routing.Down && m.good >= m.rise:
		m.enter(routing.Up, now)
	case m.state != routing.Down && m.bad >= m.fall:
		m.enter(routing.Down, now)
	}
	return m.state != before
}

// expire makes a state that is too old unknown and tells whether it did.
func (m *machine) expire(now time.Time) (changed bool) {
	if !m.stale(now) {
		return false
	}
	m.enter(routing.Unknown, now)
	m.good, m.bad = 0, 0
	return true
}

// stale tells whether the state is too old to be believed.
func (m *machine) stale(now time.Time) bool {
	return m.state != routing.Unknown && now.Sub(m.last) > m.maxAge
}

func (m *machine) enter(s routing.State, now time.Time) {
	m.state, m.since = s, now
}
