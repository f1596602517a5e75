// Package proxy is the way of a request through a node: the handler chain between the listeners and the origins.
//
// # Phases
//
// A request passes through phases with fixed names, which stand in code, Server-Timing, logs and metrics alike. Each is
// one method, takes what the one before returned, and says "no" with a refusal from its closed list:
//
//	head     one normalised request, or a refusal        malformed, unknown_host, loop
//	route    service and route                           no_route, method_not_allowed
//	access   who may do what (PURGE)                     forbidden
//	cache    fresh, stale, revalidate, miss, pass        (RFC 9211's forward reasons)
//	region   here, or another region's node              hop_limit, no_region
//	pool     an origin, and attempts on it               all_ejected, breaker_open, at_bound, connect, reset, timeout, …
//	respond  compressed, streamed, stored
//	account  metrics and the access log
//
// It uses cache, gateway/compress and gateway/upstream below it, reads the routing snapshot, and is built and swapped by
// package gateway: a Proxy belongs to one configuration, and a reload makes a new one while requests in flight keep theirs.
package proxy
