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
	"sync"
	"sync/atomic"
	"time"
)

// PeerDomain is what follows a node's name in the host of a URL for PeerTransport.
const PeerDomain = ".peer.invalid"

// The limits of the peer channel. They are tighter than an origin's: a node that hangs must be left quickly, since
// every request to its region waits for it.
const (
	peerConnect      = 3 * time.Second // to connect, TLS included
	peerPing         = 2 * time.Second // silence after which a connection is tested
	peerPingTimeout  = time.Second     // a ping not answered by then closes the connection and fails its requests
	peerWriteTimeout = 3 * time.Second // a write that makes no progress for so long closes the connection
	peerIdle         = 5 * time.Minute // an idle connection is closed after it
)

// PeerOptions is what a PeerTransport is made of.
type PeerOptions struct {
	// TLS is the client's side of mutual TLS: this node's certificate and the fleet's CA. It is asked for each new
	// connection, so a renewed certificate counts without a restart. The server's name is set to the node's.
	TLS func() *tls.Config
	// Resolve tells where a node's peer listener is; false: no such node.
	Resolve func(node string) (netip.AddrPort, bool)
	// Delay is the simulated delay of a connection to a node, each way; nil or 0: none.
	Delay func(node string) time.Duration
	// Dial opens connections; nil: net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// PeerTransport carries requests to other nodes of the fleet over HTTP/2 with mutual TLS. It is an http.RoundTripper
// whose errors are *Error, with CauseConnect, CauseReset, CauseTimeout (the context's deadline) or CauseCanceled. It makes
// no attempt twice and sets no time limit but those of connecting and of a connection's liveness: a request's context
// bounds it. Safe for concurrent use.
type PeerTransport struct {
	o         PeerOptions
	transport *http.Transport

	mu    sync.Mutex
	nodes map[string]*peerNode // nodes that have a connection or a dial under way
}

// peerNode is what is known of the connections to one node.
type peerNode struct {
	conns   int
	leader  chan struct{} // closed when the first dial is over; nil: none under way
	dialErr error         // what the last dial failed of
	waiting int           // requests that wait for leader
}

// NewPeerTransport makes a transport. CloseIdleConnections ends it.
func NewPeerTransport(o PeerOptions) *PeerTransport {
	if o.Dial == nil {
		o.Dial = (&net.Dialer{KeepAlive: keepAlive}).DialContext
	}
	if o.Delay == nil {
		o.Delay = func(string) time.Duration { return 0 }
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	t := &PeerTransport{o: o, nodes: map[string]*peerNode{}}
	t.transport = &http.Transport{
		DialTLSContext:         t.dial,
		Protocols:              protocols,
		DisableCompression:     true,
		IdleConnTimeout:        peerIdle,
		MaxResponseHeaderBytes: maxResponseHeader,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout:  peerPing,
			PingTimeout:      peerPingTimeout,
			WriteByteTimeout: peerWriteTimeout,
		},
	}
	return t
}

// RoundTrip sends r to the node that r.URL.Host names, as "<node>.peer.invalid" with scheme https. r.Host goes along as
// it is. While no connection to the node exists one request opens it and the others wait, so that a failover doesn't
// begin with a handshake for every request.
func (t *PeerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	node, ok := strings.CutSuffix(r.URL.Hostname(), PeerDomain)
	if !ok || r.URL.Scheme != "https" {
		closeBody(r)
		return nil, &Error{Cause: CauseConnect, Origin: r.URL.Host,
			Err: fmt.Errorf("a peer's URL is https://<node>%s, not %s://%s", PeerDomain, r.URL.Scheme, r.URL.Host)}
	}
	var sent atomic.Bool
	release, err := t.await(r.Context(), node)
	if err != nil {
		closeBody(r)
		return nil, t.fail(r, node, err, false)
	}
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true); release() }}
	resp, err := t.transport.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
	release()
	if err != nil {
		return nil, t.fail(r, node, err, sent.Load())
	}
	return resp, nil
}

// CloseIdleConnections closes the connections that carry no request.
func (t *PeerTransport) CloseIdleConnections() { t.transport.CloseIdleConnections() }

