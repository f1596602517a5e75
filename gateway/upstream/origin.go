package upstream

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"landfall/routing"
)

// origin is one address of a pool. Safe for concurrent use.
type origin struct {
	// Immutable.
	name      string // as the config writes it
	scheme    string
	host      string // host:port
	bound     int64  // requests in flight
	pool      *Pool
	breaker   *breaker
	transport *http.Transport

	state    atomic.Uint32 // routing.State, or unchecked
	inFlight atomic.Int64
	requests atomic.Uint64
	failures atomic.Uint64
	failure  atomic.Pointer[failure] // the latest
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
	o := &origin{
		name: name, scheme: u.Scheme, host: u.Host, bound: int64(p.o.Breaker.Requests), pool: p,
		transport: newTransport(p.o.Dial, config),
	}
	o.state.Store(unchecked)
	o.breaker = newBreaker(p.o.Breaker, o.breakerChanged)
	return o, nil
}

// health is what is believed of the origin by its health check alone.
func (o *origin) health() routing.State {
	if s := o.state.Load(); s != unchecked {
		return routing.State(s)
	}
	return routing.Up
}

func (o *origin) breakerChanged(from, to gobreaker.State) {
	kind, detail := "breaker.open", "too many requests failed"
	switch to {
	case gobreaker.StateHalfOpen:
		kind, detail = "breaker.half_open", fmt.Sprintf("trying %d requests", o.pool.o.Breaker.Probes)
	case gobreaker.StateClosed:
		kind, detail = "breaker.closed", "the requests that were tried succeeded"
	case gobreaker.StateOpen:
		if from == gobreaker.StateHalfOpen {
			detail = "a request that was tried failed"
		}
		if f := o.failure.Load(); f != nil {
			detail += ", the latest by " + f.cause
		}
	}
	o.pool.o.Logger.Warn(kind, "service", o.pool.o.Service, "region", o.pool.o.Region, "origin", o.name, "detail", detail)
	o.pool.o.OnEvent(kind, o.name, detail)
}

// lease is an origin's leave to make one attempt on it. release and done must each be called exactly once.
type lease struct {
	origin   *origin
	done     func(error) // tells the breaker; see breaker.allow
	halfOpen bool
}

// lease asks for a slot; a refusal is CauseAtBound or CauseBreakerOpen and leaves nothing to be given back.
func (o *origin) lease() (l lease, refusal string) {
	if o.inFlight.Add(1) > o.bound {
		o.inFlight.Add(-1)
		return lease{}, CauseAtBound
	}
	done, halfOpen, ok := o.breaker.allow()
	if !ok {
		o.inFlight.Add(-1)
		return lease{}, CauseBreakerOpen
	}
	return lease{o, done, halfOpen}, ""
}

// release gives the slot back.
func (l lease) release() {
	l.origin.inFlight.Add(-1)
	if l.origin.pool.closed.Load() {
		l.origin.transport.CloseIdleConnections()
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
		InFlight: int(o.inFlight.Load()), Requests: o.requests.Load(), Failures: o.failures.Load(),
	}
	if f := o.failure.Load(); f != nil {
		s.LastFailure, s.LastFailed = f.cause, f.at
	}
	return s
}
