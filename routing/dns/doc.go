// Package dns answers for the fleet's zones: authoritative DNS over UDP and TCP, with each client steered to its region.
//
// It knows the protocol and the zones; which addresses suit which client is decided by package routing and reaches this
// package through Steer, which package gateway implements over the current routing.Snapshot. No query waits for anything:
// Steer answers from memory.
//
// # What a zone holds
//
// A name of a zone is, first match wins:
//
//	at or below a delegation  a referral: its NS records, glue, and its DS or the proof that there is none
//	the apex                  SOA, NS and keys, its records, and the addresses of a service that has this host
//	a nameserver              the address of one live node, so that the zone's nameservers are spread over the regions
//	a name with records       those; an alias is followed as far as our zones go
//	a host that Steer has     the addresses that Steer names, in its order, which is never shuffled; HTTPS records
//	below a wildcard          the wildcard's records, made for the name (RFC 4592)
//	an ancestor of these      nothing, but it exists (RFC 8020): no error, no data
//	anything else             does not exist: NXDOMAIN
//
// A service host *.x covers every name below x, at any depth, as it does for HTTP requests. That is more than a wildcard
// in a zone file covers (RFC 4592 stops it at names that exist), so that a name that would be served is never denied.
//
// Names outside every zone are REFUSED. Zones may nest; the longest one that contains a name answers.
//
// The TTL of a steered answer lies between the zone's two: short while something is changing, longer when calm; see TTL.
//
// # What it takes part in
//
//	RFC 1034, 1035   A, AAAA, NS, SOA; compression; TCP
//	RFC 2181 §9      TC where the answer does not fit, and only there: optional glue is dropped without it
//	RFC 2308         negative answers carry the SOA, its TTL and minimum both the zone's negative TTL
//	RFC 6891         EDNS(0); UDP answers of at most 1232 bytes; BADVERS
//	RFC 7766         TCP with pipelining, a bound on connections and on idle time
//	RFC 7871         client subnet: at most /24 and /56 of it are used, and the scope says how much mattered
//	RFC 8482         ANY gets a HINFO record
//	RFC 9619         exactly one question
//
//	RFC 4033-4035    signatures made while asked for, ECDSA P-256 (RFC 6605), and remembered; each node has the keys
//	RFC 9824         denial by one NSEC record that is made for the question
//	RFC 7344         CDS and CDNSKEY of the keys that sign
//	RFC 7873, 9018   cookies: who shows one is spared the response rate
//	RFC 5001         NSID: the node's name
//	RFC 5936         AXFR of the fixed records to listed secondaries, without steered names and signatures; IXFR gets
//	                 the same (RFC 1995 §4)
//	RFC 9460         HTTPS records
//
// There is no NOTIFY and no UPDATE: the zones come from the config and every node has them.
//
// # Sockets
//
// Each worker takes what has arrived at its socket at once and sends the answers at once (recvmmsg and sendmmsg on Linux).
// ListenMore opens a socket for each further core.
//
// # The wire
//
// Queries are parsed and answers are written here, in one pass and without garbage, and without a goroutine a packet.
// github.com/miekg/dns gives the names and numbers and packs the config's names, and stands against us in the tests as
// an independent reader; nothing of it shows in this package's API.
package dns
