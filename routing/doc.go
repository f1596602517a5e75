// Package routing is the decision: from an immutable snapshot of the fleet and a client to a ranked list of regions with
// the reason for each. It is pure: no I/O, no clock, no goroutine, no allocation beyond the caller's buffer.
//
// The DNS answer (routing/dns), the forwarding hop (gateway/proxy), `landfall explain` and the admin API all read the
// same Decision. The snapshot is built by package gateway from what routing/mesh and healthcheck observed.
//
// # What a state means for routing
//
//	up        the region is a candidate.
//	unknown   nobody has measured it yet, or the measurement is too old: used only behind every region that is up.
//	draining  an operator moves traffic away: used only when no region is up or unknown.
//	down      passed over, unless more regions than the panic threshold look down (then the observer is suspected and
//	          down regions are candidates again), or every region is down (then the service's all-down policy holds).
//
// The order among candidates is: constraints, then distance, then weight, then a hash of region and client, so that the
// same client gets the same answer from every node until something changes.
package routing
