package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"landfall/configs"
)

// RetryOn is a set of failures that are retried.
type RetryOn uint8

// The failures that may be retried. OnConnect covers connections that were never made, so any method is retried for it.
const (
	OnConnect RetryOn = 1 << iota
	OnReset
	OnTimeout
	On500
	On502
	On503
	On504
)

// ParseRetryOn reads the names that a config uses: connect, reset, timeout, 500, 502, 503, 504.
func ParseRetryOn(names []string) (RetryOn, error) {
	var on RetryOn
	for _, name := range names {
		switch name {
		case CauseConnect:
			on |= OnConnect
		case CauseReset:
			on |= OnReset
		case CauseTimeout:
			on |= OnTimeout
		case "500":
			on |= On500
		case "502":
			on |= On502
		case "503":
			on |= On503
		case "504":
			on |= On504
		default:
			return 0, fmt.Errorf("retry.on has no failure %q: use connect, reset, timeout, 500, 502, 503 or 504", name)
		}
	}
	return on, nil
}

// status tells whether a response with this status is to be retried.
func (on RetryOn) status(code int) bool {
	switch code {
	case http.StatusInternalServerError:
		return on&On500 != 0
	case http.StatusBadGateway:
		return on&On502 != 0
	case http.StatusServiceUnavailable:
		return on&On503 != 0
	case http.StatusGatewayTimeout:
		return on&On504 != 0
	}
	return false
}

// cause tells whether an attempt that failed without a response is to be retried.
func (on RetryOn) cause(cause string) bool {
	switch cause {
	case CauseConnect:
		return on&OnConnect != 0
	case CauseReset:
		return on&OnReset != 0
	case CauseTimeout:
		return on&OnTimeout != 0
	}
	return false
}

// RetryPolicy is how long origins may take for a request and what happens when one fails. The zero value makes one
// attempt with a connect timeout of 2s and no other limit.
type RetryPolicy struct {
	Attempts  int           // in all, the first included; below 1 is 1, above 10 is 10
	On        RetryOn       // failures that are retried
	Budget    float64       // retries as a share of the pool's requests, 0 to 1; 3 a second are always allowed
	Connect   time.Duration // to connect, TLS included; 0: 2s
	FirstByte time.Duration // from the request sent to the response's headers; 0: unbounded
	Total     time.Duration // all attempts and the body; not for upgraded connections; 0: unbounded
	Idle      time.Duration // longest silence of the origin while a body or an upgraded connection streams; 0: unbounded
	Priority  int           // Critical, Normal or Background
	Key       uint64        // what balance: hash keeps on one origin (see HashKey); 0: nothing
	Hedge     *Hedge        // nil: none
	Client    netip.Addr    // who asks, for PROXY protocol towards origins
	// Fault is asked, for each attempt, what trouble is made on purpose with an origin; nil, as a function or as its answer:
	// none.
	Fault func(origin string) *Fault
}

const (
	defaultConnect = 2 * time.Second
	maxAttempts    = 10
)

// PolicyFrom is the policy that a route's config describes.
func PolicyFrom(route configs.Route) (RetryPolicy, error) {
	t, r := route.Timeout, route.Retry
	on, err := ParseRetryOn(r.On)
	return RetryPolicy{
		Attempts: r.Attempts, On: on, Budget: float64(r.Budget),
		Connect: t.Connect.D(), FirstByte: t.FirstByte.D(), Total: t.Total.D(), Idle: t.Idle.D(),
		Priority: priorityOf(route.Priority), Hedge: NewHedge(route.Hedge),
	}, err
}

// priorityOf reads the name that a config uses; an absent one is normal.
func priorityOf(name string) int {
	switch name {
	case "critical":
		return Critical
	case "background":
		return Background
	}
	return Normal
}

func (pol RetryPolicy) normal() RetryPolicy {
	pol.Priority = min(max(pol.Priority, Critical), Background)
	pol.Attempts = min(max(pol.Attempts, 1), maxAttempts)
	if pol.Connect <= 0 {
		pol.Connect = defaultConnect
	}
	return pol
}

// MayRetry asks the pool's budget for one more attempt at a request that failed with err, elsewhere than in this pool:
// when the policy retries such a failure and the budget has room, which it then has less of.
func (p *Pool) MayRetry(err error, pol RetryPolicy) bool {
	var e *Error
	return errors.As(err, &e) && pol.normal().Attempts > 1 && pol.On.cause(e.Cause) && p.budget.take(p.o.Now(), pol.Budget)
}

// idempotent tells whether sending the method twice means what sending it once does (RFC 9110 section 9.2.2).
func idempotent(method string) bool {
	switch method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// repeatable tells whether net/http may send the request again by itself when a reused connection breaks after it was
// written. An Idempotency-Key is the client's word that it may.
func repeatable(r *http.Request) bool {
	return idempotent(r.Method) || r.Header["Idempotency-Key"] != nil || r.Header["X-Idempotency-Key"] != nil
}

// backoff is the wait before retry number n (1 is the first): anything from nothing to 10ms doubling up to 160ms. It is
// short since the retry goes to another origin, and fully random so that clients who failed together don't come back
// together.
func backoff(n int, random float64) time.Duration {
	const base, steps = 10 * time.Millisecond, 4
	return time.Duration(random * float64(base<<min(n-1, steps)))
}

// failureStatus tells whether a status says that the origin, rather than the request, is at fault: 5xx, but not 501 and
// 505, which any client could provoke by an odd method or version and so open the breakers for everybody.
func failureStatus(code int) bool {
	return code >= 500 && code != http.StatusNotImplemented && code != http.StatusHTTPVersionNotSupported
}
