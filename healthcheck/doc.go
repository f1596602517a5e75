// Package healthcheck finds out what can serve. A Checker probes origins over HTTP, each from this node alone; Doors asks
// other regions' front doors what a client would meet there; the pure functions Reachable, PoolState and DoorVerdict join
// what many observers found into a verdict on a node, a region and a service there; a Judge damps it.
//
// Its neighbours: package gateway gives a Checker the targets that the config names, hands OnChange to the pools of
// gateway/upstream, gossips the pools' states by routing/mesh, and builds routing's snapshot from the verdicts. Passive
// findings, from the requests themselves, are the breakers of gateway/upstream. Healthcheck imports neither.
//
// The bargain of a Checker: at most one probe is in flight to a target; the probes keep one rate in good times and bad
// (interval, give or take 10%), so that an outage makes no extra load; services that share an origin and a check share the
// probe; redirects are not followed; a state that nobody has measured for 5 intervals is unknown, never frozen.
package healthcheck
