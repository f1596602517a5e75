package upstream

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// DelayReads gives c a one-way delay of what comes: it is read d later than it arrives, in order. With DelayConn around the
// same connection both ways take their time, though only one end knows of the delay. d of 0 or less gives back c itself. A
// goroutine reads from c; it ends with Close, or with c.
func DelayReads(c net.Conn, d time.Duration) net.Conn {
	if d <= 0 {
		return c
	}
	lc := &lateConn{Conn: c, delay: d}
	lc.changed = sync.NewCond(&lc.mu)
	go lc.run()
	return lc
}

type lateConn struct {
	net.Conn
	delay time.Duration

	mu       sync.Mutex
	changed  *sync.Cond // something arrived or fell due, was read, the deadline passed, or the end
	queue    []chunk
	queued   int   // bytes
	err      error // after the queue
	errDue   time.Time
	closed   bool
	deadline time.Time
	expiry   *time.Timer
}

// run reads ahead, up to the bound.
func (c *lateConn) run() {
	for {
		buf := make([]byte, delayMaxChunk)
		n, err := c.Conn.Read(buf)
		due := time.Now().Add(c.delay)
		c.mu.Lock()
		if n > 0 {
			c.queue = append(c.queue, chunk{buf[:n], due})
			c.queued += n
		}
		if err != nil {
			c.err, c.errDue = err, due
		}
		time.AfterFunc(c.delay, c.changed.Broadcast)
		for c.queued >= delayBuffer && !c.closed {
			c.changed.Wait()
		}
		ended := c.closed || err != nil
		c.mu.Unlock()
		if ended {
			return
		}
	}
}

// Read waits for what is due.
func (c *lateConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		now := time.Now()
		switch {
		case c.closed:
			return 0, net.ErrClosed
		case !c.deadline.IsZero() && !now.Before(c.deadline):
			return 0, os.ErrDeadlineExceeded
		case len(c.queue) > 0 && !now.Before(c.queue[0].due):
			n := copy(p, c.queue[0].data)
			if c.queue[0].data = c.queue[0].data[n:]; len(c.queue[0].data) == 0 {
				c.queue[0] = chunk{}
				c.queue = c.queue[1:]
			}
			c.queued -= n
			c.changed.Broadcast()
			return n, nil
		case len(c.queue) == 0 && c.err != nil && !now.Before(c.errDue):
			return 0, c.err
		}
		c.changed.Wait()
	}
}

// Close ends reading at once, and the connection as it does itself.
func (c *lateConn) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.expiry != nil {
		c.expiry.Stop()
	}
	c.mu.Unlock()
	c.changed.Broadcast()
	return c.Conn.Close()
}

// SetDeadline sets both deadlines.
func (c *lateConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline bounds Read.
func (c *lateConn) SetReadDeadline(t time.Time) error {
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
		c.expiry = time.AfterFunc(time.Until(t), c.changed.Broadcast)
	}
	c.changed.Broadcast()
	return nil
}
