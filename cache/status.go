package cache

import "strconv"

// Forward reasons of RFC 9211 section 2.2, the values of Outcome.Forward.
const (
	fwdBypass   = "bypass"    // the route doesn't cache, or the request can't be answered from a cache
	fwdMethod   = "method"    // neither GET nor HEAD
	fwdURIMiss  = "uri-miss"  // nothing stored for the URL
	fwdVaryMiss = "vary-miss" // something stored, but for other request headers
	fwdRequest  = "request"   // stored and fresh, but not for this request (Authorization)
	fwdStale    = "stale"     // stored, to be revalidated
)

// detailDisk tells that a hit came from disk.
const detailDisk = "disk"

// note is one cache's member of Cache-Status (RFC 9211).
type note struct {
	hit       bool
	ttl       int64 // seconds, with hit
	fwd       string
	fwdStatus int // 0: that of the response
	stored    bool
	collapsed bool
	detail    string // a token

	stale bool // not of Cache-Status: for a peer
}

func (n note) append(b []byte) []byte {
	b = append(b, "landfall"...)
	if n.hit {
		b = append(b, "; hit; ttl="...)
		b = strconv.AppendInt(b, n.ttl, 10)
	}
	if n.fwd != "" {
		b = append(b, "; fwd="...)
		b = append(b, n.fwd...)
	}
	if n.fwdStatus != 0 {
		b = append(b, "; fwd-status="...)
		b = strconv.AppendInt(b, int64(n.fwdStatus), 10)
	}
	if n.stored {
		b = append(b, "; stored"...)
	}
	if n.collapsed {
		b = append(b, "; collapsed"...)
	}
	if n.detail != "" {
		b = append(b, "; detail="...)
		b = append(b, n.detail...)
	}
	return b
}
