package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A lab has one machine and no network that could break, so its nodes break their own: a file says which regions a node
// can't reach and how much is lost on the way there, and the node holds back or drops what it sends. Each connection
// between two nodes belongs to the one that dialled, which breaks it both ways; gossip is broken by its sender.

const (
	networkPoll = 100 * time.Millisecond
	maxNetwork  = 64 << 10 // bytes of the file
	// lossDelay is after how long TCP sends again what was lost, at the least (RFC 6298 section 2.4 asks for a second, Linux
	// takes 200 ms).
	lossDelay = 200 * time.Millisecond
)

// way is how the way to a region is broken.
type way struct {
	cut  bool
	loss float64 // share, 0 to 1
}

// network is the simulated network to the other regions. Safe for concurrent use.
type network struct {
	path  string
	state atomic.Pointer[networkState]
}

type networkState struct {
	text    []byte
	ways    map[string]way
	changed chan struct{} // closed when the state is over
}

func newNetwork(path string) *network {
	n := &network{path: path}
	n.state.Store(&networkState{changed: make(chan struct{})})
	return n
}

// parseNetwork reads lines "REGION cut" and "REGION loss PERCENT%".
func parseNetwork(text []byte) (map[string]way, error) {
	ways := map[string]way{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		w := ways[fields[0]]
		switch {
		case len(fields) == 2 && fields[1] == "cut":
			w.cut = true
		case len(fields) == 3 && fields[1] == "loss":
			percent, err := strconv.ParseFloat(strings.TrimSuffix(fields[2], "%"), 64)
			if err != nil || !(percent >= 0 && percent <= 100) {
				return nil, fmt.Errorf("%q is not a share of 0%% to 100%%", fields[2])
			}
			w.loss = percent / 100
		default:
			return nil, fmt.Errorf("%q: expected REGION cut, or REGION loss 5%%", strings.TrimSpace(line))
		}
		ways[fields[0]] = w
	}
	return ways, nil
}

// look reads the file. Without one the network is whole; one that is not understood changes nothing.
func (n *network) look() error {
	var text []byte
	f, err := os.Open(n.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return err
	default:
		text, err = io.ReadAll(io.LimitReader(f, maxNetwork))
		_ = f.Close()
		if err != nil {
			return err
		}
	}
	old := n.state.Load()
	if bytes.Equal(text, old.text) {
		return nil
	}
	ways, err := parseNetwork(text)
	if err != nil {
		return fmt.Errorf("--network %s: %w", n.path, err)
	}
	n.state.Store(&networkState{text: text, ways: ways, changed: make(chan struct{})})
	close(old.changed)
	return nil
}

// follow reads the file until ctx ends.
func (n *network) follow(ctx context.Context, failed func(error)) error {
	tick := time.NewTicker(networkPoll)
	defer tick.Stop()
	bad := false
	for {
		err := n.look()
		if err != nil && !bad {
			failed(err)
		}
		bad = err != nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// drops tells whether a packet to a region is lost.
func (n *network) drops(region string) bool {
	w := n.state.Load().ways[region]
	return w.cut || w.loss > 0 && rand.Float64() < w.loss
}

// roughConn is a connection over the simulated network: while it is cut nothing passes, and what is lost comes late.
type roughConn struct {
	net.Conn
	n      *network
	region string

	late    sync.Mutex
	by      time.Time // of writes; zero: never
	closed  chan struct{}
	closing sync.Once
}

func (n *network) rough(c net.Conn, region string) net.Conn {
	return &roughConn{Conn: c, n: n, region: region, closed: make(chan struct{})}
}

// pass returns when the network lets something through.
func (c *roughConn) pass(deadline time.Time) error {
	var over <-chan time.Time
	if !deadline.IsZero() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		over = timer.C
	}
	sends := 0
	for {
		state := c.n.state.Load()
		w := state.ways[c.region]
		var again <-chan time.Time
		if !w.cut {
			if !(w.loss > 0 && rand.Float64() < w.loss) || sends > 5 {
				return nil
			}
			timer := time.NewTimer(lossDelay << sends)
			defer timer.Stop() // of six at most
			again = timer.C
			sends++
		}
		select {
		case <-again:
		case <-state.changed:
		case <-over:
			return os.ErrDeadlineExceeded
		case <-c.closed:
			return net.ErrClosed
		}
	}
}

// Read implements net.Conn.
func (c *roughConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		if lost := c.pass(time.Time{}); lost != nil {
			return 0, lost
		}
	}
	return n, err
}

// Write implements net.Conn.
func (c *roughConn) Write(b []byte) (int, error) {
	c.late.Lock()
	by := c.by
	c.late.Unlock()
	if err := c.pass(by); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// SetWriteDeadline implements net.Conn.
func (c *roughConn) SetWriteDeadline(t time.Time) error {
	c.late.Lock()
	c.by = t
	c.late.Unlock()
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline implements net.Conn.
func (c *roughConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// Close implements net.Conn. It gives up what is held back.
func (c *roughConn) Close() error {
	c.closing.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// dialPeer opens connections of the peer channel over the simulated network. A dial to where it is cut goes unanswered.
func (n *Node) dialPeer(ctx context.Context, proto, addr string) (net.Conn, error) {
	region := n.regionAt(addr)
	for {
		state := n.wire.state.Load()
		if !state.ways[region].cut {
			break
		}
		select {
		case <-state.changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	c, err := (&net.Dialer{}).DialContext(ctx, proto, addr)
	if err != nil {
		return nil, err
	}
	return n.wire.rough(c, region), nil
}

// regionAt is the region of the node whose peer listener is at addr.
func (n *Node) regionAt(addr string) string {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return ""
	}
	for _, m := range n.mesh.Members() {
		if m.Peer == at {
			return m.Region
		}
	}
	return ""
}

// delay is the simulated delay of gossip to a region, negative where a packet is lost.
func (n *Node) delay() func(string) time.Duration {
	if len(n.o.Latency) == 0 && n.wire == nil {
		return nil
	}
	return func(region string) time.Duration {
		if n.wire != nil && n.wire.drops(region) {
			return -1
		}
		return n.o.Latency[region]
	}
}

// runNetwork follows the file of the simulated network.
func (n *Node) runNetwork(ctx context.Context) error {
	return n.wire.follow(ctx, func(err error) { n.log.Error("the simulated network stays as it was", "error", err) })
}
