// Package upstream carries a request to an origin: the pool of a service's origins in one region, the choice among them,
// the circuit breaker of each, retries under a budget, the time limits, and the transports, to origins (Pool) and to the
// fleet's other nodes (PeerTransport).
//
// Its neighbours: gateway/proxy calls RoundTrip with a request that is ready to be sent (hop-by-hop fields gone, Via and
// X-Forwarded-* set) and turns an Error into a response; package gateway feeds SetState from healthcheck, and publishes
// Usable for routing. Upstream imports neither.
//
// # Which origin
//
// Two origins are drawn among the best class that there is and the one with fewer requests in flight is taken (power of
// two choices). The classes: up (or without a health check), unknown, draining. An origin that is down is not used,
// unless more than the panic share of the pool is: then the observer is suspected and all of them count as up. An
// origin at its bound or with an open breaker is passed over. A retry takes an origin that was not tried yet, and the same
// again only when there is no other.
//
// # What a breaker counts
//
//	failure   no connection, a reset or a malformed or truncated response, a timeout of ours, and the statuses 5xx
//	          except 501 and 505, which are about the request and not the origin.
//	success   every other response, once its body has ended (an upgraded connection: at its 101), also when the client
//	          closes it early.
//	neither   the client went away or its body failed, the total timeout while the body streams (the client may be the
//	          slow one), and all that is refused here: a bound, an open breaker, the budget.
//
// # When a failed attempt is tried again
//
// When the route lists the failure, attempts are left, the method is idempotent (RFC 9110 section 9.2.2) or nothing was
// sent, the body can be sent again, and the pool's retry budget holds. Bodies of a known length up to 64 KiB are read into
// memory before the first attempt so that they can be. When no attempt is left, the last real response is handed on.
//
// net/http retries by itself, on a fresh connection to the same origin, a request whose reused connection turns out to
// be closed before a byte of the response came, when nothing was written or the method is safe. That is not counted as a
// retry here: it mends a race with the origin's keep-alive timeout, not a failure of the origin.
package upstream
