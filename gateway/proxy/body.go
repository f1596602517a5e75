package proxy

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// keepBody is how much of a request body is kept to be sent again in another region.
const keepBody = 64 << 10

// bodyWatch lends the client's body to one attempt after another. It keeps what was read of a body that fits in keepBody,
// so that the next attempt begins at the start; of a longer one, what was read is gone. The transport of an attempt that
// failed may still read, hence the lock; what it reads is kept for the attempt after it.
type bodyWatch struct {
	body io.ReadCloser // nil: the request has none
	size int64         // -1: not known

	mu      sync.Mutex
	attempt *watchedBody // the one that may read
	kept    []byte
	gone    bool  // something was read that is not kept
	err     error // how the body ended
	total   int64 // bytes read
}

func watchBody(r *http.Request) *bodyWatch {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return &bodyWatch{}
	}
	return &bodyWatch{body: r.Body, size: r.ContentLength}
}

// whole tells whether another attempt can send the body from its start.
func (b *bodyWatch) whole() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.gone
}

// attach lends the body to an attempt; the one before may read it no more.
func (b *bodyWatch) attach(out *http.Request) {
	out.Body, out.ContentLength, out.GetBody = nil, 0, nil
	if b.body == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.attempt = &watchedBody{b: b}
	out.Body, out.ContentLength = b.attempt, b.size
}

// copied is the body, if all of it was read and kept. The loan must have ended.
func (b *bodyWatch) copied() (body []byte, whole bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.kept, b.body == nil || !b.gone && (b.err == io.EOF || b.size >= 0 && int64(len(b.kept)) == b.size)
}

// finish ends the loan, and tells how much was read, before the handler returns: the server may not be read from any more then. An attempt that failed
// may still be reading, from a client that sends nothing; stuck is called to make that read return.
func (b *bodyWatch) finish(stuck func()) int64 {
	if !b.mu.TryLock() {
		stuck()
		b.mu.Lock()
	}
	defer b.mu.Unlock()
	b.attempt = nil
	return b.total
}

// watchedBody is the body as one attempt reads it.
type watchedBody struct {
	b   *bodyWatch
	off int // in what is kept
}

var errNextAttempt = errors.New("another attempt has the request's body")

func (w *watchedBody) Read(p []byte) (int, error) {
	b := w.b
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.attempt != w:
		return 0, errNextAttempt
	case w.off < len(b.kept):
		n := copy(p, b.kept[w.off:])
		w.off += n
		return n, nil
	case b.err != nil:
		return 0, b.err
	}
	n, err := b.body.Read(p)
	b.err = err
	b.total += int64(n)
	if b.gone = b.gone || n > 0 && (b.size > keepBody || len(b.kept)+n > keepBody); b.gone {
		b.kept, w.off = nil, 0
	} else {
		b.kept = append(b.kept, p[:n]...)
		w.off += n
	}
	return n, err
}

// Close leaves the client's body open: the next attempt may need it, and the server closes it in the end.
func (w *watchedBody) Close() error { return nil }
