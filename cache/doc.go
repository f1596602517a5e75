// Package cache is the node's shared HTTP cache: it decides by RFC 9111 what may be stored and reused, keeps it in
// memory, and on disk, within bounds of bytes, collapses concurrent misses into one fetch, and drops what is purged.
//
// It stands between the handler chain (gateway/proxy), which calls Serve with the request and a small view of it, and
// the origin, which it reaches only through the Fetch it is handed: choice of region, pools, retries and compression
// are behind that function. Of Landfall it imports only its own store on disk.
//
// # What is stored
//
// GET responses with freshness of their own (Landfall-Cache-Control or CDN-Cache-Control of RFC 9213; s-maxage, max-age,
// Expires) or with a validator and max-age=0 or no-cache;
// 200, 203, 204, 300, 301 and 308 without any freshness when the route's policy gives a TTL. An error status is stored
// only when the origin itself gives it freshness. There is no heuristic freshness. Never stored, and no option changes
// it: no-store (but beside must-understand on a known status), private (with or without field names), Set-Cookie, 206, 304,
// 428, 429, 431, 511 (RFC 6585), `Vary: *`, a
// Vary on a field that the gateway itself writes, responses with trailers, text/event-stream, bodies that end early or
// late, answers to requests with a body, and answers to requests with Authorization unless public, must-revalidate or
// s-maxage allows it (RFC 9111 section 3.5). The same licence is asked before a stored response answers a request with
// Authorization: an origin that says nothing of shared caches is asked again.
//
// # Keys
//
// The key is structural: service, scheme, host, port, path and query, then the values of the fields that Vary names.
// The scheme is part of it because an origin may answer http and https differently (a redirect from one to the other
// would otherwise loop). The host is lower-cased; a port is kept unless it is the scheme's own, since origins copy it
// into redirects. The path is the escaped path as it was sent, with "" as "/"; the query is verbatim, unless the route's
// KeyPolicy leaves some of it out: then the fetch leaves it out, too. A KeyPolicy may also name fields and cookies. A fetch that may be
// stored carries nothing else that the client controls besides ordinary header fields: conditions, Range, Cache-Control,
// Pragma and the spelling of Host are taken out, and Accept-Encoding is one of a closed set.
//
// # Codings
//
// Each content coding that clients are served in is a variant by Accept-Encoding. With Policy.Recoder, one that isn't
// stored is made of another that is: once, for all who wait, with that one's age, and as a hit ("detail=recoded" in
// Cache-Status). So the origin is asked once, whatever its clients accept; what it encodes itself stays its own.
//
// # Purges
//
// A purge is of one service: of a URL (in all variants, schemes and ports), a prefix, a host, a surrogate key, or all. It
// is applied by generation (see Purge): at one cost whatever it matches, without comparing clocks, and to all that was asked
// of the origin before it, however late that is stored.
//
// # On disk
//
// With Options.Disk, what is stored is also written to disk (package cache/disk), found there when memory has let go of it,
// and there after a restart or a kill. Purges hold over both: each is noted in a journal before Purge returns, what is on
// disk is compared with them before it is served, and what can't be noted is made up for by emptying the disk. A disk that
// is full, fails or hangs costs keeping there, never an answer.
//
// # Reuse
//
// A client's Cache-Control is advisory (RFC 9111 section 5.2.1) and, as on other CDNs, mostly ignored: no-cache, max-age,
// min-fresh, max-stale and Pragma change nothing, so that no client can send a crowd to the origin. no-store is honoured
// for storing, and only-if-cached gets 504 when nothing usable is stored. Stale responses are served only as
// stale-while-revalidate and stale-if-error (RFC 5861), from the response or else the policy; must-revalidate,
// proxy-revalidate, s-maxage and no-cache forbid both. HEAD is answered from a stored GET; a HEAD on a miss passes.
// Range is served from a stored 200, passes on a miss. A successful unsafe request invalidates its URL, and Location and
// Content-Location of the same origin (section 4.4).
package cache
