package upstream

import (
	"crypto/tls"
	"fmt"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"landfall/routing"
)

// origin is one address of a pool. Safe for concurrent use.
type origin struct {
	// Immutable.
	name    string // as the config writes it
	scheme  string
	host    string // host:port
	bound   int64  // requests in flight
	waiters int64  // of these, those that wait for a connection
	pool    *Pool
	breaker *breaker
	limiter *limiter
	tls     *tls.Config

	transports atomic.Pointer[transports] // replaced when they are old

	state    atomic.Uint32 // routing.State, or unchecked
	drained  atomic.Bool   // an operator's word
	gone     atomic.Bool   // no longer a member of the pool
	weight   atomic.Int64
	inFlight atomic.Int64
	pending  atomic.Int64 // of these, those that wait for a connection
	requests atomic.Uint64
	failures atomic.Uint64
	failure  atomic.Pointer[failure] // the latest

	passive   passive
	ewma      atomic.Uint64 // float bits: latency in nanoseconds
	ewmaAt    atomic.Int64  // nanoseconds since 1970
	rampSince atomic.Int64  // nanoseconds since 1970, when it began to come back; 0: it has its full share
}

type failure struct {
	cause string
	at    time.Time
}

// unchecked is the state of an origin of which no health check told.
const unchecked = uint32(255)

func newOrigin(p *Pool, name string, config *tls.Config) (*origin, error) {
	u, err := url.Parse(name)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("origin %q is not of the form http://host:port or https://host:port", name)
	}
	c := p.o.Breaker
	o := &origin{
		name: name, scheme: u.Scheme, host: u.Host, bound: int64(c.Requests), waiters: int64(c.Pending), pool: p,
		limiter: newLimiter(p.o.Concurrency, int64(c.Requests)), tls: config,
	}
	o.transports.Store(o.newTransports())
	o.weight.Store(1)
	o.state.Store(unchecked)
	o.passive.window.period = int64(ejectWindow) / windowBuckets
	o.breaker = newBreaker(c, p.o.Now, o.breakerChanged)
	return o, nil
}

// health is what is believed of the origin by its health check and by operators.
func (o *origin) health() routing.State {
	state := routing.Up
	if s := o.state.Load(); s != unchecked {
		state = routing.State(s)
	}
	if o.drained.Load() && state < routing.Draining {
		return routing.Draining
	}
	return state
}

func (o *origin) breakerChanged(from, to gobreaker.State) {
	kind, detail := breakerText(o.breaker, from, to)
	if f := o.failure.Load(); f != nil && to == gobreaker.StateOpen {
		detail += ", the latest by " + f.cause
	}
	if to == gobreaker.StateClosed {
		o.comesBack(o.pool.o.Now())
	}
	o.pool.tell(kind, o.name, detail)
}

// comesBack begins the origin's slow start, if the pool has one, or its trial.
func (o *origin) comesBack(now time.Time) {
	if o.pool.o.SlowStart <= 0 && o.passive.trial.Load() == 0 {
		return
	}
	if o.rampSince.Swap(now.UnixNano()) == 0 {
		o.pool.returning.Add(1)
	}
}

// factor is the part of its weight that an origin has on its way back, from 0.1 to 1.
func (o *origin) factor(now time.Time) float64 {
	since := o.rampSince.Load()
	if since == 0 {
		return 1
	}
	if o.passive.trial.Load() > 0 {
		return trialShare
	}
	slow := o.pool.o.SlowStart
	if age := time.Duration(now.UnixNano() - since); age < slow {
		return max(float64(age)/float64(slow), trialShare)
	}
	if o.rampSince.CompareAndSwap(since, 0) {
		o.pool.returning.Add(-1)
	}
	return 1
}

// share is the origin's weight now.
func (o *origin) share(now time.Time) float64 { return float64(o.weight.Load()) * o.factor(now) }

// lease is an origin's leave to make one attempt on it. release must be called exactly once, and so must ticket.done.
type lease struct {
	origin *origin
	ticket ticket
}

// lease asks for a slot; a refusal is CauseAtBound, CauseShed or CauseBreakerOpen and leaves nothing to be given back.
func (o *origin) lease(priority int) (l lease, refusal string) {
	n := o.inFlight.Add(1)
	switch {
	case n > o.bound || o.pending.Load() >= o.waiters:
		refusal = CauseAtBound
	case !o.limiter.admits(n, priority):
		refusal = CauseShed
	default:
		t, ok := o.breaker.allow()
		if ok {
			o.pending.Add(1)
			return lease{o, t}, ""
		}
		refusal = CauseBreakerOpen
	}
	o.inFlight.Add(-1)
	return lease{}, refusal
}

// release gives the slot back. The attempt must have stopped waiting for a connection.
func (l lease) release() { l.origin.inFlight.Add(-1) }

// left is called when an attempt is over: connections that nobody will use again are closed.
func (o *origin) left(t *transports) {
	if t != o.transports.Load() || o.gone.Load() || o.pool.closed.Load() {
		t.closeIdle()
	}
}

// failed notes a failure of the origin.
func (o *origin) failed(cause string, now time.Time) {
	o.failures.Add(1)
	o.failure.Store(&failure{cause, now})
}

func (o *origin) status() OriginStatus {
	s := OriginStatus{
		URL: o.name, State: o.health(), Checked: o.state.Load() != unchecked, Breaker: o.breaker.state().String(),
		Forced: o.breaker.forced.Load() != forcedNot, Ejected: o.passive.until.Load() > o.pool.o.Now().UnixNano(), Drained: o.drained.Load(),
		InFlight: int(o.inFlight.Load()), Limit: int(o.limiter.current()), Weight: int(o.weight.Load()), Share: o.factor(o.pool.o.Now()),
		Requests: o.requests.Load(), Failures: o.failures.Load(),
	}
	if f := o.failure.Load(); f != nil {
		s.LastFailure, s.LastFailed = f.cause, f.at
	}
	return s
}
