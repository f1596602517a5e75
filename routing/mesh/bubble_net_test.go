package mesh

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// bubbleNet is a network in memory on the clock of a bubble: packets that are delayed, lost, doubled and overtaken, and streams
// whose lost segments come late, as those of TCP do.
type bubbleNet struct {
	mu     sync.Mutex
	rng    *rand.Rand
	hosts  map[netip.Addr]*host
	loss   float64
	double float64
	cuts   map[[2]string]bool // nothing passes from one region or host to another
	oneWay func(from, to string) time.Duration
}

func newBubbleNet(seed uint64, oneWay func(from, to string) time.Duration) *bubbleNet {
	return &bubbleNet{rng: rand.New(rand.NewPCG(seed, 2)), hosts: map[netip.Addr]*host{}, cuts: map[[2]string]bool{}, oneWay: oneWay}
}

// host is a machine; its node's process comes and goes. All is guarded by the wire's lock.
type host struct {
	wire         *bubbleNet
	name, region string
	addr         netip.Addr
	life         int  // which process
	up           bool // a process runs
	dark         bool // the machine itself is off: not even a reset comes from it
	frozen       time.Time
	doors        map[uint16]*door // listening streams
	packets      map[uint16]chan *memberlist.Packet
	conns        map[*bubbleConn]bool
}

func (w *bubbleNet) host(name, region string) *host {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := &host{wire: w, name: name, region: region, addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(len(w.hosts) + 1)})}
	w.hosts[h.addr] = h
	h.clear()
	return h
}

func (h *host) clear() {
	h.doors, h.packets, h.conns = map[uint16]*door{}, map[uint16]chan *memberlist.Packet{}, map[*bubbleConn]bool{}
}

// boot starts a process: what belonged to the one before is gone.
func (h *host) boot() {
	h.wire.mu.Lock()
	defer h.wire.mu.Unlock()
	h.life, h.up, h.dark, h.frozen = h.life+1, true, false, time.Time{}
	h.clear()
}

// kill ends the process as the kernel does, which resets its connections; dark: the machine loses its power, and nobody
// is told.
func (h *host) kill(dark bool) {
	h.wire.mu.Lock()
	conns := h.conns
	h.up, h.dark = false, dark
	h.clear()
	h.wire.mu.Unlock()
	for c := range conns {
		c.in.fail(syscall.ECONNRESET)
		if !dark {
			c.out.put(nil, syscall.ECONNRESET)
		}
		c.stop()
	}
}

// blocked tells whether nothing passes from one host to another now. The caller holds the lock.
func (w *bubbleNet) blocked(from, to *host) bool {
	return w.cuts[[2]string{from.name, to.name}] || w.cuts[[2]string{from.region, to.region}] ||
		w.cuts[[2]string{from.name, to.region}] || w.cuts[[2]string{from.region, to.name}]
}

// trip is how long one packet takes. The caller holds the lock.
func (w *bubbleNet) trip(from, to *host) time.Duration {
	now := time.Now()
	d := w.oneWay(from.region, to.region)
	d += time.Duration(w.rng.ExpFloat64() * 0.05 * float64(d))
	for _, h := range []*host{from, to} { // a process that is stopped neither sends nor takes
		if now.Add(d).Before(h.frozen) {
			d = h.frozen.Sub(now)
		}
	}
	return d
}

// datagram sends a packet.
func (w *bubbleNet) datagram(from *host, port uint16, to netip.AddrPort, body []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	peer := w.hosts[to.Addr()]
	if peer == nil || !from.up {
		return
	}
	copies := 1
	if w.rng.Float64() < w.double {
		copies = 2
	}
	for range copies {
		if w.rng.Float64() < w.loss || w.blocked(from, peer) {
			continue
		}
		source := net.UDPAddrFromAddrPort(netip.AddrPortFrom(from.addr, port))
		packet := &memberlist.Packet{Buf: append([]byte(nil), body...), From: source}
		time.AfterFunc(w.trip(from, peer), func() { peer.receive(to.Port(), packet) })
	}
}

func (h *host) receive(port uint16, p *memberlist.Packet) {
	h.wire.mu.Lock()
	defer h.wire.mu.Unlock()
	p.Timestamp = time.Now()
	select {
	case h.packets[port] <- p:
	default: // nobody listens, or the socket's buffer is full
	}
}

// dial connects from a host to an address, as TCP does: what is lost is sent again, a port that nobody listens on refuses.
func (h *host) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	w := h.wire
	for again := time.Second; ; again *= 2 {
		c, wait, err := w.handshake(h, to)
		timer := time.NewTimer(wait)
		if wait == 0 {
			timer.Reset(again)
		}
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			if c != nil {
				_ = c.Close()
			}
			return nil, fmt.Errorf("dial %s: %w", to, ctx.Err())
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("dial %s: %w", to, err)
		case c != nil:
			return c, nil
		}
	}
}

