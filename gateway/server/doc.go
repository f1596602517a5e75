// Package server is the door of a node: it accepts the connections of clients (HTTP/1.1 on plain listeners, HTTP/1.1
// and HTTP/2 on TLS listeners, HTTP/3 on the UDP ports beside them) and of other nodes (HTTP/2 with mutual TLS), bounds what they may take, turns each
// request into one normalised request or a refusal, and stops in stages that lose nothing.
//
// In the words of the design it is the phases accept and head. What follows, from the route to the origin, is the
// business of the handler that the listener was given (gateway/proxy); certificates come in a *tls.Config
// (gateway/certs); when to leave and when to stop is decided above (gateway).
//
// # The way of a connection
//
//	accept → limits → TLS handshake → HTTP/1.1: framing filter → net/http ┐
//	                                  HTTP/2:   GOAWAY writer  → net/http ┼→ admit → handler
//	limits → QUIC handshake         → HTTP/3:                    quic-go  ┘
//
// The framing filter (h1Conn) reads ahead of net/http: it releases a request's head only when it is whole and well
// formed by a stricter grammar than net/http's, and follows the body to its end, so that both always agree on where
// the next request starts. Plain listeners speak HTTP/1.1 only: no h2c, neither by upgrade nor by prior knowledge.
// WebSockets come over HTTP/2, too, by extended CONNECT (RFC 8441).
//
// # Stalls
//
// No request has a deadline of its own, since a stream may last for hours. Silence has: a client that neither takes
// nor sends a byte that is due for Limits.IdleTimeout is cut. An upgraded (hijacked) connection is only held to take
// what is written; silence in the other direction is for the handler to bound.
package server
