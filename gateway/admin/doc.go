// Package admin is the admin API of a node: its endpoints under /v1, their OpenAPI document, the probes and metrics
// beside them, the event log that they show, and the client by which the command line talks to them.
//
// It decides who may call and what a request means, and hands the rest to a Backend, which package gateway implements
// over the mesh, the routing snapshot, the cache and the pools. It imports none of those: what it reads and what it
// changes are the small interfaces in backend.go. The types in fleet.go, explain.go and actions.go are the contract of the
// API in both directions; the handlers and the Client share them, and the OpenAPI document is built from them.
//
// # Who may call
//
// A connection whose two ends are both loopback needs no token. Since any page in a browser on this machine can open
// such a connection, it must then name an address or localhost as Host (DNS rebinding) and must not come from another
// site when it changes something. Every other connection needs a bearer token of the config, with the scope that the
// operation asks for: read, drain or purge. /healthz and /readyz are open to all, as load balancers carry no tokens.
//
// # Errors
//
// Every refusal is a problem document (RFC 9457) whose type is one of the closed list in problem.go.
package admin
