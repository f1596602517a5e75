package upstream

import (
	"errors"
	"fmt"
	"time"
)

// The causes of a failure: a closed list, the same in Attempt, Error, metrics and logs.
const (
	CauseAllEjected  = "all_ejected"  // every origin is down and the pool does not panic, or it has none
	CauseBreakerOpen = "breaker_open" // the breakers of all the origins that are left refuse
	CauseAtBound     = "at_bound"     // the origins that are left have as many requests in flight as they may
	CauseShed        = "shed"         // the origins that are left work on as much as they can: less important requests are refused
	CauseConnect     = "connect"      // no connection: refused, unreachable, TLS failed, or not within the connect timeout
	CauseReset       = "reset"        // the connection broke, or what came was no HTTP, or a header beyond its bound
	CauseTimeout     = "timeout"      // first byte, idle or total timeout
	CauseStatus      = "status"       // the response's status is a failure; the response is handed on
	CauseBudget      = "budget"       // a retry was due but the pool's retry budget is spent (only in Attempt.Cause)
	CauseCanceled    = "canceled"     // the client went away, or its body ended early
	CauseTooLarge    = "too_large"    // the request's body is larger than its reader allows (http.MaxBytesError)
)

// Error is what RoundTrip and the bodies of its responses fail with.
type Error struct {
	Cause  string // one of the Cause constants, never CauseBudget or CauseStatus
	Origin string // URL of the origin of the last attempt; empty when none was made
	Sent   bool   // an attempt may have reached an origin, so a method that isn't idempotent must not be sent elsewhere
	Err    error
}

// Error names the cause and the origin. The text is for logs: it holds addresses and must not reach clients.
func (e *Error) Error() string {
	if e.Origin == "" {
		return fmt.Sprintf("no origin took the request (%s): %v", e.Cause, e.Err)
	}
	return fmt.Sprintf("origin %s failed (%s): %v", e.Origin, e.Cause, e.Err)
}

// Unwrap gives the underlying error.
func (e *Error) Unwrap() error { return e.Err }

// Timeout tells whether a time limit caused the error, as net.Error does.
func (e *Error) Timeout() bool { return e.Cause == CauseTimeout }

// Canceled tells whether the client ended the request, rather than an origin or a limit of ours.
func (e *Error) Canceled() bool { return e.Cause == CauseCanceled }

// timeoutError is a time limit of ours that ran out.
type timeoutError struct {
	what  string
	after time.Duration
}

func (e *timeoutError) Error() string   { return fmt.Sprintf("%s within %s", e.what, e.after) }
func (e *timeoutError) Timeout() bool   { return true }
func (e *timeoutError) Temporary() bool { return true }

// connectError is a connection that could not be made, so nothing was sent on it.
type connectError struct {
	addr string
	err  error
}

func (e *connectError) Error() string { return fmt.Sprintf("can't connect to %s: %v", e.addr, e.err) }
func (e *connectError) Unwrap() error { return e.err }

// What a refusal without an attempt wraps.
var (
	errAllEjected  = errors.New("every origin of the pool is down; see the health checks in the pool's status")
	errBreakerOpen = errors.New("the circuit breakers of the pool's origins are open; they try again by themselves")
	errAtBound     = errors.New("the pool's origins have as many requests in flight as pool.breaker.requests allows")
	errShed        = errors.New("the pool's origins are at the limit of pool.concurrency for requests of this priority")
	errAbandoned   = errors.New("the attempt was given up")
)

func refusalError(cause string) *Error {
	err := errAllEjected
	switch cause {
	case CauseBreakerOpen:
		err = errBreakerOpen
	case CauseAtBound:
		err = errAtBound
	case CauseShed:
		err = errShed
	}
	return &Error{Cause: cause, Err: err}
}
