package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"time"
)

// The limits of a transport. They bound what an origin may cost and are not in the config.
const (
	idleConns         = 256              // idle connections kept to one origin
	idleConnTimeout   = 60 * time.Second // an idle connection is closed after it
	keepAlive         = 15 * time.Second // between TCP keep-alive probes
	maxResponseHeader = 256 << 10        // bytes; a larger response header is a CauseReset
	expectContinue    = time.Second      // wait for a 100 before the body is sent all the same (RFC 9110 section 10.1.1)
	h2Ping            = 15 * time.Second // silence on an HTTP/2 connection after which it is tested by a ping
	h2PingTimeout     = 5 * time.Second  // a ping not answered by then closes the connection
	h2WriteTimeout    = 10 * time.Second // a write that makes no progress for so long closes the connection
	bufferSize        = 16 << 10         // bytes, of each connection's reader and of its writer
)

// dialFunc opens a connection.
type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// dialKey is the context key under which an attempt tells the dialer its *dialSettings. net/http keeps a context's values
// for the dial, but not its end: a connection that comes too late for its request serves the next.
type dialKey struct{}

type dialSettings struct {
	connect   time.Duration // to connect, TLS included
	onlyHTTP1 bool          // the connection is to be upgraded, which HTTP/2 doesn't know (RFC 9113 section 8.6)
	client    netip.Addr    // for PROXY protocol
}

// transports are the connections to one origin, of one age.
type transports struct {
	made  time.Time
	plain *http.Transport // for all but
	first *http.Transport // upgrades, which need HTTP/1.1; the same one where it can speak it

	sockets *sockets // WebSockets over HTTP/2; nil: over HTTP/1.1
}

func (t *transports) of(s *dialSettings) *http.Transport {
	if s.onlyHTTP1 {
		return t.first
	}
	return t.plain
}

func (t *transports) closeIdle() {
	t.plain.CloseIdleConnections()
	if t.first != t.plain {
		t.first.CloseIdleConnections()
	}
	if t.sockets != nil {
		t.sockets.closeIdle()
	}
}

func (o *origin) newTransports() *transports {
	t := &transports{made: o.pool.o.Now()}
	t.plain = newTransport(o.pool.o, o.tls, o.pool.o.HTTP)
	t.first = t.plain
	if o.pool.o.HTTP == "2" || o.pool.o.HTTP == "h2c" {
		t.first = newTransport(o.pool.o, o.tls, "1.1")
		t.sockets = newSockets(o.pool.o, o.tls, o.scheme)
	}
	return t
}

// fresh are the transports to use now: when those at hand are too old, new ones take their place, and what is under way
// on the old ones is finished there.
func (o *origin) fresh(now time.Time) *transports {
	t := o.transports.Load()
	age := o.pool.o.ConnectionAge
	if age <= 0 || now.Sub(t.made) < age {
		return t
	}
	if !o.transports.CompareAndSwap(t, o.newTransports()) {
		return o.transports.Load()
	}
	t.closeIdle()
	return o.transports.Load()
}

// protocolsOf are the protocols that a pool's http key names.
func protocolsOf(name string) *http.Protocols {
	p := new(http.Protocols)
	switch name {
	case "1.1":
		p.SetHTTP1(true)
	case "2":
		p.SetHTTP2(true)
	case "h2c":
		p.SetHTTP2(true)
		p.SetUnencryptedHTTP2(true)
	default:
		p.SetHTTP1(true)
		p.SetHTTP2(true)
	}
	return p
}

