// Package certs holds certificates: those of the HTTPS listeners, from files or by ACME (RFC 8555), those of the peer
// channel between nodes, and the small CA that makes the latter.
//
// A Store answers handshakes from memory: by name, from an index that is swapped when a certificate comes or goes.
// Nothing is read, ordered or waited for inside a handshake. Store.Run orders and renews in the background by
// certmagic; while that fails, whatever is in hand goes on being served, and a restart finds it again in the data
// folder before the CA is asked for anything.
//
// OCSP responses are not stapled: fetching them would make a start wait for the CA, and the CAs that ACME is used with
// have ended OCSP. Renewal follows what the CA suggests (ARI, RFC 9773), which covers revocation.
//
// PeerCreds are both ends of the peer channel: mutual TLS under the fleet's own CA, where a node's name is its
// identity.
//
// Package gateway/server asks a Store for its TLS configuration, package gateway builds and runs it, package
// gateway/admin lists what it holds.
package certs
