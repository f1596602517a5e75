package mesh

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// Of the streams of a wire.
const (
	flowWindow = 256 << 10              // bytes under way before a writer waits
	firstRTO   = 200 * time.Millisecond // after a segment was lost, doubling
	mostRTO    = 10 * time.Second
)

// flow is one direction of a stream.
type flow struct {
	wire     *bubbleNet
	from, to *host
	life     [2]int // the processes at both ends
	back     *flow

	mu       sync.Mutex
	segments []segment
	size     int
	last     time.Time // when the last segment arrives: nothing overtakes another
	rto      time.Duration
	err      error // how it ended for the reader
	deaf     bool  // the reader has closed
	readable chan struct{}
	room     chan struct{}
}

type segment struct {
	at   time.Time
	body []byte
	err  error // the end of the stream, or a reset
}

// put sends a segment.
func (f *flow) put(body []byte, err error) {
	f.wire.mu.Lock()
	d := f.wire.trip(f.from, f.to)
	for rto := firstRTO; f.wire.rng.Float64() < f.wire.loss && rto < mostRTO; rto *= 2 {
		d += rto
	}
	f.wire.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	at := time.Now().Add(d)
	if at.Before(f.last) {
		at = f.last
	}
	f.last = at
	f.segments = append(f.segments, segment{at, append([]byte(nil), body...), err})
	f.size += len(body)
	kick(f.readable)
}

func (f *flow) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err, f.segments = err, nil
	kick(f.readable)
}

// take reads what has arrived, or tells how long to wait before looking again; 0: until there is something.
func (f *flow) take(b []byte) (n int, wait time.Duration, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return 0, 0, f.err
	}
	if len(f.segments) == 0 {
		return 0, 0, nil
	}
	s := &f.segments[0]
	if wait = time.Until(s.at); wait > 0 {
		return 0, wait, nil
	}
	if f.held() { // lost: it is sent again, ever more seldom
		f.rto = min(2*f.rto, mostRTO)
		return 0, f.rto, nil
	}
	f.rto = firstRTO
	if s.err != nil {
		f.err = s.err
		return 0, 0, f.err
	}
	n = copy(b, s.body)
	s.body = s.body[n:]
	f.size -= n
	if len(s.body) == 0 {
		f.segments = f.segments[1:]
	}
	kick(f.room)
	return n, 0, nil
}

func (f *flow) held() bool {
	f.wire.mu.Lock()
	defer f.wire.mu.Unlock()
	return f.wire.blocked(f.from, f.to) || time.Now().Before(f.to.frozen)
}

// orphaned tells whether the process at the reading end is gone, and the machine there says so.
func (f *flow) orphaned() (gone, told bool) {
	f.wire.mu.Lock()
	defer f.wire.mu.Unlock()
	gone = f.to.life != f.life[1] || !f.to.up
	return gone, !f.to.dark
}

// bubbleConn is one end of a stream.
type bubbleConn struct {
	host          *host
	in, out       *flow
	local, remote netip.AddrPort
	read, write   *deadline
	closed        chan struct{}
	once          sync.Once
}

func newBubbleConn(h *host, in, out *flow, local, remote netip.AddrPort) *bubbleConn {
	return &bubbleConn{
		host: h, in: in, out: out, local: local, remote: remote,
		read: newDeadline(), write: newDeadline(), closed: make(chan struct{}),
	}
}

func (c *bubbleConn) Read(b []byte) (int, error) {
	for {
		select {
		case <-c.closed:
			return 0, net.ErrClosed
		case <-c.read.passed():
			return 0, os.ErrDeadlineExceeded
		default:
		}
		n, wait, err := c.in.take(b)
		if n > 0 || err != nil {
			return n, err
		}
		if wait == 0 {
			wait = time.Hour
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-c.in.readable:
		case <-c.closed:
		case <-c.read.passed():
		}
		timer.Stop()
	}
}

func (c *bubbleConn) Write(b []byte) (int, error) {
	for {
		select {
		case <-c.closed:
			return 0, net.ErrClosed
		case <-c.write.passed():
			return 0, os.ErrDeadlineExceeded
		default:
		}
		c.out.mu.Lock()
		full, deaf := c.out.size >= flowWindow, c.out.deaf
		c.out.mu.Unlock()
		gone, told := c.out.orphaned()
		switch {
		case gone && !told:
			return len(b), nil // into the dark
		case gone || deaf:
			c.in.put(nil, syscall.ECONNRESET)
			return len(b), nil
		case !full:
			c.out.put(b, nil)
			return len(b), nil
		}
		select {
		case <-c.out.room:
		case <-c.closed:
		case <-c.write.passed():
		}
	}
}

// Close ends both directions.
func (c *bubbleConn) Close() error {
	c.out.put(nil, io.EOF)
	c.stop()
	return nil
}

// stop ends this end without a word.
func (c *bubbleConn) stop() {
	c.once.Do(func() {
		c.in.mu.Lock()
		c.in.deaf = true
		c.in.mu.Unlock()
		close(c.closed)
		c.host.wire.mu.Lock()
		delete(c.host.conns, c)
		c.host.wire.mu.Unlock()
	})
}

func (c *bubbleConn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.local) }
func (c *bubbleConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

func (c *bubbleConn) SetDeadline(t time.Time) error {
	c.read.set(t)
	c.write.set(t)
	return nil
}

func (c *bubbleConn) SetReadDeadline(t time.Time) error  { c.read.set(t); return nil }
func (c *bubbleConn) SetWriteDeadline(t time.Time) error { c.write.set(t); return nil }

// deadline is a moment that can be put off.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	over  chan struct{}
}

func newDeadline() *deadline { return &deadline{over: make(chan struct{})} }

func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.over
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.over // it has just passed
	}
	d.timer = nil
	select {
	case <-d.over:
		d.over = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	over := d.over
	end := sync.OnceFunc(func() { close(over) })
	if wait := time.Until(t); wait > 0 {
		d.timer = time.AfterFunc(wait, end)
		return
	}
	end()
}
