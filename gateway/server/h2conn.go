package server

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// Settings of HTTP/2 connections that are not the operator's business.
const (
	h2ReadFrame       = 16 << 10  // largest frame that is read: the protocol's minimum, so that a connection's buffer stays small
	h2UploadPerConn   = 1 << 20   // request body bytes that a connection may have buffered here
	h2UploadPerStream = 256 << 10 // and a stream
	h2PingAfter       = 30 * time.Second
	h2PingTimeout     = 15 * time.Second
	h2PeerStreams     = 1000 // streams of a connection between nodes, which carries the requests of many clients

	// h2Settle is the time between the two GOAWAYs of a graceful stop: a round trip for all but the farthest clients.
	h2Settle = 500 * time.Millisecond
)

// h2Conn is a TLS connection under net/http's HTTP/2 server. It adds what that server lacks: a graceful stop of one
// connection by two GOAWAY frames (RFC 9113 section 6.8). The first says that there will be no more but cuts nothing
// off, the second, when requests on their way have arrived, names the last stream. To put the first between the
// server's own frames it follows the frames that are written.
type h2Conn struct {
	net.Conn // is tls, without the method by which net/http would know it
	tls      *tls.Conn
	c        *conn
	hs       *http.Server // of this connection alone, so that Shutdown stops only this one

	open       atomic.Bool  // streams are open
	openedAt   atomic.Int64 // when the first of them was, Unix nanoseconds
	goAway     atomic.Bool  // the first GOAWAY is due
	leaving    atomic.Bool
	finalAt    atomic.Int64 // when the second was sent, Unix nanoseconds
	timerMu    sync.Mutex
	timersDone bool
	timers     []*time.Timer

	mu      sync.Mutex // guards writing and the fields below
	frames  frameTracker
	started bool // the server's SETTINGS are out
}

// Write writes p, with the GOAWAY that is due at the first boundary between two frames.
func (h *h2Conn) Write(p []byte) (int, error) {
	n, err := h.write(p)
	h.flushGoAway()
	return n, err
}

func (h *h2Conn) write(p []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for n < len(p) {
		if h.goAway.Load() && h.started && h.frames.boundary() {
			if err := h.writeGoAway(); err != nil {
				return n, err
			}
		}
		piece := p[n:]
		if h.goAway.Load() {
			piece = piece[:h.frames.untilBoundary(piece)]
		}
		m, err := h.Conn.Write(piece)
		h.frames.follow(piece[:m])
		h.started = true
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// flushGoAway writes the GOAWAY that is due, unless a write is on its way, which will see to it itself.
func (h *h2Conn) flushGoAway() {
	for h.goAway.Load() && h.mu.TryLock() {
		ok := h.started && h.frames.boundary()
		if ok {
			_ = h.writeGoAway() // the connection's reader learns of a dead one
		}
		h.mu.Unlock()
		if !ok {
			return
		}
	}
}

// writeGoAway writes a GOAWAY frame that names the highest stream there can be. The caller holds mu.
func (h *h2Conn) writeGoAway() error {
	h.goAway.Store(false)
	frame := make([]byte, 17) // header 9, last stream 4, error code 4: NO_ERROR
	frame[2], frame[3] = 8, byte(http2.FrameGoAway)
	binary.BigEndian.PutUint32(frame[9:], 1<<31-1)
	_, err := h.Conn.Write(frame)
	return err
}

// leave tells the client to use another connection, in two steps, and closes this one when its streams are done. It
// doesn't wait, and does nothing when called again.
func (h *h2Conn) leave() {
	if h.leaving.Swap(true) {
		return
	}
	h.goAway.Store(true)
	go h.flushGoAway() // may block until the client reads; ends with the connection
	h.after(h2Settle, h.sendFinal)
}

// sendFinal sends the GOAWAY that names the last stream; net/http then closes the connection behind its streams.
func (h *h2Conn) sendFinal() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // only to start the shutdown, not to wait for it
	_ = h.hs.Shutdown(ctx)
	h.finalAt.Store(h.c.srv.now().UnixNano())
}

// after calls f later, unless the connection closes before.
func (h *h2Conn) after(d time.Duration, f func()) {
	h.timerMu.Lock()
	defer h.timerMu.Unlock()
	if !h.timersDone {
		h.timers = append(h.timers, time.AfterFunc(d, f))
	}
}

func (h *h2Conn) stopTimers() {
	h.timerMu.Lock()
	defer h.timerMu.Unlock()
	h.timersDone = true
	for _, t := range h.timers {
		t.Stop()
	}
	h.timers = nil
}

// stateChanged hears from net/http when streams are open and when none is.
func (h *h2Conn) stateChanged(_ net.Conn, state http.ConnState) {
	if state == http.StateClosed { // net/http says so when it has closed the connection
		return
	}
	if state == http.StateActive {
		h.openedAt.Store(h.c.srv.now().UnixNano())
	}
	h.open.Store(state == http.StateActive)
}

// serveH2 starts to serve an HTTP/2 connection. net/http would do so of itself for a *tls.Conn, but then there were no
// place to follow frames between the two; so it is told of an HTTP/2 connection by prior knowledge, on a server of its
// own.
func (s *Server) serveH2(c *conn, t *tls.Conn) {
	limits := s.limitsOf(c.ln.kind)
	streams := limits.Streams
	if c.ln.kind == peerListener {
		streams = max(streams, h2PeerStreams)
	}
	h := &h2Conn{tls: t, Conn: t, c: c}
	var only http.Protocols
	only.SetUnencryptedHTTP2(true)
	h.hs = &http.Server{
		Handler:                      http.HandlerFunc(s.serve),
		Protocols:                    &only,
		DisableGeneralOptionsHandler: true,
		MaxHeaderBytes:               int(limits.HeaderBytes),
		ReadHeaderTimeout:            limits.HeaderTimeout.D(), // for the preface
		IdleTimeout:                  limits.IdleTimeout.D(),
		ErrorLog:                     s.errorLog,
		ConnState:                    h.stateChanged,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          streams,
			MaxReadFrameSize:              h2ReadFrame,
			SendPingTimeout:               h2PingAfter,
			PingTimeout:                   h2PingTimeout,
			MaxReceiveBufferPerConnection: h2UploadPerConn,
			MaxReceiveBufferPerStream:     h2UploadPerStream,
			CountError:                    func(kind string) { s.metrics.h2Errors.WithLabelValues(kind).Inc() },
			// WriteByteTimeout is off: conn bounds every write, of every protocol.
		},
	}
	c.mu.Lock()
	closed := c.phase == phaseClosed
	if !closed {
		c.h2 = h
	}
	c.mu.Unlock()
	if closed {
		return
	}
	s.metrics.connections.WithLabelValues(c.ln.kind.String(), "h2").Inc()
	_ = h.hs.Serve(&single{conn: h}) // returns at once: the connection has a goroutine of its own
}