func (t *PeerTransport) fail(r *http.Request, node string, err error, sent bool) *Error {
	e := &Error{Cause: CauseReset, Origin: node, Sent: sent, Err: err}
	var connect *connectError
	switch {
	case errors.Is(r.Context().Err(), context.DeadlineExceeded):
		e.Cause = CauseTimeout
	case r.Context().Err() != nil:
		e.Cause, e.Err = CauseCanceled, context.Cause(r.Context())
	case errors.As(err, &connect):
		e.Cause, e.Sent = CauseConnect, sent && repeatable(r)
	}
	return e
}

// await returns when a connection to the node exists, or when it is the caller's part to open it; release must then be
// called when that is done, and may be called more than once. It fails when the dial that it waited for did.
func (t *PeerTransport) await(ctx context.Context, node string) (release func(), err error) {
	for {
		t.mu.Lock()
		n := t.nodes[node]
		if n == nil {
			n = &peerNode{}
			t.nodes[node] = n
		}
		if n.conns > 0 {
			t.mu.Unlock()
			return func() {}, nil
		}
		leader := n.leader
		if leader == nil {
			n.leader, n.dialErr = make(chan struct{}), nil
			t.mu.Unlock()
			return sync.OnceFunc(func() { t.lead(node, n) }), nil
		}
		n.waiting++
		t.mu.Unlock()
		select {
		case <-leader:
		case <-ctx.Done():
		}
		t.mu.Lock()
		n.waiting--
		err := n.dialErr
		t.mu.Unlock()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
}

// lead ends the leader's part. A node without a connection is forgotten: the map holds no more than the fleet.
func (t *PeerTransport) lead(node string, n *peerNode) {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(n.leader)
	n.leader = nil
	t.forget(node, n)
}

func (t *PeerTransport) forget(node string, n *peerNode) {
	if n.conns == 0 && n.leader == nil && t.nodes[node] == n {
		delete(t.nodes, node)
	}
}

// dial opens a connection to a node for net/http.
func (t *PeerTransport) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, &connectError{addr, err}
	}
	node := strings.TrimSuffix(host, PeerDomain)
	c, err := t.connect(ctx, network, node)
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.nodes[node]; n != nil && err != nil {
		n.dialErr = err
	}
	return c, err
}

func (t *PeerTransport) connect(ctx context.Context, network, node string) (net.Conn, error) {
	at, ok := t.o.Resolve(node)
	if !ok {
		return nil, &connectError{node, errors.New("the mesh knows no such node")}
	}
	where := fmt.Sprintf("%s (%s)", node, at)
	ctx, cancel := context.WithTimeoutCause(ctx, peerConnect, &timeoutError{"no TLS connection", peerConnect})
	defer cancel()
	raw, err := t.o.Dial(ctx, network, at.String())
	if err != nil {
		return nil, &connectError{where, causeOr(ctx, err)}
	}
	delay := t.o.Delay(node)
	counted := &countedConn{Conn: DelayReads(DelayConn(raw, delay), delay), closed: func() {}}
	config := t.o.TLS().Clone()
	config.ServerName = node
	config.NextProtos = []string{"h2"}
	c := tls.Client(counted, config)
	if err := c.HandshakeContext(ctx); err != nil {
		_ = counted.Close()
		return nil, &connectError{where, fmt.Errorf("TLS: %w", causeOr(ctx, err))}
	}
	if c.ConnectionState().NegotiatedProtocol != "h2" {
		_ = counted.Close()
		return nil, &connectError{where, errors.New("it doesn't speak HTTP/2; is it a peer listener?")}
	}
	t.count(node, counted)
	return c, nil
}

// count counts a connection to a node, until it is closed.
func (t *PeerTransport) count(node string, c *countedConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[node]
	if n == nil {
		n = &peerNode{}
		t.nodes[node] = n
	}
	n.conns++
	c.closed = sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		n.conns--
		t.forget(node, n)
	})
}

type countedConn struct {
	net.Conn
	closed func()
}

func (c *countedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
}
