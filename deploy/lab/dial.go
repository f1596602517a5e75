package lab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"landfall/gateway/upstream"
)

// network is how the browsers of a place reach the fleet.
type network struct {
	resolver *resolver
	host     string
	port     int
	roots    *x509.CertPool
	client   netip.Addr // who is behind it: told to the nodes, which see loopback alone
	now      func() time.Time

	mu     sync.Mutex
	rtt    map[netip.Addr]time.Duration // simulated round trip from the place to a node
	slack  time.Duration                // what the distance adds to every patience
	open   map[*conn]struct{}
	closed bool
}

const (
	connectPatience = 2 * time.Second // for a connection and its TLS handshake with one address
	handshakeTrips  = 4               // round trips that a handshake and an answer take at most, with one to spare
)

// conn is a connection to a node.
type conn struct {
	net.Conn
	addr netip.Addr
	rtt  time.Duration
	why  error // what the addresses before came to, if this is not the first of its answer
	net  *network
}

// Close closes the connection.
func (c *conn) Close() error {
	c.net.mu.Lock()
	delete(c.net.open, c)
	c.net.mu.Unlock()
	return c.Conn.Close()
}

// under is the conn that a TLS connection of ours runs over.
func under(c net.Conn) *conn {
	if t, ok := c.(*tls.Conn); ok {
		if u, ok := t.NetConn().(*conn); ok {
			return u
		}
	}
	return nil
}

// dial looks the host up and tries its addresses in order, those that failed lately last.
func (b *browser) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	addrs, err := b.net.resolver.lookup(ctx)
	if err != nil {
		return nil, err
	}
	addrs = slices.Clone(addrs)
	b.mu.Lock()
	bad := func(a netip.Addr) int {
		if at, ok := b.bad[a]; ok && b.net.now().Sub(at) < badFor {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(addrs, func(x, y netip.Addr) int { return bad(x) - bad(y) })
	b.mu.Unlock()
	var errs []error
	for _, a := range addrs {
		c, err := b.net.connect(ctx, a, errors.Join(errs...))
		if err == nil {
			return c, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", a, err))
	}
	return nil, errors.Join(errs...)
}

// connect opens a connection to an address. A connection bears the whole round trip's delay on what it sends, so the
// client's place alone is simulated and nodes need not know of it; its TCP handshake is not delayed.
func (n *network) connect(ctx context.Context, a netip.Addr, why error) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectPatience+n.patience())
	defer cancel()
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(a, uint16(n.port)).String())
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	rtt := n.rtt[a]
	n.mu.Unlock()
	c := &conn{Conn: upstream.DelayConn(raw, rtt), addr: a, rtt: rtt, why: why, net: n}
	if !n.keep(c) {
		_ = c.Conn.Close()
		return nil, net.ErrClosed
	}
	t := tls.Client(c, &tls.Config{RootCAs: n.roots, ServerName: n.host, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}})
	if err := t.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return t, nil
}

// patience is what the distance adds to every patience.
func (n *network) patience() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.slack
}

func (n *network) keep(c *conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.closed {
		n.open[c] = struct{}{}
	}
	return !n.closed
}

// close ends every connection, and lets no new one be.
func (n *network) close() {
	n.mu.Lock()
	n.closed = true
	open := n.open
	n.open = map[*conn]struct{}{}
	n.mu.Unlock()
	for c := range open {
		_ = c.Conn.Close()
	}
}
