package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// Settings of HTTP/3 connections that are not the operator's business.
const (
	h3UploadPerConn   = h2UploadPerConn
	h3UploadPerStream = h2UploadPerStream
	h3UniStreams      = 16 // control and QPACK are three; clients open others to see that nobody minds (RFC 9114 section 7.2.8)
	h3KeepAlive       = h2PingAfter
	// h3LastWait is how long a connection that was told to go is kept behind its last response, for the client to take
	// it whole. A close drops what was not acknowledged.
	h3LastWait = 1500 * time.Millisecond
)

// h3Conn is a QUIC connection under quic-go's HTTP/3 server, which it has for itself, so that a shutdown of that server
// stops this connection only: it sends GOAWAY (RFC 9114 section 5.2) and resets later requests as not processed, which
// clients repeat elsewhere.
type h3Conn struct {
	quic *quic.Conn
	hs   *http3.Server

	once   sync.Once
	goAway chan struct{} // closed when the GOAWAY is due

	mu     sync.Mutex
	leftAt time.Time // when it was; zero: not yet
	timer  *time.Timer
	closed bool
}

// leave tells the client to go, once.
func (h *h3Conn) leave(now time.Time) {
	h.once.Do(func() {
		h.mu.Lock()
		h.leftAt = now
		h.mu.Unlock()
		close(h.goAway)
	})
}

// after calls f later, unless the connection closes before.
func (h *h3Conn) after(d time.Duration, f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer != nil {
		h.timer.Stop()
	}
	if !h.closed {
		h.timer = time.AfterFunc(d, f)
	}
}

func (h *h3Conn) stopTimer() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.timer != nil {
		h.timer.Stop()
	}
}

// retire sends the GOAWAY and tells whether the connection, without a request since quiet, may be closed. Well-behaved
// clients close it sooner.
func (h *h3Conn) retire(idle bool, quiet, now time.Time) (done bool) {
	h.leave(now)
	h.mu.Lock()
	defer h.mu.Unlock()
	if quiet.Before(h.leftAt) {
		quiet = h.leftAt
	}
	return idle && now.Sub(quiet) > h3LastWait+3*h.quic.ConnectionStats().SmoothedRTT
}

// quicSocket is a QUIC connection where a conn has its socket: for the addresses and the close. Until the handshake is
// over there is nothing to close; the bound on its time ends it.
type quicSocket struct {
	net.Conn // nil: streams are read and written, not the connection
	c        *conn
	shaken   sync.Once
}

// Close tells the client that the connection is over, and in error when requests are cut by it.
func (s *quicSocket) Close() error {
	s.c.mu.Lock()
	h, code := s.c.h3, http3.ErrCodeNoError
	if s.c.requests != nil {
		code = http3.ErrCodeInternalError
	}
	s.c.mu.Unlock()
	if h == nil {
		return nil
	}
	return h.quic.CloseWithError(quic.ApplicationErrorCode(code), "")
}

// handshakeOver counts the handshake out, however it ended.
func (s *quicSocket) handshakeOver() {
	s.shaken.Do(func() { s.c.ln.quic.handshakes.Add(-1) })
}

var errConnRefused = errors.New("the connection is over a bound")

// admitQUIC takes a connection in before its handshake, or refuses it. What it counts for is given back when the context
// ends.
func (s *Server) admitQUIC(ctx context.Context, l *listener, info *quic.ClientInfo) (context.Context, error) {
	now := s.now()
	s.metrics.accepted.WithLabelValues(l.kind.String()).Inc()
	remote := addrPort(info.RemoteAddr)
	c := &conn{srv: s, ln: l, client: keyOf(remote.Addr()), since: now, lastDone: now,
		base: ConnInfo{Listener: l.kind.String(), TLS: true, LocalAddr: addrPort(l.quic.udp.LocalAddr()), RemoteAddr: remote}}
	socket := &quicSocket{c: c}
	c.Conn = socket
	if reason, ok := s.clients.admit(c.client, s.limits(), now); !ok {
		s.metrics.refusedConns.WithLabelValues(reason).Inc()
		return nil, errConnRefused
	}
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	l.quic.handshakes.Add(1)
	ctx = context.WithValue(ctx, connKey{}, c)
	context.AfterFunc(ctx, func() {
		socket.handshakeOver()
		if c.http3() == nil {
			s.quicHandshakeFailed(c, context.Cause(ctx))
		}
		_ = c.Close()
	})
	return ctx, nil
}