// handshake is one attempt: a connection that is good after a wait, or a refusal, or silence.
func (w *bubbleNet) handshake(from *host, to netip.AddrPort) (*bubbleConn, time.Duration, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	peer := w.hosts[to.Addr()]
	switch {
	case !from.up:
		return nil, time.Millisecond, net.ErrClosed
	case peer == nil || peer.dark || w.blocked(from, peer) || w.blocked(peer, from) || w.rng.Float64() < w.loss:
		return nil, 0, nil
	}
	there, back := w.trip(from, peer), w.trip(peer, from)
	d := peer.doors[to.Port()]
	if d == nil {
		return nil, there + back, syscall.ECONNREFUSED
	}
	a, b := &flow{wire: w, from: from, to: peer}, &flow{wire: w, from: peer, to: from}
	for _, f := range []*flow{a, b} {
		f.life, f.readable, f.room, f.rto = [2]int{f.from.life, f.to.life}, make(chan struct{}, 1), make(chan struct{}, 1), firstRTO
		f.last = time.Now().Add(there)
	}
	a.back, b.back = b, a
	here := newBubbleConn(from, b, a, netip.AddrPortFrom(from.addr, 40000), to)
	theirs := newBubbleConn(peer, a, b, to, netip.AddrPortFrom(from.addr, 40000))
	select {
	case d.accept <- theirs:
	default:
		return nil, there + back, syscall.ECONNREFUSED
	}
	from.conns[here], peer.conns[theirs] = true, true
	return here, there + back, nil
}

// door is a listening socket.
type door struct {
	host   *host
	at     netip.AddrPort
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (h *host) listen(port uint16) *door {
	d := &door{host: h, at: netip.AddrPortFrom(h.addr, port), accept: make(chan net.Conn, 128), closed: make(chan struct{})}
	h.wire.mu.Lock()
	defer h.wire.mu.Unlock()
	h.doors[port] = d
	return d
}

func (d *door) Accept() (net.Conn, error) {
	select {
	case c := <-d.accept:
		return c, nil
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

func (d *door) Addr() net.Addr { return net.TCPAddrFromAddrPort(d.at) }

func (d *door) Close() error {
	d.once.Do(func() {
		d.host.wire.mu.Lock()
		if d.host.doors[d.at.Port()] == d {
			delete(d.host.doors, d.at.Port())
		}
		d.host.wire.mu.Unlock()
		close(d.closed)
		for {
			select {
			case c := <-d.accept:
				_ = c.Close()
			default:
				return
			}
		}
	})
	return nil
}

// gossipPort is a host's underlay for gossip: memberlist.Transport over the wire.
type gossipPort struct {
	host    *host
	at      netip.AddrPort
	door    *door
	packets chan *memberlist.Packet
}

var _ underlay = (*gossipPort)(nil)

// gossip is the underlay of a mesh on this host.
func (h *host) gossip(bind netip.AddrPort, _ *log.Logger) (underlay, error) {
	if bind.Addr() != h.addr {
		return nil, errors.New("that is another host's address")
	}
	g := &gossipPort{host: h, at: bind, door: h.listen(bind.Port()), packets: make(chan *memberlist.Packet, 1024)}
	h.wire.mu.Lock()
	defer h.wire.mu.Unlock()
	h.packets[bind.Port()] = g.packets
	return g, nil
}

func (g *gossipPort) GetAutoBindPort() int { return int(g.at.Port()) }

func (g *gossipPort) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return g.at.Addr().AsSlice(), int(g.at.Port()), nil
}

func (g *gossipPort) PacketCh() <-chan *memberlist.Packet { return g.packets }

func (g *gossipPort) StreamCh() <-chan net.Conn { return g.door.accept }

func (g *gossipPort) WriteTo(b []byte, addr string) (time.Time, error) {
	return g.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (g *gossipPort) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	at, err := netip.ParseAddrPort(to.Addr)
	if err == nil {
		g.host.wire.datagram(g.host, g.at.Port(), at, b)
	}
	return time.Now(), err
}

func (g *gossipPort) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return g.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

func (g *gossipPort) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return g.dial(context.Background(), to, timeout)
}

func (g *gossipPort) dial(ctx context.Context, to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	at, err := netip.ParseAddrPort(to.Addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return g.host.dial(ctx, at)
}

func (g *gossipPort) Shutdown() error {
	g.host.wire.mu.Lock()
	if g.host.packets[g.at.Port()] == g.packets {
		delete(g.host.packets, g.at.Port())
	}
	g.host.wire.mu.Unlock()
	return g.door.Close()
}

// cut lets nothing pass from one region or host to another.
func (w *bubbleNet) cut(from, to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cuts[[2]string{from, to}] = true
}

// mend ends all cuts.
func (w *bubbleNet) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.cuts)
}

// odds sets how often a packet is lost, and how often it comes twice.
func (w *bubbleNet) odds(loss, double float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loss, w.double = loss, double
}
