package mesh

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Bounds of the gossip transport.
const (
	maxStreams = 128  // inbound gossip connections at a time; memberlist closes each after streamTimeout
	maxDelayed = 4096 // packets held by a simulated delay
)

// errCut is what a simulated partition answers.
var errCut = errors.New("mesh: cut off by a simulated partition")

// underlay is what gossip travels on.
type underlay interface {
	memberlist.NodeAwareTransport
	GetAutoBindPort() int
	// dial connects to a node; ctx ends the attempt.
	dial(ctx context.Context, to memberlist.Address, timeout time.Duration) (net.Conn, error)
}

// sockets is the underlay of a real node: memberlist's own, but for dials, which a shutdown must be able to end.
type sockets struct{ *memberlist.NetTransport }

func (sockets) dial(ctx context.Context, to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: timeout}
	return d.DialContext(ctx, "tcp", to.Addr)
}

// transport wraps an underlay: it bounds inbound connections, counts, lets a shutdown end dials and connections at once,
// and delays or cuts what goes to a region (labs and drills).
type transport struct {
	underlay
	metrics *Metrics
	region  func(name string, addr netip.AddrPort) string
	delay   func(region string) time.Duration // nil: none
	queue   *delayQueue

	ctx    context.Context // ends dials and connections
	cancel context.CancelFunc
	pumps  context.Context // ends the goroutines that forward what comes in
	stop   context.CancelFunc
	wg     sync.WaitGroup

	packets chan *memberlist.Packet
	streams chan net.Conn
	slots   chan struct{}
	mu      sync.Mutex
	open    map[*trackedConn]struct{}
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

func newTransport(inner underlay, metrics *Metrics, region func(string, netip.AddrPort) string, delay func(string) time.Duration) *transport {
	t := &transport{
		underlay: inner, metrics: metrics, region: region, delay: delay,
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn),
		slots: make(chan struct{}, maxStreams), open: map[*trackedConn]struct{}{},
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.pumps, t.stop = context.WithCancel(context.Background())
	t.wg.Go(t.pumpPackets)
	t.wg.Go(t.pumpStreams)
	if delay != nil {
		t.queue = newDelayQueue(maxDelayed, func(p delayed) { _, _ = t.underlay.WriteToAddress(p.body, p.to) })
		t.wg.Go(func() { t.queue.run(t.pumps) })
	}
	return t
}

// PacketCh is where memberlist reads packets.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh is where memberlist takes connections.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

func (t *transport) pumpPackets() {
	for {
		select {
		case p := <-t.underlay.PacketCh():
			t.metrics.received("packet")
			select {
			case t.packets <- p:
			case <-t.pumps.Done():
				return
			}
		case <-t.pumps.Done():
			return
		}
	}
}

func (t *transport) pumpStreams() {
	for {
		select {
		case c := <-t.underlay.StreamCh():
			t.metrics.received("stream")
			t.admit(c)
		case <-t.pumps.Done():
			return
		}
	}
}

// admit hands a connection to memberlist, or closes it when too many are open.
func (t *transport) admit(c net.Conn) {
	select {
	case t.slots <- struct{}{}:
	default:
		t.metrics.refused.WithLabelValues("overflow").Inc()
		_ = c.Close()
		return
	}
	tc := t.track(c, func() { <-t.slots })
	select {
	case t.streams <- tc:
	case <-t.pumps.Done():
		_ = tc.Close()
	}
}

// wait is how long what goes to a node is held back; negative: it is cut off.
func (t *transport) wait(a memberlist.Address) time.Duration {
	if t.delay == nil {
		return 0
	}
	addr, _ := netip.ParseAddrPort(a.Addr)
	region := t.region(a.Name, addr)
	if region == "" {
		return 0
	}
	return t.delay(region)
}

// WriteTo sends a packet to an address.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress sends a packet, after the simulated delay if there is one.
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	switch wait := t.wait(a); {
	case wait < 0:
		return time.Now(), nil // lost on the way, as packets are
	case wait > 0:
		if !t.queue.push(time.Now().Add(wait), a, b) {
			t.metrics.refused.WithLabelValues("overflow").Inc()
			return time.Now(), nil
		}
		t.metrics.sent("packet")
		return time.Now(), nil
	}
	t.metrics.sent("packet")
	return t.underlay.WriteToAddress(b, a)
}

// DialTimeout connects to an address.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout connects to a node; a shutdown ends the attempt and closes the connection.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if t.wait(a) < 0 {
		return nil, errCut
	}
	t.metrics.sent("stream")
	c, err := t.dial(t.ctx, a, timeout)
	if err != nil {
		return nil, err
	}
	return t.track(c, func() {}), nil
}

// Shutdown closes everything. memberlist goes on reading from the channels until it returns.
func (t *transport) Shutdown() error {
	t.cancel()
	t.mu.Lock()
	open := make([]*trackedConn, 0, len(t.open))
	for c := range t.open {
		open = append(open, c)
	}
	t.mu.Unlock()
	for _, c := range open {
		_ = c.Close()
	}
	err := t.underlay.Shutdown() // waits for its listeners, which may be handing over: the pumps still run
	t.stop()
	t.wg.Wait()
	return err
}

// trackedConn is a connection that Shutdown can close.
type trackedConn struct {
	net.Conn
	once    sync.Once
	release func()
}

func (t *transport) track(c net.Conn, release func()) net.Conn {
	tc := &trackedConn{Conn: c}
	tc.release = func() {
		t.mu.Lock()
		delete(t.open, tc)
		t.mu.Unlock()
		release()
	}
	t.mu.Lock()
	t.open[tc] = struct{}{}
	t.mu.Unlock()
	if t.ctx.Err() != nil { // Shutdown may have looked before this one was there
		_ = tc.Close()
	}
	return tc
}

// Close closes the connection and frees its place.
func (c *trackedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.release)
	return err
}
