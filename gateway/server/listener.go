package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Bounds of accepting.
const (
	acceptRetryMin = 5 * time.Millisecond
	acceptRetryMax = time.Second
	// lastCall is how long a closing listener still accepts what the kernel has queued, which a close would reset.
	lastCall = 100 * time.Millisecond
)

type kind uint8

const (
	httpListener kind = iota
	httpsListener
	peerListener
)

func (k kind) String() string { return [...]string{ListenerHTTP, ListenerHTTPS, ListenerPeer}[k] }

// listener is one address that connections are accepted on.
type listener struct {
	*net.TCPListener
	kind    kind
	tls     *tls.Config
	handler http.Handler
	altSvc  atomic.Pointer[string] // what responses tell of HTTP/3; nil: nothing
	quic    *quicListener          // instead of the TCPListener, for HTTP/3
}

// AddHTTP listens on addr (host:port) for plain HTTP/1.1 and returns the address bound to, which has the port chosen
// when addr's is 0.
func (s *Server) AddHTTP(addr string, h http.Handler) (net.Addr, error) {
	return s.add(httpListener, addr, nil, h)
}

// AddHTTPS listens on addr for HTTP/1.1 and HTTP/2 over TLS. The config is cloned; its NextProtos are completed with h2
// and http/1.1, others in it (acme-tls/1) are kept and their connections closed after the handshake.
func (s *Server) AddHTTPS(addr string, cfg *tls.Config, h http.Handler) (net.Addr, error) {
	cfg = cfg.Clone()
	for _, p := range []string{"h2", "http/1.1"} {
		if !slices.Contains(cfg.NextProtos, p) {
			cfg.NextProtos = append(cfg.NextProtos, p)
		}
	}
	return s.add(httpsListener, addr, cfg, h)
}

// AddPeer listens on addr for other nodes: HTTP/2 only. The config decides whom it trusts and should require and verify
// client certificates; a connection without one is closed. A peer is named by the first DNS name of its certificate,
// else by the common name. Per-client bounds don't hold for peers.
func (s *Server) AddPeer(addr string, cfg *tls.Config, h http.Handler) (net.Addr, error) {
	cfg = cfg.Clone()
	cfg.NextProtos = []string{"h2"}
	return s.add(peerListener, addr, cfg, h)
}

func (s *Server) add(k kind, addr string, cfg *tls.Config, h http.Handler) (net.Addr, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, listenError(k, addr, err)
	}
	l := &listener{TCPListener: ln.(*net.TCPListener), kind: k, tls: cfg, handler: h}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() {
		_ = ln.Close()
		return nil, fmt.Errorf("listen on %s: the server is stopping; start a new one", addr)
	}
	s.listeners = append(s.listeners, l)
	if s.running {
		s.accept(l)
	}
	return ln.Addr(), nil
}

// listenError says what to do about an address that can't be bound.
func listenError(k kind, addr string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listen on %s: the address is in use; stop the program that holds it or change listen.%s: %w", addr, k, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("listen on %s: not permitted; use a port above 1023 or grant CAP_NET_BIND_SERVICE: %w", addr, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listen on %s: this machine has no such address; change listen.%s or --bind: %w", addr, k, err)
	}
	return fmt.Errorf("listen on %s: %w; check listen.%s", addr, err, k)
}

// accept starts the accept loop of l. The caller holds mu.
func (s *Server) accept(l *listener) {
	s.accepting.Go(func() {
		if err := s.acceptLoop(l); err != nil {
			select {
			case s.failed <- err:
			default: // one failure is enough to end Run
			}
		}
	})
}

// acceptLoop accepts until the listener is closed or, while stopping, its last call is over. Want of file descriptors
// or memory is waited out.
func (s *Server) acceptLoop(l *listener) error {
	defer l.Close()
	wait := acceptRetryMin
	for {
		nc, err := l.AcceptTCP()
		switch {
		case err == nil:
			wait = acceptRetryMin
			s.admitConn(l, nc)
			continue
		case s.stopping.Load(), errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS),
			errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.ECONNABORTED):
			s.log.Warn("connections can't be accepted for now; raise the limit on open files if this lasts",
				"address", l.Addr().String(), "error", err, "retry_in", wait)
			select {
			case <-time.After(wait):
			case <-s.stopped:
				return nil
			}
			wait = min(2*wait, acceptRetryMax)
		default:
			return fmt.Errorf("accept connections on %s: %w; the listener is lost, restart the node", l.Addr(), err)
		}
	}
}

