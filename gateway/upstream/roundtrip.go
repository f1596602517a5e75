package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// Attempt tells how a request went, for the account phase.
type Attempt struct {
	Origin string // URL of the origin of the last attempt; empty when none was made
	Tries  int    // attempts made
	// Cause is what the request failed of: empty for a response that isn't a failure, CauseStatus for one that is,
	// CauseBudget when a retry was due and the budget was spent (the Error then has what the attempt failed of).
	Cause string
	Sent  bool   // an attempt may have reached an origin
	Fault string // of the last attempt that had one made on purpose; empty: none had
}

// exchange is one client's request over all of its attempts, run by the caller's goroutine.
type exchange struct {
	p     *Pool
	r     *http.Request
	pol   RetryPolicy
	body  *bodySource
	ctx   context.Context
	stop  context.CancelFunc // ends the total timeout
	total *timeoutError      // nil without one
	tried []*origin
	space [4]*origin // of tried
	pool  ticket     // of the pool's own breaker
	told  atomic.Bool
	info  Attempt
	// current is the origin of the attempt under way, for a hedge to avoid.
	current atomic.Pointer[origin]
	final   *attempt // the one whose response was handed on

	// The latest failure. A response that was a failure is kept open until a later attempt does better.
	err  *Error
	resp *http.Response
}

// RoundTrip sends r to an origin, and to others when attempts fail and pol allows it. r is ready to be sent but for the
// origin's address: scheme and host of r.URL are ignored, r.Host goes to the origin as it is. r isn't changed, its
// context's httptrace hooks are called (for 1xx responses), and its body is closed.
//
// The caller must close the response's body; a 101 response's is an io.ReadWriteCloser with CloseWrite. Errors are
// *Error, those of the body too. A failure status that can't be retried is a response and not an error.
func (p *Pool) RoundTrip(r *http.Request, pol RetryPolicy) (*http.Response, Attempt, error) {
	now := p.o.Now()
	p.budget.request(now)
	if pol.Hedge != nil && hedgeable(r) {
		p.hedges.request(now)
		return p.hedged(r, pol)
	}
	return p.newExchange(r, pol, func() {}).start()
}

// newExchange prepares an exchange. ended is called once it is over, its response's body included.
func (p *Pool) newExchange(r *http.Request, pol RetryPolicy, ended func()) *exchange {
	x := &exchange{p: p, r: r, pol: pol.normal(), ctx: r.Context(), stop: ended}
	x.tried = x.space[:0]
	if d := grpcTimeout(r.Header.Get("Grpc-Timeout")); d > 0 && isGRPC(r) && (x.pol.Total <= 0 || d < x.pol.Total) {
		x.pol.Total = d
	}
	if x.pol.Total > 0 {
		var cancel context.CancelFunc
		x.total = &timeoutError{"the request and its retries were not done", x.pol.Total}
		x.ctx, cancel = context.WithTimeoutCause(x.ctx, x.pol.Total, x.total)
		x.stop = func() { cancel(); ended() }
	}
	return x
}

func (x *exchange) start() (*http.Response, Attempt, error) {
	var ok bool
	if x.pool, ok = x.p.breaker.allow(); !ok {
		return x.giveUp(CauseBreakerOpen)
	}
	defer x.tellPool(errNeutral) // on a panic too: a breaker that isn't told would stay half-open for ever
	if x.pool.halfOpen {
		watchdog := time.AfterFunc(max(x.p.o.Breaker.Open.D(), time.Second), func() { x.tellPool(errNeutral) })
		defer watchdog.Stop()
	}
	var err error
	if x.body, err = newBodySource(x.r); err != nil {
		x.err = &Error{Cause: bodyCause(err), Err: err}
	}
	resp, info, err := x.outcome()
	x.tellPool(x.p.outcome(info, err))
	return resp, info, err
}

// tellPool tells the pool's breaker the outcome. Only the first call counts.
func (x *exchange) tellPool(outcome error) {
	if !x.told.Swap(true) {
		x.pool.done(outcome)
		x.p.breaker.flush()
	}
}

func (x *exchange) outcome() (*http.Response, Attempt, error) {
	if x.err != nil {
		return x.giveUp("")
	}
	return x.run()
}

// outcome is what a request that is over tells the pool's own breaker. A pool of one origin leaves it to that one's.
func (p *Pool) outcome(info Attempt, err error) error {
	var e *Error
	switch {
	case len(p.members.Load().list) < 2:
		return errNeutral
	case err == nil && info.Cause == "":
		return nil
	case err == nil: // a response that is a failure
		return errFailure
	case errors.As(err, &e) && e.originAtFault():
		return errFailure
	}
	return errNeutral
}

func (x *exchange) run() (*http.Response, Attempt, error) {
	for {
		l, refusal := x.p.acquire(x.tried, x.pol.Key, x.pol.Priority)
		if refusal != "" {
			return x.giveUp(refusal)
		}
		if x.info.Tries > 0 {
			x.p.metrics.retries[x.failure()].Inc()
		}
		if done := x.try(l); done {
			return x.resp, x.info, nil
		}
		if again, why := x.retry(); !again {
			return x.giveUp(why)
		}
	}
}