func (s *Server) quicHandshakeFailed(c *conn, err error) {
	reason := "protocol"
	var idle *quic.IdleTimeoutError
	var slow *quic.HandshakeTimeoutError
	var app *quic.ApplicationError
	switch {
	case errors.As(err, &idle), errors.As(err, &slow):
		reason = "timeout"
	case errors.As(err, &app), s.stopping.Load():
		reason = "closed"
	}
	s.metrics.handshakeFailures.WithLabelValues(reason).Inc()
	s.log.Debug("a QUIC handshake failed", "remote", c.base.RemoteAddr.String(), "reason", reason, "error", err)
}

// serveH3 serves a connection whose handshake is over until it ends.
func (s *Server) serveH3(c *conn, qc *quic.Conn) {
	h := &h3Conn{quic: qc, goAway: make(chan struct{})}
	h.hs = &http3.Server{Handler: http.HandlerFunc(s.serve), MaxHeaderBytes: int(s.limits().HeaderBytes)}
	c.mu.Lock()
	closed := c.phase == phaseClosed
	if !closed {
		c.h3 = h
	}
	c.mu.Unlock()
	if closed { // by a stop, or by the client
		_ = qc.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
		return
	}
	c.Conn.(*quicSocket).handshakeOver()
	s.metrics.connections.WithLabelValues(c.ln.kind.String(), "h3").Inc()
	s.serving.Go(func() {
		select {
		case <-h.goAway:
			_ = h.hs.Shutdown(qc.Context()) // returns when the connection has ended
		case <-qc.Context().Done():
		}
	})
	_ = h.hs.ServeQUICConn(qc) // why it ended is the client's business
	_ = c.Close()
}

// http3 is the connection's HTTP/3 side, nil when it has none (yet).
func (c *conn) http3() *h3Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.h3
}

// remote is where the client is now: a QUIC connection may move to another address (RFC 9000 section 9).
func (h *h3Conn) remote() netip.AddrPort { return addrPort(h.quic.RemoteAddr()) }

// h3TLS is cfg as QUIC wants it.
func h3TLS(cfg *tls.Config) *tls.Config {
	cfg = http3.ConfigureTLSConfig(cfg)
	cfg.MinVersion = tls.VersionTLS13
	return cfg
}

// prepareH3Body finds out whether a request without a declared length has a body, where most have none: the library does
// not tell, and an origin should not be sent an empty body in chunks. It answers Expect: 100-continue, which the library
// leaves to the handler.
func prepareH3Body(q *request, r *http.Request) *refusal {
	if strings.EqualFold(r.Header.Get("Expect"), "100-continue") {
		delete(r.Header, "Expect")
		q.writer.WriteHeader(http.StatusContinue)
	}
	if r.ContentLength >= 0 || r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodOptions && r.Method != http.MethodDelete {
		return nil
	}
	rc := http.NewResponseController(q.writer.ResponseWriter)
	_ = rc.SetReadDeadline(time.Now().Add(q.c.srv.limits().HeaderTimeout.D())) // streams always take deadlines
	var first [1]byte
	n, err := io.ReadFull(r.Body, first[:])
	_ = rc.SetReadDeadline(time.Time{})
	switch {
	case n == 1:
		r.Body = prefixedBody{io.MultiReader(bytes.NewReader(first[:]), r.Body), r.Body}
	case errors.Is(err, io.EOF):
		r.Body, r.ContentLength = http.NoBody, 0
	default: // silence, or a client that is gone
		return refuseSlowHead
	}
	return nil
}

// prefixedBody is a body whose beginning was read.
type prefixedBody struct {
	io.Reader
	io.Closer
}

// h3Trailers carries a body's trailers over to where net/http has them: in the map of those that were announced, which
// copies of the request share. The HTTP/3 library gives its own request another map instead.
type h3Trailers struct {
	io.ReadCloser
	from *http.Request
	to   http.Header
}

// Read reads the body; at its end the trailers are there.
func (b *h3Trailers) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		for k := range b.to {
			if v, ok := b.from.Trailer[k]; ok {
				b.to[k] = v
			}
		}
	}
	return n, err
}
