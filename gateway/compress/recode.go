package compress

import (
	"io"
	"net/http"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// HeaderCoded marks a response whose coding was applied here, so that Recode can undo it. It must not reach a client, and
// is believed of caches of the fleet only.
const HeaderCoded = "Landfall-Coded"

// Recodes tells whether Recode can make, of a stored response with this status, header and length (-1: unknown), what a
// client with the negotiated coding gets ("": identity). What the origin encoded itself is left to it.
func (c *Compressor) Recodes(status int, h http.Header, length int64, coding string) bool {
	if coding != "" && c.offered(coding) < 0 {
		return false
	}
	if encoded(h) {
		return h[HeaderCoded] != nil && codingIndex(h.Get("Content-Encoding")) >= 0 && h.Get("Content-Encoding") != coding
	}
	return coding != "" && c.eligible(&http.Response{StatusCode: status, Header: h, ContentLength: length})
}

// Recode turns a stored response, of which Recodes said yes, into the one in another coding: with the headers and the bytes
// that the origin's own answer would have had. It changes resp in place; its body must be closed. nil: there is no encoder
// free, and resp's body is as it was.
func (c *Compressor) Recode(resp *http.Response, coding string) *http.Response {
	from := codingIndex(resp.Header.Get("Content-Encoding"))
	if !encoded(resp.Header) {
		from = -1
	}
	need := int64(1)
	if from >= 0 && coding != "" {
		need = 2
	}
	if c.live.Load()+need > c.maxEncoders {
		c.metrics.refused.WithLabelValues("encoders").Inc()
		return nil
	}
	if from >= 0 {
		plain, err := newDecoded(c, resp.Body, from)
		if err != nil {
			return nil
		}
		resp.Body, resp.ContentLength = plain, -1
		h := resp.Header
		h.Del("Content-Encoding")
		h.Del("Content-Length")
		delete(h, HeaderCoded)
		if tag, cut := cutSuffix(h.Get("Etag"), codings[from].suffix); cut {
			h.Set("Etag", tag)
		}
	}
	if coding == "" {
		return resp
	}
	resp = c.Response(resp, coding)
	if b, ok := resp.Body.(*body); ok {
		b.stream = false // all of it is there: nothing waits for what has been read so far
	}
	return resp
}

// decoded is a body whose coding is undone as it is read. It counts as an encoder, as it takes no more memory than one.
// Close may come from another goroutine than Read: what is read is in memory, so that it doesn't wait for long.
type decoded struct {
	mu  sync.Mutex
	r   io.Reader // nil once closed
	src io.Closer
	end func()
}

func newDecoded(c *Compressor, src io.ReadCloser, coding int) (*decoded, error) {
	d := &decoded{src: src, end: func() { c.live.Add(-1) }}
	var err error
	switch coding {
	case codingGzip:
		d.r, err = gzip.NewReader(src)
	case codingBrotli:
		d.r = brotli.NewReader(src)
	case codingZstd:
		var z *zstd.Decoder
		z, err = zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		d.r, d.end = z, func() { z.Close(); c.live.Add(-1) }
	}
	if err != nil {
		return nil, err
	}
	c.live.Add(1)
	return d, nil
}

// Read implements io.Reader.
func (d *decoded) Read(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.r == nil {
		return 0, errClosed
	}
	return d.r.Read(p)
}

// Close implements io.Closer.
func (d *decoded) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.r != nil {
		d.r = nil
		d.end()
	}
	return d.src.Close()
}
