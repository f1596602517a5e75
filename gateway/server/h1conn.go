package server

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of the polite close after a refusal: the client gets this long, and this much of what it still sends is read,
// so that the answer isn't lost to a TCP reset (RFC 9112 section 9.6).
const (
	lingerTime  = time.Second
	lingerBytes = 1 << 20
)

// ErrMalformedBody is what a handler gets when it reads a request body whose chunks are malformed: the client's fault, a
// 400. The connection is closed behind the answer.
var ErrMalformedBody = errors.New("the client's chunked request body is malformed")

// What stands in for a refused head. A client that sends this method itself gets no further than any unknown method.
const (
	refusedMethod   = "REFUSED"
	refusedHead     = refusedMethod + " / HTTP/1.1\r\nHost: refused.invalid\r\nConnection: close\r\n\r\n"
	refusedHeadJSON = refusedMethod + " / HTTP/1.1\r\nHost: refused.invalid\r\nConnection: close\r\nAccept: application/json\r\n\r\n"
)

type readState uint8

const (
	readHead readState = iota
	readFixed
	readChunked
	readRaw  // upgraded: bytes pass
	readDead // refused: nothing more is read
)

// h1Conn is the framing filter in front of net/http's HTTP/1.1 server. Its reader holds a request's head back until it
// is whole and found good; a head that is not is replaced by one that makes the handler answer with the refusal, in its
// turn behind the answers to earlier requests. It follows bodies, so that it always knows where a head begins, and it
// keeps the time bounds on reading, from the limits of the moment: net/http's own are off.
type h1Conn struct {
	net.Conn // plain or TLS
	c        *conn

	// Owned by whoever reads; net/http has one reader at a time.
	buf    []byte // from the server's pool, nil while nothing is held
	off    int    // buf[off:] is read and not delivered
	ready  int    // leading bytes of buf[off:] that may be delivered
	state  readState
	served bool // a head was delivered
	scan   headScanner
	headAt time.Time // when the head began to arrive
	length int64     // still to come of a fixed body
	chunks chunker
	one    [1]byte

	linger atomic.Bool

	dmu      sync.Mutex
	explicit time.Time // read deadline that somebody above asked for
}

// h1TLSConn is an h1Conn over TLS: net/http recognises one by this method.
type h1TLSConn struct{ *h1Conn }

// ConnectionState is the TLS connection's.
func (h h1TLSConn) ConnectionState() tls.ConnectionState {
	return h.Conn.(*tls.Conn).ConnectionState()
}

func (h *h1Conn) conn() *conn { return h.c }

// Read delivers what was judged good. It returns 0 and no error when net/http waits, during a request, for the client
// to go away or to send the next request, and the first byte of one has come: the byte is kept, the wait is over.
func (h *h1Conn) Read(p []byte) (int, error) {
	for len(p) > 0 {
		if h.ready > 0 {
			n := copy(p, h.buf[h.off:h.off+h.ready])
			h.consume(n)
			return n, nil
		}
		var n int
		var err error
		more := false
		switch h.state {
		case readHead:
			n, more, err = h.readHead(p)
		case readFixed:
			n, err = h.readFixed(p)
		case readChunked:
			n, err = h.readChunked(p)
		case readRaw:
			if h.ready = len(h.buf) - h.off; h.ready > 0 {
				continue
			}
			return h.Conn.Read(p)
		case readDead:
			return 0, io.EOF
		}
		if !more {
			return n, err
		}
	}
	return 0, nil
}

