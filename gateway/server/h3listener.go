package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	// h3Unverified is how many handshakes may be under way before clients must prove their addresses first, which takes
	// them a round trip (RFC 9000 section 8.1.2): a flood with forged addresses then costs no state.
	h3Unverified = 64
	// altSvcAge is for how long a client may come back by HTTP/3 at once. One that finds nobody there, as when it is
	// turned off, falls back to TCP.
	altSvcAge = 24 * time.Hour
	// udpBuffer is the socket buffer below which bursts are lost at a gigabit a second, as quic-go has it.
	udpBuffer = 7 << 20
)

// quicListener is what a listener for HTTP/3 has.
type quicListener struct {
	udp        *net.UDPConn
	transport  *quic.Transport
	ln         *quic.Listener
	handshakes atomic.Int64 // under way
}

// AddHTTP3 listens for HTTP/3 (RFC 9114) on the UDP port beside an HTTPS listener, whose address AddHTTPS returned, with
// the same certificates. The responses of that listener tell clients of it by Alt-Svc (RFC 7838) unless the node leaves
// or the handler has set one. Early data (0-RTT) is not taken: it can be replayed, and no origin could tell.
func (s *Server) AddHTTP3(beside net.Addr, cfg *tls.Config) error {
	l, tcp, err := s.newQUIC(beside, cfg)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() {
		l.close()
		return fmt.Errorf("listen on %s: the server is stopping; start a new one", beside)
	}
	s.quics = append(s.quics, l)
	told := `h3=":` + strconv.Itoa(int(addrPort(beside).Port())) + `"; ma=` + strconv.Itoa(int(altSvcAge.Seconds()))
	tcp.altSvc.Store(&told)
	if s.running {
		s.acceptQUIC(l)
	}
	return nil
}

// newQUIC binds the UDP port beside an HTTPS listener, which it returns too.
func (s *Server) newQUIC(beside net.Addr, cfg *tls.Config) (l, tcp *listener, err error) {
	s.mu.Lock()
	for _, have := range s.listeners {
		if have.kind == httpsListener && have.Addr().String() == beside.String() {
			tcp = have
		}
	}
	s.mu.Unlock()
	if tcp == nil {
		return nil, nil, fmt.Errorf("listen for HTTP/3 on %s: there is no https listener at this address", beside)
	}
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(context.Background(), "udp", beside.String())
	if err != nil {
		return nil, nil, listenError(httpsListener, beside.String()+" (UDP, for listen.http3)", err)
	}
	udp := pc.(*net.UDPConn)
	s.growBuffers(udp)
	q := &quicListener{udp: udp}
	l = &listener{kind: httpsListener, tls: h3TLS(cfg), handler: tcp.handler, quic: q}
	q.transport = &quic.Transport{
		Conn: udp,
		VerifySourceAddress: func(from net.Addr) bool {
			return q.handshakes.Load() >= h3Unverified || s.clients.strained(keyOf(addrPort(from).Addr()), s.limits(), s.now())
		},
		ConnContext: func(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
			return s.admitQUIC(ctx, l, info)
		},
	}
	conf := s.quicConfig()
	conf.GetConfigForClient = func(*quic.ClientInfo) (*quic.Config, error) { return s.quicConfig(), nil } // limits may have changed
	if q.ln, err = q.transport.Listen(l.tls, conf); err != nil {
		_ = q.transport.Close()
		_ = udp.Close()
		return nil, nil, fmt.Errorf("listen for HTTP/3 on %s: %w", beside, err)
	}
	return l, tcp, nil
}

// quicConfig is how a connection that comes now is bounded.
func (s *Server) quicConfig() *quic.Config {
	limits := s.limits()
	return &quic.Config{
		HandshakeIdleTimeout:           limits.HeaderTimeout.D() / 2, // the whole handshake may take twice as long
		MaxIdleTimeout:                 limits.IdleTimeout.D(),
		KeepAlivePeriod:                h3KeepAlive,
		MaxIncomingStreams:             int64(limits.Streams),
		MaxIncomingUniStreams:          h3UniStreams,
		InitialStreamReceiveWindow:     h3UploadPerStream,
		MaxStreamReceiveWindow:         h3UploadPerStream,
		InitialConnectionReceiveWindow: h3UploadPerConn,
		MaxConnectionReceiveWindow:     h3UploadPerConn,
	}
}

// growBuffers makes the socket's buffers as large as the system lets it.
func (s *Server) growBuffers(udp *net.UDPConn) {
	// quic-go does so too, but complains by the standard logger.
	_ = os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	read, write, ok := growUDP(udp, udpBuffer)
	if !ok {
		return
	}
	s.metrics.udpBuffer.Set(float64(read))
	if read < udpBuffer || write < udpBuffer {
		s.log.Warn("the socket buffers for HTTP/3 are small, and bursts will be lost; run: "+
			"sysctl -w net.core.rmem_max=7500000 net.core.wmem_max=7500000, and restart the node",
			"address", udp.LocalAddr().String(), "receive_bytes", read, "send_bytes", write, "wanted_bytes", udpBuffer)
	}
}

// acceptQUIC starts to take the connections of l whose handshakes are over. The caller holds mu.
func (s *Server) acceptQUIC(l *listener) {
	s.acceptingQUIC.Go(func() {
		for {
			qc, err := l.quic.ln.Accept(context.Background())
			switch {
			case err == nil:
				c := qc.Context().Value(connKey{}).(*conn)
				s.serving.Go(func() { s.serveH3(c, qc) })
				continue
			case s.stopping.Load(), errors.Is(err, quic.ErrServerClosed), errors.Is(err, quic.ErrTransportClosed):
				return
			}
			select {
			case s.failed <- fmt.Errorf("accept HTTP/3 connections on %s: %w; the listener is lost, restart the node", l.quic.ln.Addr(), err):
			default: // one failure is enough to end Run
			}
			return
		}
	})
}

// closeQUICListeners ends accepting; handshakes that are under way may still end well.
func (s *Server) closeQUICListeners() {
	for _, l := range s.quics {
		s.acceptingQUIC.Go(func() { _ = l.quic.ln.Close() }) // waits for those handshakes
	}
}

// closeQUIC frees the sockets.
func (s *Server) closeQUIC() {
	s.mu.Lock()
	all := s.quics
	s.mu.Unlock()
	for _, l := range all {
		l.close()
	}
	s.acceptingQUIC.Wait()
}

func (l *listener) close() {
	_ = l.quic.transport.Close()
	_ = l.quic.udp.Close()
}