// newTransport makes a transport to one origin. It uses no proxy, adds no Accept-Encoding and follows nothing.
func newTransport(o PoolOptions, config *tls.Config, version string) *http.Transport {
	dial, protocols := o.Dial, protocolsOf(version)
	config = config.Clone()
	config.NextProtos = nil
	if protocols.HTTP2() {
		config.NextProtos = append(config.NextProtos, "h2")
	}
	if protocols.HTTP1() {
		config.NextProtos = append(config.NextProtos, "http/1.1")
	}
	if v := o.ProxyProtocol; v == "v1" || v == "v2" {
		dial = announcing(dial, v)
	}
	return &http.Transport{
		DisableKeepAlives: o.ProxyProtocol == "v1" || o.ProxyProtocol == "v2", // a connection is one client's
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return dialPlain(ctx, dial, network, addr)
		},
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return dialTLS(ctx, dial, config, network, addr)
		},
		Protocols:              protocols,
		DisableCompression:     true,
		MaxIdleConns:           idleConns,
		MaxIdleConnsPerHost:    idleConns,
		MaxConnsPerHost:        o.Breaker.Connections,
		IdleConnTimeout:        idleConnTimeout,
		ExpectContinueTimeout:  expectContinue,
		MaxResponseHeaderBytes: maxResponseHeader,
		ReadBufferSize:         bufferSize,
		WriteBufferSize:        bufferSize,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout:  h2Ping,
			PingTimeout:      h2PingTimeout,
			WriteByteTimeout: h2WriteTimeout,
		},
	}
}

func settingsOf(ctx context.Context) dialSettings {
	if s, ok := ctx.Value(dialKey{}).(*dialSettings); ok {
		return *s
	}
	return dialSettings{connect: defaultConnect}
}

func dialPlain(ctx context.Context, dial dialFunc, network, addr string) (net.Conn, error) {
	s := settingsOf(ctx)
	ctx, cancel := context.WithTimeoutCause(ctx, s.connect, &timeoutError{"no connection", s.connect})
	defer cancel()
	c, err := dial(ctx, network, addr)
	if err != nil {
		return nil, &connectError{addr, causeOr(ctx, err)}
	}
	return c, nil
}

func dialTLS(ctx context.Context, dial dialFunc, config *tls.Config, network, addr string) (net.Conn, error) {
	s := settingsOf(ctx)
	ctx, cancel := context.WithTimeoutCause(ctx, s.connect, &timeoutError{"no TLS connection", s.connect})
	defer cancel()
	raw, err := dial(ctx, network, addr)
	if err != nil {
		return nil, &connectError{addr, causeOr(ctx, err)}
	}
	config = config.Clone()
	if config.ServerName == "" {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			host = addr
		}
		config.ServerName = host
	}
	if s.onlyHTTP1 {
		config.NextProtos = []string{"http/1.1"}
	}
	c := tls.Client(raw, config)
	err = c.HandshakeContext(ctx)
	if err == nil && len(config.NextProtos) == 1 && config.NextProtos[0] == "h2" && c.ConnectionState().NegotiatedProtocol != "h2" {
		err = errors.New("the origin does not speak HTTP/2, which pool.http asks for")
	}
	if err != nil {
		_ = raw.Close()
		return nil, &connectError{addr, fmt.Errorf("TLS: %w", causeOr(ctx, err))}
	}
	return c, nil
}

// causeOr is why the context ended, when it did; else err.
func causeOr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// tlsConfig is what TLS connections to origins start from: base, or the system's roots, with a session cache.
func tlsConfig(base *tls.Config) *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if base != nil {
		config = base.Clone()
	}
	if config.ClientSessionCache == nil {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	}
	return config
}

// wantsWebSocket mirrors what net/http takes for a request that must not go over HTTP/2.
func wantsWebSocket(h http.Header) bool {
	if !strings.EqualFold(h.Get("Upgrade"), "websocket") {
		return false
	}
	for _, line := range h["Connection"] {
		for token := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "upgrade") {
				return true
			}
		}
	}
	return false
}

// withTrace adds an attempt's hooks to whatever hooks the caller has in ctx; both are called.
func withTrace(ctx context.Context, a *attempt) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: a.gotConn, WroteRequest: a.wroteRequest})
}