// readHead reads until a head is whole. more tells the caller to look again: something is ready.
func (h *h1Conn) readHead(p []byte) (n int, more bool, err error) {
	if len(p) == 1 {
		// Only net/http's wait for the client to go away reads a single byte here; it aborts it by a deadline. Nothing
		// is judged: should the handler take the connection over, what comes is no head.
		if h.heldBytes() == 0 {
			if n, err = h.Conn.Read(h.one[:]); n == 1 {
				h.hold(h.one[:])
			}
		}
		return 0, false, err
	}
	if h.heldBytes() == 0 {
		n, err := h.awaitHead(p)
		if n == 0 {
			return 0, false, err
		}
		start, end, no := h.judge(p[:n])
		switch {
		case no != nil:
			h.refuse(no, p[:n])
			return 0, true, nil
		case end > 0:
			h.hold(p[end:n])
			return copy(p, p[start:end]), false, nil
		}
		h.hold(p[:n])
	}
	for {
		held := h.buf[h.off:]
		start, end, no := h.judge(held)
		switch {
		case no != nil:
			h.refuse(no, held)
			return 0, true, nil
		case end > 0:
			h.off += start
			h.ready = end - start
			return 0, true, nil
		}
		if more, err := h.gather(); more || err != nil {
			return 0, more, err
		}
	}
}

// awaitHead waits for the first bytes of a request.
func (h *h1Conn) awaitHead(p []byte) (int, error) {
	limits := h.c.srv.limits()
	wait := limits.IdleTimeout.D()
	if !h.served {
		wait = limits.HeaderTimeout.D()
	} else if !h.c.setPhase(phaseIdle) {
		return 0, net.ErrClosed
	}
	h.setDeadline(time.Now().Add(wait))
	n, err := h.Conn.Read(p)
	if n == 0 {
		return 0, err
	}
	if !h.c.setPhase(phaseBusy) {
		return 0, net.ErrClosed
	}
	h.headAt = time.Now()
	return n, nil // an error beside bytes comes again
}

// gather reads more of a head that is not whole yet. refused tells that its time is over.
func (h *h1Conn) gather() (refused bool, err error) {
	if h.headAt.IsZero() { // it came behind an earlier request
		h.headAt = time.Now()
	}
	h.grow()
	h.setDeadline(h.headAt.Add(h.c.srv.limits().HeaderTimeout.D()))
	n, err := h.Conn.Read(h.buf[len(h.buf):cap(h.buf)])
	h.buf = h.buf[:len(h.buf)+n]
	if n > 0 || err == nil {
		return false, nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		h.refuse(refuseSlowHead, h.buf[h.off:])
		return true, nil
	}
	return false, err
}

// judge looks at the head at the beginning of b. Once it is whole, the state is that of its body.
func (h *h1Conn) judge(b []byte) (start, end int, no *refusal) {
	limits := h.c.srv.limits()
	end, no = h.scan.next(b, int(limits.HeaderBytes), limits.Headers)
	if no != nil || end == 0 {
		return 0, 0, no
	}
	start = h.scan.start
	hd, no := parseHead(b[start:end])
	if no != nil {
		return 0, 0, no
	}
	h.scan, h.headAt, h.served = headScanner{}, time.Time{}, true
	switch hd.body {
	case bodyFixed:
		h.state, h.length = readFixed, hd.length
	case bodyChunked:
		h.state, h.chunks = readChunked, chunker{}
	}
	return start, end, nil
}

func (h *h1Conn) readFixed(p []byte) (n int, err error) {
	if int64(len(p)) > h.length {
		p = p[:h.length]
	}
	if n = h.heldBytes(); n > 0 {
		n = copy(p, h.buf[h.off:])
		h.consume(n)
	} else if n, err = h.readBody(p); n == 0 {
		return 0, err
	}
	if h.length -= int64(n); h.length == 0 {
		h.state = readHead
	}
	return n, err
}

func (h *h1Conn) readChunked(p []byte) (n int, err error) {
	held := h.heldBytes() > 0
	if held {
		n = copy(p, h.buf[h.off:])
	} else if n, err = h.readBody(p); n == 0 {
		return 0, err
	}
	used, done, no := h.chunks.feed(p[:n])
	if no != nil {
		h.c.srv.metrics.refusedRequests.WithLabelValues(no.reason).Inc()
		h.state = readDead
		h.linger.Store(true)
		h.release()
		return 0, ErrMalformedBody
	}
	if held {
		h.consume(used)
	} else {
		h.hold(p[used:n])
	}
	if done {
		h.state = readHead
	}
	return used, nil
}

