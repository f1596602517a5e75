package upstream

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

const (
	delayBuffer   = 8 << 20         // bytes on their way at most; a Write beyond waits, as for a full socket buffer
	delayFlush    = 5 * time.Second // how long Close's remaining data may take to be taken by the connection
	delayMaxChunk = 64 << 10        // bytes copied at once
)

// DelayConn gives c a one-way delay: what is written arrives d later than it would, in order. What is read isn't touched,
// so a round trip is slowed by d when one end has it. Write returns once the data is queued and fails with the error
// of an earlier write. Close returns at once; what was written before is still sent, then c is closed. A goroutine writes
// to c; it ends with Close, at the latest d plus 5s after it. d of 0 or less gives back c itself.
func DelayConn(c net.Conn, d time.Duration) net.Conn {
	if d <= 0 {
		return c
	}
	dc := &delayConn{Conn: c, delay: d, closing: make(chan struct{}), wakeWriter: make(chan struct{}, 1)}
	dc.room = sync.NewCond(&dc.mu)
	go dc.run()
	return dc
}

type delayConn struct {
	net.Conn
	delay      time.Duration
	closing    chan struct{} // closed by Close
	wakeWriter chan struct{}

	mu       sync.Mutex
	room     *sync.Cond // signalled when queued shrinks, err or closed is set, or the write deadline passes
	queue    []chunk
	queued   int // bytes
	err      error
	closed   bool
	deadline time.Time
	expiry   *time.Timer
}

type chunk struct {
	data []byte
	due  time.Time
}

// Write queues a copy of p.
func (c *delayConn) Write(p []byte) (int, error) {
	n := 0
	for {
		part := p[n:min(len(p), n+delayMaxChunk)]
		if err := c.push(part); err != nil {
			return n, err
		}
		n += len(part)
		if n == len(p) {
			return n, nil
		}
	}
}

func (c *delayConn) push(p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return net.ErrClosed
		case c.err != nil:
			return c.err
		case !c.deadline.IsZero() && !time.Now().Before(c.deadline):
			return os.ErrDeadlineExceeded
		}
		if c.queued+len(p) <= delayBuffer {
			break
		}
		c.room.Wait()
	}
	c.queue = append(c.queue, chunk{append([]byte(nil), p...), time.Now().Add(c.delay)})
	c.queued += len(p)
	select {
	case c.wakeWriter <- struct{}{}:
	default:
	}
	return nil
}

// run writes each chunk when it is due, and closes the connection when all is written after Close.
func (c *delayConn) run() {
	defer func() { _ = c.Conn.Close() }()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next, ok, closed := c.front()
		switch {
		case !ok && closed:
			return
		case !ok:
			select {
			case <-c.wakeWriter:
			case <-c.closing:
			}
			continue
		}
		timer.Reset(time.Until(next.due))
		<-timer.C
		if closed || c.isClosed() {
			_ = c.Conn.SetWriteDeadline(time.Now().Add(delayFlush))
		}
		if _, err := c.Conn.Write(next.data); err != nil {
			c.failed(err)
			return
		}
		c.pop()
	}
}

func (c *delayConn) front() (next chunk, ok, closed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 {
		c.queue = nil
		return chunk{}, false, c.closed
	}
	return c.queue[0], true, c.closed
}

func (c *delayConn) pop() {
	c.mu.Lock()
	c.queued -= len(c.queue[0].data)
	c.queue[0] = chunk{}
	c.queue = c.queue[1:]
	c.mu.Unlock()
	c.room.Broadcast()
}

func (c *delayConn) failed(err error) {
	c.mu.Lock()
	c.err = err
	c.queue, c.queued = nil, 0
	c.mu.Unlock()
	c.room.Broadcast()
}

func (c *delayConn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// Read reads from the connection; after Close it fails.
func (c *delayConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) && c.isClosed() {
		err = net.ErrClosed
	}
	return n, err
}

// Close ends reading and, once what was written is sent, the connection.
func (c *delayConn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return net.ErrClosed
	}
	c.closed = true
	if c.expiry != nil {
		c.expiry.Stop()
	}
	c.mu.Unlock()
	close(c.closing)
	c.room.Broadcast()
	now := time.Now()
	_ = c.Conn.SetReadDeadline(now)                                  // wakes a Read
	return c.Conn.SetWriteDeadline(now.Add(c.delay).Add(delayFlush)) // bounds a Write that hangs
}

// SetDeadline sets both deadlines.
func (c *delayConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline bounds Read; after Close it has no effect.
func (c *delayConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	return c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline bounds how long Write waits for room in the queue.
func (c *delayConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.deadline = t
	if c.expiry != nil {
		c.expiry.Stop()
		c.expiry = nil
	}
	if !t.IsZero() {
		c.expiry = time.AfterFunc(time.Until(t), c.room.Broadcast)
	}
	return nil
}