// admitConn takes a connection in, or closes it at once when it is over a bound.
func (s *Server) admitConn(l *listener, nc *net.TCPConn) {
	now := s.now()
	s.metrics.accepted.WithLabelValues(l.kind.String()).Inc()
	remote := addrPort(nc.RemoteAddr())
	c := &conn{Conn: nc, srv: s, ln: l, client: keyOf(remote.Addr()), since: now, lastDone: now,
		base: ConnInfo{srv: s, Listener: l.kind.String(), TLS: l.tls != nil, LocalAddr: addrPort(nc.LocalAddr()), RemoteAddr: remote}}
	var reason string
	var ok bool
	if l.kind == peerListener {
		reason, ok = s.clients.admitPeer(s.limits())
	} else {
		reason, ok = s.clients.admit(c.client, s.limits(), now)
	}
	if !ok {
		s.metrics.refusedConns.WithLabelValues(reason).Inc()
		_ = nc.Close()
		return
	}
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	if l.tls == nil {
		s.serveH1(c, c)
		return
	}
	s.serving.Go(func() { s.serveTLS(c) })
}

// addrPort is a TCP or UDP address with IPv4 unmapped.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// serveTLS shakes hands and hands the connection to the protocol that was agreed on.
func (s *Server) serveTLS(c *conn) {
	t := tls.Server(c, c.ln.tls)
	hs, cancel := context.WithTimeout(context.Background(), s.limits().HeaderTimeout.D())
	err := t.HandshakeContext(hs)
	timedOut := hs.Err() != nil
	cancel()
	if err != nil {
		s.handshakeFailed(c, err, timedOut)
		return
	}
	st := t.ConnectionState()
	switch proto := st.NegotiatedProtocol; {
	case c.ln.kind == peerListener && (proto != "h2" || !nameOfPeer(c, &st)):
		s.metrics.refusedConns.WithLabelValues("protocol").Inc()
		s.log.Debug("a connection to the peer listener was closed: it needs HTTP/2 and a verified certificate",
			"remote", c.base.RemoteAddr.String(), "proto", proto)
		_ = t.Close()
	case proto == "h2":
		s.serveH2(c, t)
	case proto == "" || proto == "http/1.1":
		s.serveH1(c, t)
	default: // acme-tls/1 has done its work by now
		_ = t.Close()
	}
}

// nameOfPeer takes the node's name from its verified certificate.
func nameOfPeer(c *conn, st *tls.ConnectionState) bool {
	if len(st.VerifiedChains) == 0 || len(st.VerifiedChains[0]) == 0 {
		return false
	}
	leaf := st.VerifiedChains[0][0]
	c.base.PeerName = leaf.Subject.CommonName
	if len(leaf.DNSNames) > 0 {
		c.base.PeerName = leaf.DNSNames[0]
	}
	return c.base.PeerName != ""
}

func (s *Server) handshakeFailed(c *conn, err error, timedOut bool) {
	reason := "protocol"
	var notTLS tls.RecordHeaderError
	var badCert *tls.CertificateVerificationError
	switch {
	case timedOut, errors.Is(err, os.ErrDeadlineExceeded):
		reason = "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET):
		reason = "closed"
	case errors.As(err, &badCert):
		reason = "certificate"
	case errors.As(err, &notTLS):
		reason = "not_tls"
		if notTLS.Conn != nil && c.ln.kind == httpsListener {
			const text = "This port speaks HTTPS; use https:// in the URL.\n"
			_, _ = fmt.Fprintf(notTLS.Conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"+
				"Connection: close\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
		}
	}
	s.metrics.handshakeFailures.WithLabelValues(reason).Inc()
	s.log.Debug("TLS handshake failed", "remote", c.base.RemoteAddr.String(), "reason", reason, "error", err)
	_ = c.Close()
}

// feed is the listener that net/http serves: it gets the connections that speak HTTP/1.1.
type feed struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newFeed() *feed { return &feed{conns: make(chan net.Conn), done: make(chan struct{})} }

// Accept waits for the next connection.
func (f *feed) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (f *feed) Close() error {
	f.once.Do(func() { close(f.done) })
	return nil
}

// Addr has no meaning for a feed.
func (f *feed) Addr() net.Addr { return &net.TCPAddr{} }

// serveH1 hands a connection, or the TLS connection over it, to net/http behind the framing filter.
func (s *Server) serveH1(c *conn, stream net.Conn) {
	h := &h1Conn{Conn: stream, c: c}
	c.mu.Lock()
	closed := c.phase == phaseClosed
	if !closed {
		c.h1, c.since = h, s.now()
	}
	c.mu.Unlock()
	if closed {
		return
	}
	s.metrics.connections.WithLabelValues(c.ln.kind.String(), "h1").Inc()
	var nc net.Conn = h
	if c.ln.tls != nil {
		nc = h1TLSConn{h}
	}
	select {
	case s.h1Feed.conns <- nc:
	case <-s.h1Feed.done:
		_ = c.Close()
	}
}

// newH1Server is the net/http server for HTTP/1.1. It has no timeouts and hardly a bound: h1Conn keeps them.
func newH1Server(s *Server) *http.Server {
	var only http.Protocols
	only.SetHTTP1(true)
	return &http.Server{
		Handler:                      http.HandlerFunc(s.serve),
		Protocols:                    &only,
		DisableGeneralOptionsHandler: true,
		MaxHeaderBytes:               2 << 20, // above the largest header_bytes there can be
		ErrorLog:                     s.errorLog,
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, nc.(interface{ conn() *conn }).conn())
		},
	}
}
