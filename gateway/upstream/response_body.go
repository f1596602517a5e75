package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
)

// responseBody is a response's body on its way to the client. Its end, by EOF, error or Close, is the attempt's end.
// Trailers work as ever: net/http fills in the response's Trailer before Read returns io.EOF.
type responseBody struct {
	rc io.ReadCloser
	a  *attempt
	x  *exchange
}

// newResponseBody watches resp's body.
func newResponseBody(resp *http.Response, a *attempt, x *exchange) io.ReadCloser {
	b := &responseBody{resp.Body, a, x}
	a.download.start(a.policy.Idle, func() {
		a.cancel(&timeoutError{"no more of the response's body", a.policy.Idle})
	})
	return b
}

// Read fails with an *Error, or io.EOF at a complete body's end.
func (b *responseBody) Read(p []byte) (int, error) {
	b.a.download.begin()
	n, err := b.rc.Read(p)
	b.a.download.end()
	if err == nil || err == http.ErrBodyReadAfterClose {
		return n, err
	}
	if err == io.EOF {
		b.a.settle(nil)
	} else {
		err = b.failed(err)
	}
	b.a.end()
	b.x.end(b.a)
	return n, err
}

func (b *responseBody) failed(err error) error {
	e := b.a.classify(b.x.r, b.x.body, err)
	e.Sent = true
	switch limit := timeLimit(b.a.ctx); {
	case b.a.ended.Load(): // closed while reading, so it says nothing
		b.a.settle(errNeutral)
	case !e.originAtFault(), limit != nil && limit == b.x.total:
		// The total timeout may have run out because the client reads slowly.
		b.a.settle(errNeutral)
	default:
		b.a.fail(e.Cause)
	}
	return e
}

// Close ends the attempt. A body that the client doesn't want to its end is no failure of the origin.
func (b *responseBody) Close() error {
	b.a.settle(nil)
	b.a.end()
	err := b.rc.Close()
	b.x.end(b.a)
	return err
}

// upgradedBody is the body of a 101 response: the connection itself, in both directions (RFC 9110 section 7.8). It is
// closed when neither direction moved for the idle timeout, or when the client's request ends.
type upgradedBody struct {
	rwc io.ReadWriteCloser
	a   *attempt
	x   *exchange

	mu     sync.Mutex
	closed bool
	stop   func() bool // ends the wait for the client's request to end; nil until it began
}

func newUpgradedBody(rwc io.ReadWriteCloser, a *attempt, x *exchange) *upgradedBody {
	b := &upgradedBody{rwc: rwc, a: a, x: x}
	a.download.start(a.policy.Idle, func() { _ = b.Close() })
	a.download.begin()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stop = context.AfterFunc(x.r.Context(), func() { _ = b.Close() })
	return b
}

func (b *upgradedBody) Read(p []byte) (int, error) {
	n, err := b.rwc.Read(p)
	b.a.download.begin()
	return n, err
}

func (b *upgradedBody) Write(p []byte) (int, error) {
	n, err := b.rwc.Write(p)
	b.a.download.begin()
	return n, err
}

// CloseWrite ends one direction, where the connection can.
func (b *upgradedBody) CloseWrite() error {
	if c, ok := b.rwc.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (b *upgradedBody) Close() error {
	b.mu.Lock()
	first, stop := !b.closed, b.stop
	b.closed = true
	b.mu.Unlock()
	if !first {
		return nil
	}
	if stop != nil {
		stop()
	}
	err := b.rwc.Close()
	b.a.end()
	b.x.end(b.a)
	return err
}