// readBody reads from the client, which must send something within the idle timeout.
func (h *h1Conn) readBody(p []byte) (int, error) {
	ours := h.setDeadline(time.Now().Add(h.c.srv.limits().IdleTimeout.D()))
	n, err := h.Conn.Read(p)
	if err != nil && ours && errors.Is(err, os.ErrDeadlineExceeded) {
		h.c.srv.metrics.stalled.WithLabelValues("read").Inc()
	}
	return n, err
}

// refuse replaces the head in b by one that the handler knows for a refused one; see Server.takeRefusal.
func (h *h1Conn) refuse(no *refusal, b []byte) {
	substitute := refusedHead
	if headAcceptsJSON(b) {
		substitute = refusedHeadJSON
	}
	h.release()
	h.hold([]byte(substitute))
	h.ready = len(substitute)
	h.state = readDead
	h.linger.Store(true)
	h.c.refused.Store(no)
}

func (h *h1Conn) heldBytes() int { return len(h.buf) - h.off }

func (h *h1Conn) hold(b []byte) {
	if len(b) == 0 {
		return
	}
	if h.buf == nil {
		h.buf = h.c.srv.getBuf()
	}
	h.buf = append(h.buf, b...)
}

func (h *h1Conn) consume(n int) {
	h.off += n
	h.ready = max(h.ready-n, 0)
	if h.off == len(h.buf) {
		h.release()
	}
}

func (h *h1Conn) release() {
	if h.buf != nil {
		h.c.srv.putBuf(h.buf)
	}
	h.buf, h.off, h.ready = nil, 0, 0
}

// grow makes room to read into behind what is held.
func (h *h1Conn) grow() {
	if h.off > 0 {
		h.buf = h.buf[:copy(h.buf, h.buf[h.off:])]
		h.off = 0
	}
	if cap(h.buf)-len(h.buf) < 512 {
		h.buf = append(make([]byte, 0, 2*cap(h.buf)), h.buf...)
	}
}

// setDeadline bounds the read that follows; an earlier deadline that somebody above asked for stands.
func (h *h1Conn) setDeadline(t time.Time) (ours bool) {
	h.dmu.Lock()
	defer h.dmu.Unlock()
	ours = h.explicit.IsZero() || t.Before(h.explicit)
	if !ours {
		t = h.explicit
	}
	_ = h.Conn.SetReadDeadline(t) // a closed connection says so at the read
	return ours
}

// SetReadDeadline bounds reads beyond the filter's own bounds, until it is called with the zero time.
func (h *h1Conn) SetReadDeadline(t time.Time) error {
	h.dmu.Lock()
	defer h.dmu.Unlock()
	h.explicit = t
	return h.Conn.SetReadDeadline(t)
}

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (h *h1Conn) SetDeadline(t time.Time) error {
	if err := h.SetReadDeadline(t); err != nil {
		return err
	}
	return h.Conn.SetWriteDeadline(t)
}

// CloseWrite tells the client that nothing more will come.
func (h *h1Conn) CloseWrite() error {
	if t, ok := h.Conn.(*tls.Conn); ok {
		if err := t.CloseWrite(); err != nil {
			return err
		}
	}
	return h.c.CloseWrite()
}

// Close closes the connection; after a refusal it first lets the client read it.
func (h *h1Conn) Close() error {
	if h.linger.Swap(false) && h.CloseWrite() == nil {
		_ = h.Conn.SetReadDeadline(time.Now().Add(lingerTime))
		_, _ = io.CopyN(io.Discard, h.Conn, lingerBytes)
	}
	return h.Conn.Close()
}
