package server

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// maxWriteAtOnce bounds what one write deadline covers: a client that takes this much within Limits.IdleTimeout makes
// progress.
const maxWriteAtOnce = 64 << 10

// phase is where an HTTP/1.1 connection is between two requests. An HTTP/2 or HTTP/3 connection stays phaseNew.
type phase uint8

const (
	phaseNew      phase = iota // accepted; no byte of a request yet
	phaseIdle                  // between requests
	phaseBusy                  // a request arrives or is answered
	phaseHijacked              // upgraded: the handler owns it
	phaseClosed
)

// conn is one accepted connection: the socket under TLS and HTTP, and the book-keeping about it. It bounds writes that
// make no progress, whoever writes. Its methods may be called concurrently.
type conn struct {
	net.Conn // the socket
	srv      *Server
	ln       *listener
	client   clientKey
	base     ConnInfo // all but the request's ID; immutable once a protocol is chosen

	refused atomic.Pointer[refusal] // what the framing filter found wrong with the last request

	mu       sync.Mutex
	phase    phase
	since    time.Time // of the phase
	h1       *h1Conn   // nil before the protocol is chosen
	h2       *h2Conn   // nil before the protocol is chosen
	h3       *h3Conn   // nil before the handshake is over
	requests *request  // in flight, newest first
	lastDone time.Time // when a request last finished, or the connection began

	dmu      sync.Mutex
	explicit time.Time // write deadline that somebody above asked for
	armed    time.Time // when the write deadline was last set here
}

// Write writes p in pieces, each of which must be taken within the idle timeout.
func (c *conn) Write(p []byte) (n int, err error) {
	for {
		piece := p[n:]
		if len(piece) > maxWriteAtOnce {
			piece = piece[:maxWriteAtOnce]
		}
		ours := c.armWrite()
		m, err := c.Conn.Write(piece)
		n += m
		if err != nil {
			if ne, ok := err.(net.Error); ok && ours && ne.Timeout() {
				c.srv.metrics.stalled.WithLabelValues("write").Inc()
			}
			return n, err
		}
		if n == len(p) {
			return n, nil
		}
	}
}

// armWrite renews the write deadline, unless somebody above has set one; it tells whether the deadline is its own. To
// be cheap it lets a deadline stand that is at least seven eighths away.
func (c *conn) armWrite() (ours bool) {
	c.dmu.Lock()
	defer c.dmu.Unlock()
	if !c.explicit.IsZero() {
		return false
	}
	now := time.Now()
	if idle := c.srv.limits().IdleTimeout.D(); now.Sub(c.armed) > idle/8 {
		_ = c.Conn.SetWriteDeadline(now.Add(idle)) // a closed socket says so at the write
		c.armed = now
	}
	return true
}

// SetWriteDeadline replaces the progress bound until it is called with the zero time.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.dmu.Lock()
	defer c.dmu.Unlock()
	c.explicit, c.armed = t, time.Time{}
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *conn) SetDeadline(t time.Time) error {
	if err := c.Conn.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// CloseWrite sends a FIN.
func (c *conn) CloseWrite() error {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		return tcp.CloseWrite()
	}
	return nil
}

// Close closes the socket at once and gives back what the connection counted for.
func (c *conn) Close() error {
	c.mu.Lock()
	first := c.phase != phaseClosed
	hijacked := c.phase == phaseHijacked
	c.phase, c.since = phaseClosed, c.srv.now()
	var held *request
	if hijacked {
		held = c.requests // the request of an upgraded connection ends with it
	}
	h2, h3 := c.h2, c.h3
	c.mu.Unlock()
	if first {
		c.tellRTT()
	}
	err := c.Conn.Close()
	if first {
		if h2 != nil {
			h2.stopTimers()
		}
		if h3 != nil {
			h3.stopTimer()
		}
		if held != nil {
			held.finish()
		}
		c.srv.remove(c)
	}
	return err
}

// setPhase moves an HTTP/1.1 connection on. It reports false when the connection was closed meanwhile.
func (c *conn) setPhase(p phase) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == phaseClosed {
		return false
	}
	if c.phase != p {
		c.phase, c.since = p, c.srv.now()
	}
	return true
}

// add puts q among the requests in flight.
func (c *conn) add(q *request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q.next = c.requests
	if q.next != nil {
		q.next.prev = q
	}
	c.requests = q
}

// drop takes q out of the requests in flight.
func (c *conn) drop(q *request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if q.prev != nil {
		q.prev.next = q.next
	} else {
		c.requests = q.next
	}
	if q.next != nil {
		q.next.prev = q.prev
	}
	q.prev, q.next = nil, nil
	c.lastDone = c.srv.now()
}

// held appends what the connection has in flight.
func (c *conn) held(to []Held, now time.Time) []Held {
	c.mu.Lock()
	defer c.mu.Unlock()
	for q := c.requests; q != nil; q = q.next {
		to = append(to, Held{Method: q.method, Host: q.host, Path: q.path, Remote: c.base.RemoteAddr.String(),
			Proto: q.proto(c.phase == phaseHijacked), Age: now.Sub(q.start)})
	}
	return to
}

// proto is the protocol as metrics know it; empty before it is chosen.
func (c *conn) proto() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.h3 != nil:
		return "h3"
	case c.h2 != nil:
		return "h2"
	case c.h1 != nil:
		return "h1"
	}
	return ""
}
