package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// attempt is one request sent to one origin, from the lease to the end of the response's body. Its phases: connecting and
// sending, waiting for the headers (first-byte timeout), streaming (idle timeout). Two things end, each exactly once: the
// breaker hears of the outcome (settle), and the slot is freed (end).
type attempt struct {
	// Immutable.
	pool    *Pool
	lease   lease
	policy  RetryPolicy
	started time.Time
	ctx     context.Context
	cancel  context.CancelCauseFunc

	transports *transports
	fault      *Fault // that is made on purpose; nil: none

	connected atomic.Bool // a connection was had, so something may have been sent
	waited    atomic.Bool // no longer counted as waiting for a connection
	settled   atomic.Bool
	learned   atomic.Bool
	ended     atomic.Bool
	upload    idleWatch // the origin takes no more of the request's body
	download  idleWatch // the origin sends no more of the response's

	mu        sync.Mutex
	headers   bool        // the response's headers are there, or will never be
	firstByte *time.Timer // nil until the request is sent
	watchdog  *time.Timer // nil unless the breaker was half-open
}

func (p *Pool) newAttempt(ctx context.Context, l lease, pol RetryPolicy) *attempt {
	a := &attempt{pool: p, lease: l, policy: pol, started: p.o.Now()}
	a.transports = l.origin.fresh(a.started)
	a.ctx, a.cancel = context.WithCancelCause(ctx)
	l.origin.requests.Add(1)
	if pol.Fault != nil {
		a.fault = pol.Fault(l.origin.name)
	}
	if l.ticket.halfOpen {
		// A slow answer or a long body must not hold one of the few slots that decide whether the breaker closes.
		a.watchdog = time.AfterFunc(max(p.o.Breaker.Open.D(), time.Second), a.watch)
	}
	return a
}

// watch runs when a half-open breaker has waited long enough: headers that came are success enough; with none, the slot
// is given back as if nothing had been learned.
func (a *attempt) watch() {
	a.mu.Lock()
	headers := a.headers
	a.mu.Unlock()
	if headers {
		a.settle(nil)
	} else {
		a.settle(errNeutral)
	}
}

// send makes the round trip. The request is r with the origin's address; r itself isn't touched.
func (a *attempt) send(r *http.Request, body *bodySource) (*http.Response, error) {
	settings := &dialSettings{connect: a.policy.Connect, onlyHTTP1: wantsWebSocket(r.Header), client: a.policy.Client}
	out := r.WithContext(withTrace(context.WithValue(a.ctx, dialKey{}, settings), a))
	out.URL = new(url.URL)
	*out.URL = *r.URL
	out.URL.Scheme, out.URL.Host = a.lease.origin.scheme, a.lease.origin.host
	out.RequestURI = ""
	out.Close = false
	withDeadline(a.ctx, out)
	if err := body.attach(out, a); err != nil {
		return nil, err
	}
	if a.fault != nil {
		if resp, err := a.fault.inject(a, r); resp != nil || err != nil {
			return resp, err
		}
	}
	resp, err := a.roundTrip(out, settings)
	a.stopWaiting()
	if err == nil {
		if err = malformed(r, resp); err != nil {
			_ = resp.Body.Close()
			return nil, err
		}
		if a.fault != nil && a.fault.SlowBody > 0 && resp.StatusCode != http.StatusSwitchingProtocols && resp.Body != http.NoBody {
			resp.Body = &slow{resp.Body, a, a.fault.SlowBody}
		}
	}
	return resp, err
}

func (a *attempt) roundTrip(out *http.Request, settings *dialSettings) (*http.Response, error) {
	if s := a.transports.sockets; s != nil && settings.onlyHTTP1 && !s.missing.Load() {
		if resp, offered, err := s.open(a, out); offered {
			return resp, err
		}
	}
	return a.transports.of(settings).RoundTrip(out)
}

// malformed finds what net/http lets pass and nobody behind us can handle.
func malformed(r *http.Request, resp *http.Response) error {
	if resp.StatusCode < 100 { // RFC 9110 section 15; a server refuses to write it
		return fmt.Errorf("malformed HTTP response: status %03d", resp.StatusCode)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil
	}
	// RFC 9110 sections 7.8 and 15.2.2: only to what the client offered, and it must say to which protocol.
	if _, ok := resp.Body.(io.ReadWriteCloser); !ok || r.Header.Get("Upgrade") == "" {
		return errors.New("malformed HTTP response: 101 without an upgrade that was asked for")
	}
	return nil
}

