package compress

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// errClosed is what reading a closed body says, as net/http's own bodies do.
var errClosed = errors.New("compress: read from a closed response body")

// body compresses an origin's body as it is read. One goroutine reads; Close may come from another at any time.
type body struct {
	c      *Compressor
	resp   *http.Response // for its trailer
	src    io.ReadCloser
	coding int
	stream bool // the length was unknown: flush after each read

	closed atomic.Bool
	mu     sync.Mutex // held while reading
	unit   *unit      // nil once released
	err    error      // what Read returns when unit.out is drained
	read   int64      // bytes from the origin
	given  int64      // bytes to the reader
}

// newBody takes an encoder for resp, or counts that there was none.
func (c *Compressor) newBody(resp *http.Response, i int) (*body, bool) {
	if c.live.Add(1) > c.maxEncoders {
		c.live.Add(-1)
		c.metrics.refused.WithLabelValues("encoders").Inc()
		return nil, false
	}
	u, err := c.pools[i].get(resp.ContentLength)
	if err != nil {
		// Only options that the library refuses lead here, and the tests make an encoder of each coding.
		c.live.Add(-1)
		c.metrics.refused.WithLabelValues("encoders").Inc()
		return nil, false
	}
	return &body{c: c, resp: resp, src: resp.Body, coding: i, stream: resp.ContentLength < 0, unit: u}, true
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	n, err := b.locked(p)
	b.mu.Unlock()
	b.settle()
	return n, err
}

func (b *body) locked(p []byte) (int, error) {
	if b.closed.Load() {
		return 0, errClosed
	}
	if b.unit == nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	for b.unit.out.Len() == 0 {
		if b.err != nil {
			b.release()
			return 0, b.err
		}
		b.fill()
	}
	n, _ := b.unit.out.Read(p)
	b.given += int64(n)
	return n, nil
}

// fill reads from the origin once and compresses what came.
func (b *body) fill() {
	u := b.unit
	n, err := b.src.Read(u.in[:])
	if n > 0 {
		b.read += int64(n)
		if _, werr := u.enc.Write(u.in[:n]); werr != nil {
			b.err = werr
			return
		}
	}
	switch {
	case err == io.EOF:
		dropDigests(b.resp.Trailer) // they arrive with the end, and are of the plain bytes
		b.err = io.EOF
		if cerr := u.enc.Close(); cerr != nil {
			b.err = cerr
		}
	case err != nil:
		b.err = err // the encoder is not closed, so what was given is visibly cut off
	case n > 0 && b.stream:
		b.err = u.enc.Flush()
	}
}

// Close implements io.Closer. It never waits for a Read.
func (b *body) Close() error {
	b.closed.Store(true)
	err := b.src.Close()
	b.settle()
	return err
}

// settle releases the unit of a closed body. A Read in flight still uses it: then that Read does it at its end. Both
// call settle after they gave up what the other waits for, so one of them finds the body closed and unlocked.
func (b *body) settle() {
	if b.closed.Load() && b.mu.TryLock() {
		b.release()
		b.mu.Unlock()
	}
}

// release gives the unit back, once. The caller holds mu.
func (b *body) release() {
	if b.unit == nil {
		return
	}
	if saved := b.read - b.given; b.err == io.EOF && b.unit.out.Len() == 0 && saved > 0 {
		b.c.metrics.saved.WithLabelValues(codings[b.coding].name).Add(float64(saved))
	}
	b.c.pools[b.coding].put(b.unit)
	b.unit = nil
	b.c.live.Add(-1)
}
