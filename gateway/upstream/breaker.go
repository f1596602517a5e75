package upstream

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"landfall/configs"
)

// What an attempt tells the breaker; nil is success.
var (
	errFailure = errors.New("the origin failed")
	errNeutral = errors.New("says nothing about the origin") // neither success nor failure
)

// breaker is the circuit breaker of one origin, or of a whole pool: closed; open when the share of failures in the rolling
// window reaches TripAt and at least MinRequests ended in it; half-open after Open, when Probes requests are let through
// at a time; closed again after as many successes in a row, open again after one failure. Safe for concurrent use.
//
// The states are gobreaker's. While it is closed, which is nearly always, it isn't asked: its mutex and the closure that
// it makes for each request would be met by every request on every core. A window without a lock counts instead, and
// trips it.
type breaker struct {
	c   configs.Breaker
	now func() time.Time
	cb  *gobreaker.TwoStepCircuitBreaker[struct{}]

	last       atomic.Int32  // gobreaker.State at the last change
	generation atomic.Uint32 // counts the changes: what began before the last one tells nothing
	forced     atomic.Int32  // an operator's word, see force
	window     window

	tripped atomic.Pointer[counts] // what the window showed when it tripped last
	changes atomic.Int32           // length of pending
	mu      sync.Mutex
	pending []change
	notify  func(from, to gobreaker.State)
}

type change struct{ from, to gobreaker.State }

// What an operator may say of a breaker.
const (
	forcedNot = iota
	forcedOpen
	forcedClosed
)

// newBreaker makes a closed breaker. notify hears of each change, outside the breaker's locks.
func newBreaker(c configs.Breaker, now func() time.Time, notify func(from, to gobreaker.State)) *breaker {
	b := &breaker{c: c, now: now, notify: notify}
	b.window.period = max(int64(c.Window)/windowBuckets, 1)
	b.cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:  uint32(c.Probes),
		Timeout:      c.Open.D(),
		ReadyToTrip:  func(gobreaker.Counts) bool { return true }, // while closed it hears only of the failure that trips it
		IsSuccessful: func(err error) bool { return err == nil },
		IsExcluded:   func(err error) bool { return errors.Is(err, errNeutral) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			// Runs under gobreaker's mutex: only take a note, flush tells it.
			b.generation.Add(1)
			b.window.clear()
			b.last.Store(int32(to))
			b.mu.Lock()
			b.pending = append(b.pending, change{from, to})
			b.changes.Store(int32(len(b.pending)))
			b.mu.Unlock()
		},
	})
	return b
}

// ticket is leave to send one request. Its done must be called exactly once.
type ticket struct {
	b          *breaker
	generation uint32
	told       func(error) // gobreaker's; nil while closed
	halfOpen   bool        // the request is one of the few that decide whether the breaker closes: its slot must not be held for long
}

// allow asks for leave to send one request.
func (b *breaker) allow() (t ticket, ok bool) {
	switch b.forced.Load() {
	case forcedOpen:
		return ticket{}, false
	case forcedClosed:
		return ticket{b: b}, true
	}
	generation := b.generation.Load()
	if gobreaker.State(b.last.Load()) == gobreaker.StateClosed {
		return ticket{b: b, generation: generation}, true
	}
	told, err := b.cb.Allow()
	t = ticket{b: b, generation: b.generation.Load(), told: told}
	t.halfOpen = gobreaker.State(b.last.Load()) == gobreaker.StateHalfOpen
	b.flush()
	return t, err == nil
}

// done tells the outcome: nil, errFailure or errNeutral.
func (t ticket) done(outcome error) {
	if t.told != nil {
		t.told(outcome)
		return
	}
	if t.b.forced.Load() != forcedNot || t.generation != t.b.generation.Load() {
		return
	}
	now := t.b.now()
	at := t.b.window.at(now)
	switch outcome {
	case nil:
		at.good.Add(1)
	case errFailure:
		at.bad.Add(1)
		t.b.trip(now)
	default:
		at.neither.Add(1)
	}
}

// trip opens a closed breaker when its window says so.
func (b *breaker) trip(now time.Time) {
	n := b.window.sum(now)
	ended := n.good + n.bad
	if ended < uint32(b.c.MinRequests) || float64(n.bad) < float64(b.c.TripAt)*float64(ended) {
		return
	}
	b.tripped.Store(&n)
	if told, err := b.cb.Allow(); err == nil {
		told(errFailure)
	}
}

// why says what the window showed when the breaker tripped.
func (b *breaker) why() string {
	if n := b.tripped.Load(); n != nil {
		return fmt.Sprintf("%d of %d requests in %s failed", n.bad, n.good+n.bad, b.c.Window)
	}
	return "too many requests failed"
}

// force is an operator's word, which holds until another one: forcedOpen refuses all, forcedClosed lets all pass and
// counts nothing, forcedNot leaves the breaker to itself, starting from where it was.
func (b *breaker) force(how int32) (changed bool) { return b.forced.Swap(how) != how }

// state is the breaker's state now: an open breaker whose time is over is half-open even before a request comes.
func (b *breaker) state() gobreaker.State {
	switch b.forced.Load() {
	case forcedOpen:
		return gobreaker.StateOpen
	case forcedClosed:
		return gobreaker.StateClosed
	}
	if s := gobreaker.State(b.last.Load()); s != gobreaker.StateOpen {
		return s
	}
	s := b.cb.State()
	b.flush()
	return s
}

// shut tells whether the breaker refuses now: open, and its time not over. While it is closed that costs two loads.
func (b *breaker) shut() bool {
	switch b.forced.Load() {
	case forcedOpen:
		return true
	case forcedClosed:
		return false
	}
	return gobreaker.State(b.last.Load()) == gobreaker.StateOpen && b.state() == gobreaker.StateOpen
}

// flush tells the changes that were noted, to be called without any lock held.
func (b *breaker) flush() {
	if b.changes.Load() == 0 {
		return
	}
	b.mu.Lock()
	changes := b.pending
	b.pending = nil
	b.changes.Store(0)
	b.mu.Unlock()
	for _, c := range changes {
		b.notify(c.from, c.to)
	}
}

// breakerText says a breaker's change in words: the kind of its event and the detail.
func breakerText(b *breaker, from, to gobreaker.State) (kind, detail string) {
	switch to {
	case gobreaker.StateHalfOpen:
		return "breaker.half_open", fmt.Sprintf("trying %d requests", b.c.Probes)
	case gobreaker.StateClosed:
		return "breaker.closed", "the requests that were tried succeeded"
	}
	if from == gobreaker.StateHalfOpen {
		return "breaker.open", "a request that was tried failed"
	}
	return "breaker.open", b.why()
}

// normalBreaker fills in the defaults of the config language for what is zero, so that a pool made without a config
// file behaves like one made with the smallest.
func normalBreaker(c configs.Breaker) configs.Breaker {
	if c.TripAt <= 0 {
		c.TripAt = 0.5
	}
	if c.PoolTripAt <= 0 {
		c.PoolTripAt = 0.8
	}
	if c.MinRequests <= 0 {
		c.MinRequests = 20
	}
	if c.Window <= 0 {
		c.Window = configs.Duration(10 * time.Second)
	}
	if c.Open <= 0 {
		c.Open = configs.Duration(5 * time.Second)
	}
	if c.Probes <= 0 {
		c.Probes = 3
	}
	if c.Requests <= 0 {
		c.Requests = 1000
	}
	if c.Connections <= 0 {
		c.Connections = 1000
	}
	if c.Pending <= 0 {
		c.Pending = 1000
	}
	return c
}
