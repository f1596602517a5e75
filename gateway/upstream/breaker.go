package upstream

import (
	"errors"
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

// breaker is the circuit breaker of one origin: closed; open when the share of failures in the rolling window reaches
// TripAt and at least MinRequests ended in it; half-open after Open, when Probes requests are let through at a time; closed
// again after as many successes in a row, open again after one failure. Safe for concurrent use.
type breaker struct {
	cb      *gobreaker.TwoStepCircuitBreaker[struct{}]
	last    atomic.Int32 // gobreaker.State at the last change
	changes atomic.Int32 // length of pending
	mu      sync.Mutex
	pending []change
	notify  func(from, to gobreaker.State)
}

type change struct{ from, to gobreaker.State }

// windowBuckets is how finely the window rolls.
const windowBuckets = 10

// newBreaker makes a closed breaker. notify hears of each change, outside the breaker's locks.
func newBreaker(c configs.Breaker, notify func(from, to gobreaker.State)) *breaker {
	b := &breaker{notify: notify}
	b.cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:  uint32(c.Probes),
		Interval:     c.Window.D(),
		BucketPeriod: max(c.Window.D()/windowBuckets, time.Nanosecond),
		Timeout:      c.Open.D(),
		ReadyToTrip: func(n gobreaker.Counts) bool {
			// Requests counts those still in flight too; only those that ended say anything.
			ended := n.TotalSuccesses + n.TotalFailures
			return ended >= uint32(c.MinRequests) && float64(n.TotalFailures) >= float64(c.TripAt)*float64(ended)
		},
		IsSuccessful: func(err error) bool { return err == nil },
		IsExcluded:   func(err error) bool { return errors.Is(err, errNeutral) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			// Runs under gobreaker's mutex: only take a note, flush tells it.
			b.last.Store(int32(to))
			b.mu.Lock()
			b.pending = append(b.pending, change{from, to})
			b.changes.Store(int32(len(b.pending)))
			b.mu.Unlock()
		},
	})
	return b
}

// allow asks for leave to send one request. done must be called exactly once; halfOpen says that the request is one of
// the few that decide whether the breaker closes, so that its slot must not be held for long.
func (b *breaker) allow() (done func(error), halfOpen, ok bool) {
	done, err := b.cb.Allow()
	halfOpen = gobreaker.State(b.last.Load()) == gobreaker.StateHalfOpen
	b.flush()
	return done, halfOpen, err == nil
}

// state is the breaker's state now: an open breaker whose time is over is half-open even before a request comes.
func (b *breaker) state() gobreaker.State {
	if s := gobreaker.State(b.last.Load()); s != gobreaker.StateOpen {
		return s
	}
	s := b.cb.State()
	b.flush()
	return s
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

// normalBreaker fills in the defaults of the config language for what is zero, so that a pool made without a config
// file behaves like one made with the smallest.
func normalBreaker(c configs.Breaker) configs.Breaker {
	if c.TripAt <= 0 {
		c.TripAt = 0.5
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
	return c
}
