package compress

import (
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

const defaultMaxEncoders = 256

// stripped is the key of a header field without values, which is never sent: it tells Response that PrepareRequest
// took the suffix off the only tag of If-None-Match.
const stripped = "Landfall-Stripped-Tag"

// Options configures a Compressor.
type Options struct {
	Algorithms  []string // codings offered, best first: zstd, br, gzip; others are ignored; none: never compress
	MinSize     int64    // bytes; bodies known to be smaller are left alone
	Types       []string // media types that are compressed; type/* matches a whole type
	MaxEncoders int      // live encoders; past it responses stay as they are and are counted; 0: 256
	Metrics     *Metrics // nil: not exported
}

// Compressor compresses responses. It is immutable and safe for concurrent use; it owns no goroutine.
type Compressor struct {
	order       []int // indexes into codings, best first
	minSize     int64
	types       types
	metrics     *Metrics
	maxEncoders int64
	live        atomic.Int64
	pools       [len(codings)]pool
}

// New makes a Compressor.
func New(o Options) *Compressor {
	c := &Compressor{
		minSize:     o.MinSize,
		types:       newTypes(o.Types),
		metrics:     o.Metrics,
		maxEncoders: int64(o.MaxEncoders),
	}
	if c.maxEncoders <= 0 {
		c.maxEncoders = defaultMaxEncoders
	}
	if c.metrics == nil {
		c.metrics = NewMetrics(prometheus.NewRegistry())
	}
	for _, name := range o.Algorithms {
		if i := codingIndex(name); i >= 0 {
			c.order = append(c.order, i)
		}
	}
	for i := range c.pools {
		c.pools[i].make = codings[i].make
	}
	return c
}

// offered is the index of a coding that this Compressor offers, or -1.
func (c *Compressor) offered(coding string) int {
	for _, i := range c.order {
		if codings[i].name == coding {
			return i
		}
	}
	return -1
}

// PrepareRequest edits the header of a request towards the origin, whose Accept-Encoding the caller has set to the
// negotiated coding (or removed), so that the origin recognises its own entity tags:
//
//   - If-None-Match: the suffix of the negotiated coding is taken off, and no other, since a 304 selects the variant
//     that this client can decode. A single tag is replaced, as some origins compare the field as a plain string; in a
//     list the plain tag is added behind, so that Response can tell which tag was meant.
//   - If-Match: every suffix is taken off. All the variants derive from the one representation that is to be changed.
//   - If-Range: left alone. The client holds a part of the compressed bytes, which the origin cannot continue: the tag
//     must not match, so that the origin sends the whole.
//
// Malformed fields are left alone.
func (c *Compressor) PrepareRequest(h http.Header) {
	delete(h, stripped)
	if i := c.offered(h.Get("Accept-Encoding")); i >= 0 {
		prepareIfNoneMatch(h, codings[i].suffix)
	}
	if list, ok := tags(strings.Join(h["If-Match"], ",")); ok && len(c.order) > 0 {
		changed := false
		for n, tag := range list {
			for _, i := range c.order {
				plain, cut := cutSuffix(tag, codings[i].suffix)
				if cut {
					list[n], changed = plain, true
					break
				}
			}
		}
		if changed {
			h.Set("If-Match", strings.Join(list, ", "))
		}
	}
}

func prepareIfNoneMatch(h http.Header, suffix string) {
	list, ok := tags(strings.Join(h["If-None-Match"], ","))
	if !ok {
		return
	}
	if len(list) == 1 {
		if plain, cut := cutSuffix(list[0], suffix); cut {
			h.Set("If-None-Match", plain)
			h[stripped] = nil
		}
		return
	}
	plain := list
	for _, tag := range list {
		if p, cut := cutSuffix(tag, suffix); cut {
			plain = append(plain, p)
		}
	}
	if len(plain) > len(list) {
		h.Set("If-None-Match", strings.Join(plain, ", "))
	}
}

// Response changes resp in place, and returns it, so that it says and is what a client with the negotiated coding gets:
// its body compressed where that is right (see the package comment), Vary: Accept-Encoding wherever the answer depends
// on that field. coding is what Negotiate returned; resp.Request, when set, tells HEAD from GET.
//
// A compressed body must be closed, like any other; until then it holds one of Options.MaxEncoders. It pulls from the
// origin's body in the reader's goroutine. Where the length was unknown it is flushed after each read from the origin,
// so that a slow stream is not held back. An error of the origin's body is the reader's error, never a clean end.
//
// A 304 has the suffix put back on its entity tag when the request's If-None-Match named the tag with it.
func (c *Compressor) Response(resp *http.Response, coding string) *http.Response {
	if len(c.order) == 0 {
		return resp
	}
	i := c.offered(coding)
	if resp.StatusCode == http.StatusNotModified {
		c.notModified(resp, i)
		return resp
	}
	if !c.eligible(resp) {
		if encoded(resp.Header) && hasBody(resp.StatusCode) {
			addVary(resp.Header) // the origin chose the coding from the Accept-Encoding that we pass on
		}
		return resp
	}
	addVary(resp.Header)
	if i < 0 {
		return resp
	}
	if method(resp) == http.MethodHead {
		setHeaders(resp, i)
		return resp
	}
	body, ok := c.newBody(resp, i)
	if !ok {
		return resp
	}
	c.metrics.responses.WithLabelValues(codings[i].name).Inc()
	setHeaders(resp, i)
	resp.Body = body
	return resp
}

// eligible tells whether resp is compressed for the clients that want it.
func (c *Compressor) eligible(resp *http.Response) bool {
	switch {
	case !hasBody(resp.StatusCode), method(resp) == http.MethodConnect:
		return false
	case resp.ContentLength >= 0 && resp.ContentLength < max(c.minSize, 1) && !headOfUnknown(resp):
		return false
	case encoded(resp.Header), resp.Header["Content-Range"] != nil, noTransform(resp.Header):
		return false
	}
	return c.types.has(resp.Header.Get("Content-Type"))
}

// headOfUnknown tells whether resp answers HEAD without saying how long the body of a GET would be.
func headOfUnknown(resp *http.Response) bool {
	return method(resp) == http.MethodHead && resp.Header.Get("Content-Length") == "" && resp.ContentLength <= 0
}

// hasBody tells whether a status comes with a body of its own that stands for itself.
func hasBody(status int) bool {
	switch status {
	case http.StatusNoContent, http.StatusResetContent, http.StatusPartialContent, http.StatusNotModified:
		return false
	}
	return status >= 200
}

func method(resp *http.Response) string {
	if resp.Request == nil {
		return http.MethodGet
	}
	return resp.Request.Method
}

// notModified does for a 304 what was done for the 200 that it confirms. Without a Content-Type nobody can know whether
// that was eligible; then Vary is added, as one variant too many is harmless.
func (c *Compressor) notModified(resp *http.Response, i int) {
	h := resp.Header
	if contentType := h.Get("Content-Type"); contentType == "" || c.types.has(contentType) {
		addVary(h)
	}
	etag := h.Get("Etag")
	if i < 0 || etag == "" || resp.Request == nil {
		return
	}
	suffixed := addSuffix(etag, codings[i].suffix)
	_, was := resp.Request.Header[stripped]
	if !was {
		list, _ := tags(strings.Join(resp.Request.Header["If-None-Match"], ","))
		for _, tag := range list {
			was = was || strings.TrimPrefix(tag, "W/") == strings.TrimPrefix(suffixed, "W/")
		}
	}
	if was {
		h.Set("Etag", suffixed)
	}
}

// setHeaders makes the header say that the body is compressed. What described the plain bytes goes: lengths, ranges and
// digests (RFC 9530; Content-MD5 and Digest are its predecessors).
func setHeaders(resp *http.Response, i int) {
	h := resp.Header
	h.Set("Content-Encoding", codings[i].name)
	etag := h.Get("Etag")
	suffixed := addSuffix(etag, codings[i].suffix)
	if etag != "" {
		h.Set("Etag", suffixed)
	}
	if etag == "" || suffixed != etag {
		h[HeaderCoded] = []string{"1"}
	}
	h.Del("Content-Length")
	h.Del("Accept-Ranges")
	dropDigests(h)
	dropDigests(resp.Trailer)
	resp.ContentLength = -1
	resp.Uncompressed = false
}

func dropDigests(h http.Header) {
	for _, key := range [...]string{"Content-Digest", "Repr-Digest", "Content-Md5", "Digest"} {
		delete(h, key)
	}
}
