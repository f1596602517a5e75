// Package jwtauth checks bearer tokens that are JSON Web Tokens (RFC 7519) against the keys that an issuer publishes as a
// JWK set (RFC 7517). go-jose does the cryptography; what is decided here follows RFC 8725: which algorithms are taken is
// the gateway's word and never the token's, a key serves only the algorithm that it is for, and issuer, audience and an
// expiry must be there.
package jwtauth