// try makes one attempt and tells whether its response is to be handed on. If not, err or resp hold the failure.
func (x *exchange) try(l lease) bool {
	a := x.p.newAttempt(x.ctx, l, x.pol)
	handedOn := false
	defer func() {
		if !handedOn { // on a panic or runtime.Goexit too: a breaker that isn't told would stay half-open for ever
			a.abandon()
		}
	}()
	x.info.Tries++
	x.info.Origin = l.origin.name
	x.current.Store(l.origin)
	if a.fault != nil {
		x.info.Fault = a.fault.ID
	}
	if !slices.Contains(x.tried, l.origin) {
		x.tried = append(x.tried, l.origin)
	}
	resp, err := a.send(x.r, x.body)
	if err != nil {
		x.fail(a, err)
		return false
	}
	x.info.Sent = true
	x.p.metrics.code(resp.StatusCode)
	now := x.p.o.Now()
	x.p.metrics.duration.Observe(now.Sub(a.started).Seconds())
	if !failureStatus(resp.StatusCode) {
		a.learn(true, now)
	}
	handedOn = true
	x.receive(a, resp)
	return x.info.Cause == ""
}

func (x *exchange) fail(a *attempt, err error) {
	e := a.classify(x.r, x.body, err)
	x.info.Sent = x.info.Sent || e.Sent
	e.Sent = x.info.Sent
	x.err, x.info.Cause = e, e.Cause
	x.p.metrics.code(0)
	if e.originAtFault() {
		a.fail(e.Cause)
	}
	x.p.o.Logger.Debug("attempt failed", "service", x.p.o.Service, "origin", e.Origin, "try", x.info.Tries, "cause", e.Cause, "error", e.Err)
}

// receive keeps a response and puts our body in place of its own.
func (x *exchange) receive(a *attempt, resp *http.Response) {
	x.drop()
	x.resp, x.err, x.info.Cause, x.final = resp, nil, "", a
	if failureStatus(resp.StatusCode) {
		a.fail(CauseStatus)
		x.info.Cause = CauseStatus
	}
	if rwc, ok := resp.Body.(io.ReadWriteCloser); ok && resp.StatusCode == http.StatusSwitchingProtocols {
		a.settle(nil)
		resp.Body = newUpgradedBody(rwc, a, x)
		return
	}
	if bodiless(resp) {
		a.settle(nil)
		a.end()
		if x.info.Cause == "" {
			resp.Body = http.NoBody // those behind must see that nothing follows: gRPC tells a status without a message by it
			x.end(a)
			return
		}
	}
	resp.Body = newResponseBody(resp, a, x)
}

// bodiless tells whether a response ended with its headers. In HTTP/2 that is one without a Content-Length whose length is
// known all the same (RFC 9113 section 8.1).
func bodiless(resp *http.Response) bool {
	return resp.Body == nil || resp.Body == http.NoBody ||
		resp.ProtoMajor == 2 && resp.ContentLength == 0 && resp.Header["Content-Length"] == nil
}

// failure is the cause of the latest attempt's failure.
func (x *exchange) failure() string {
	if x.err != nil {
		return x.err.Cause
	}
	return CauseStatus
}

// retry tells whether another attempt is to be made, after waiting for it; if not, why is CauseBudget, CauseCanceled or
// empty. The rules stand in the package's documentation.
func (x *exchange) retry() (again bool, why string) {
	listed := x.err == nil && x.pol.On.status(x.resp.StatusCode) || x.err != nil && x.pol.On.cause(x.err.Cause)
	safe := repeatable(x.r) || x.err != nil && !x.info.Sent
	switch {
	case x.info.Tries >= x.pol.Attempts, !listed, !safe, !x.body.replayable(), x.ctx.Err() != nil:
		return false, ""
	case !x.p.budget.take(x.p.o.Now(), x.pol.Budget):
		x.p.metrics.exhausted.Inc()
		return false, CauseBudget
	}
	wait := time.NewTimer(backoff(x.info.Tries, x.p.o.Rand()))
	defer wait.Stop()
	select {
	case <-wait.C:
		return true, ""
	case <-x.ctx.Done():
		return false, ""
	}
}

// giveUp ends the exchange with its latest response, else with its latest error, else with the refusal.
func (x *exchange) giveUp(why string) (*http.Response, Attempt, error) {
	if why == CauseBudget {
		x.info.Cause = why
	}
	if x.resp != nil {
		if x.info.Cause != CauseBudget {
			x.info.Cause = CauseStatus
		}
		return x.resp, x.info, nil
	}
	if x.err == nil {
		x.err = refusalError(why)
		x.p.metrics.refused[why].Inc()
		if why == CauseShed {
			x.p.metrics.shed[x.pol.Priority].Inc()
		}
	}
	if x.info.Cause == "" {
		x.info.Cause = x.err.Cause
	}
	x.stop()
	if x.body != nil {
		x.body.close()
	} else if x.r.Body != nil {
		_ = x.r.Body.Close() // refused before it was looked at
	}
	return nil, x.info, x.err
}

// drop lets go of an earlier attempt's response, when there is one. A short body that is there already is read, so that
// the connection can serve again; anything else is cut, since a better response waits.
func (x *exchange) drop() {
	if x.resp == nil {
		return
	}
	const worthReading, worthWaiting = 4 << 10, 5 * time.Millisecond
	body, a := x.resp.Body, x.final
	x.resp, x.final = nil, nil
	cut := time.AfterFunc(worthWaiting, func() { a.cancel(errAbandoned) })
	defer cut.Stop()
	_, _ = io.CopyN(io.Discard, body, worthReading)
	_ = body.Close()
}

// end is told by the body of each response that it ended; that of the response handed on ends the exchange.
func (x *exchange) end(a *attempt) {
	if a == x.final {
		x.stop()
		x.body.close()
	}
}