// single is a listener for one connection.
type single struct {
	conn net.Conn
}

// Accept returns the connection, then fails.
func (l *single) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	return nil, net.ErrClosed
}

// Close does nothing: the connection goes on.
func (l *single) Close() error { return nil }

// Addr has no meaning here.
func (l *single) Addr() net.Addr { return &net.TCPAddr{} }

// frameTracker follows HTTP/2 frames in the bytes that are written, to know where another may be put in between.
type frameTracker struct {
	header [9]byte
	have   int  // bytes of the header seen
	left   int  // payload bytes still to come
	block  bool // a header block is open: only its CONTINUATION may follow (RFC 9113 section 6.10)
}

// boundary tells whether a frame may be put in here.
func (f *frameTracker) boundary() bool { return f.have == 0 && !f.block }

// follow takes note of bytes that were written.
func (f *frameTracker) follow(p []byte) {
	for len(p) > 0 {
		p = p[f.next(p):]
	}
}

// untilBoundary is the length of the part of p up to the first boundary behind its beginning, or all of it.
func (f *frameTracker) untilBoundary(p []byte) int {
	look := *f
	n := 0
	for n < len(p) {
		n += look.next(p[n:])
		if look.boundary() {
			return n
		}
	}
	return n
}

// next follows p to the end of a frame's header or payload and returns how many bytes that was.
func (f *frameTracker) next(p []byte) int {
	if f.have < len(f.header) {
		n := copy(f.header[f.have:], p)
		if f.have += n; f.have == len(f.header) {
			f.left = int(f.header[0])<<16 | int(f.header[1])<<8 | int(f.header[2])
			f.ended()
		}
		return n
	}
	n := min(len(p), f.left)
	f.left -= n
	f.ended()
	return n
}

// ended closes the frame whose payload is complete.
func (f *frameTracker) ended() {
	if f.left > 0 {
		return
	}
	f.have = 0
	switch http2.FrameType(f.header[3]) {
	case http2.FrameHeaders, http2.FramePushPromise, http2.FrameContinuation:
		f.block = http2.Flags(f.header[4])&http2.FlagHeadersEndHeaders == 0
	}
}