// gotConn is a hook of net/http: the request has a connection.
func (a *attempt) gotConn(httptrace.GotConnInfo) {
	a.connected.Store(true)
	a.stopPending()
}

// stopPending ends the wait for a connection.
func (a *attempt) stopPending() {
	if !a.waited.Swap(true) {
		a.lease.origin.pending.Add(-1)
	}
}

// wroteRequest is a hook of net/http: the request is sent, or could not be.
func (a *attempt) wroteRequest(info httptrace.WroteRequestInfo) {
	a.upload.end()
	if info.Err != nil || a.policy.FirstByte <= 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.headers {
		return
	}
	if a.firstByte != nil { // net/http sent it again on a fresh connection
		a.firstByte.Reset(a.policy.FirstByte)
		return
	}
	a.firstByte = time.AfterFunc(a.policy.FirstByte, func() {
		a.cancel(&timeoutError{"no response headers", a.policy.FirstByte})
	})
}

func (a *attempt) stopWaiting() {
	a.mu.Lock()
	a.headers = true
	if a.firstByte != nil {
		a.firstByte.Stop()
	}
	a.mu.Unlock()
}

// settle tells the breaker: nil, errFailure or errNeutral. Only the first call counts.
func (a *attempt) settle(outcome error) {
	if a.settled.Swap(true) {
		return
	}
	if a.watchdog != nil {
		a.watchdog.Stop()
	}
	a.lease.ticket.done(outcome)
	a.lease.origin.breaker.flush()
}

// fail tells the breaker that the origin is at fault.
func (a *attempt) fail(cause string) {
	if !a.settled.Load() {
		now := a.pool.o.Now()
		a.lease.origin.failed(cause, now)
		a.learn(false, now)
	}
	a.settle(errFailure)
}

// learn tells ejection, balancing and the limiter how an attempt went. One whose body dies after good headers is told
// twice, as each of them is.
func (a *attempt) learn(ok bool, now time.Time) {
	o, latency := a.lease.origin, now.Sub(a.started)
	if ok {
		o.learnLatency(latency, now.UnixNano())
	}
	if !a.learned.Swap(true) {
		o.limiter.observe(latency, o.inFlight.Load(), !ok, now)
	}
	o.judge(ok, latency)
}

// end frees the attempt's slot and timers. The breaker must have been told.
func (a *attempt) end() {
	if a.ended.Swap(true) {
		return
	}
	a.stopWaiting()
	a.upload.stop()
	a.download.stop()
	a.cancel(errAbandoned)
	a.stopPending()
	a.lease.release()
	a.lease.origin.left(a.transports)
}

// abandon ends an attempt of which nothing is known, from wherever it stands. Harmless after its proper end.
func (a *attempt) abandon() {
	a.settle(errNeutral)
	a.end()
}

// classify names what an attempt failed of, and whether something was sent. It tells nobody.
func (a *attempt) classify(r *http.Request, body *bodySource, err error) *Error {
	e := &Error{Origin: a.lease.origin.name, Sent: a.connected.Load(), Err: err}
	var connect *connectError
	switch limit := timeLimit(a.ctx); {
	case body.failed() != nil:
		e.Cause, e.Err = bodyCause(body.failed()), body.failed()
	case errors.Is(r.Context().Err(), context.DeadlineExceeded):
		e.Cause = CauseTimeout
	case r.Context().Err() != nil:
		e.Cause, e.Err = CauseCanceled, context.Cause(r.Context())
	case limit != nil:
		e.Cause, e.Err = CauseTimeout, limit
	case errors.As(err, &connect):
		e.Cause = CauseConnect
		// After a reused connection broke net/http connects anew. Unless it may repeat the request, it does so only
		// when nothing had been written.
		e.Sent = e.Sent && repeatable(r)
	default:
		e.Cause = CauseReset
	}
	return e
}

// originAtFault tells whether the breaker counts the cause. A deadline of the caller's own says nothing of the origin.
func (e *Error) originAtFault() bool {
	switch e.Cause {
	case CauseConnect, CauseReset:
		return true
	case CauseTimeout:
		var limit *timeoutError
		return errors.As(e.Err, &limit)
	}
	return false
}

// timeLimit is the limit of ours that ended the context, or nil.
func timeLimit(ctx context.Context) *timeoutError {
	var limit *timeoutError
	if ctx.Err() != nil && errors.As(context.Cause(ctx), &limit) {
		return limit
	}
	return nil
}
