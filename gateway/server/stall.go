package server

import (
	"context"
	"net/http"
	"time"
)

// sweep looks, until ctx ends, for streams of HTTP/2 and HTTP/3 whose client takes or sends nothing, and for clients to forget. A
// stalled HTTP/1.1 client runs into the deadlines of its connection; a deadline of each HTTP/2 stream would have to be
// renewed through the connection's one goroutine at every write.
func (s *Server) sweep(ctx context.Context) {
	for {
		idle := s.limits().IdleTimeout.D()
		t := time.NewTimer(min(max(idle/8, 20*time.Millisecond), 10*time.Second))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		now := s.now()
		s.clients.sweep(now)
		s.each(func(c *conn) { c.cutStalled(now, idle) })
	}
}

// cutStalled resets the connection's streams that stalled. One whose handler is done but whose last bytes are not
// taken is not among the requests; a connection with nothing but such streams is closed, and one of HTTP/3 without requests
// too, as its library keeps no such time over streams that never become requests.
func (c *conn) cutStalled(now time.Time, idle time.Duration) {
	c.mu.Lock()
	h2, h3 := c.h2, c.h3
	if h2 == nil && h3 == nil || c.phase == phaseClosed {
		c.mu.Unlock()
		return
	}
	var stuck []*request
	for q := c.requests; q != nil; q = q.next {
		if q.stalled(now, idle) {
			stuck = append(stuck, q)
		}
	}
	last := c.lastDone
	quiet := c.requests == nil && now.Sub(last) > idle
	c.mu.Unlock()
	for _, q := range stuck {
		q.cut(now, idle)
	}
	if h3 != nil {
		// First it is told to go, so that a request that is on its way is either taken or known not to be.
		if quiet && h3.retire(true, last, now) {
			_ = c.Close()
		}
		return
	}
	if quiet && h2.open.Load() && now.Sub(time.Unix(0, h2.openedAt.Load())) > idle {
		c.srv.metrics.stalled.WithLabelValues("write").Inc()
		_ = c.Close()
	}
}

func (q *request) stalled(now time.Time, idle time.Duration) bool {
	return since(&q.writing, now) > idle || since(&q.reading, now) > idle
}

// cut ends the read or write that stalled.
func (q *request) cut(now time.Time, idle time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.over {
		return
	}
	past := time.Unix(1, 0)
	rc := http.NewResponseController(q.writer.ResponseWriter)
	switch {
	case since(&q.writing, now) > idle:
		q.writing.Store(0)
		q.c.srv.metrics.stalled.WithLabelValues("write").Inc()
		_ = rc.SetWriteDeadline(past) // streams always take deadlines
	case since(&q.reading, now) > idle:
		q.reading.Store(0)
		q.c.srv.metrics.stalled.WithLabelValues("read").Inc()
		_ = rc.SetReadDeadline(past)
	}
}

// since is how long a mark has stood; 0 when it doesn't.
func since(mark interface{ Load() int64 }, now time.Time) time.Duration {
	t := mark.Load()
	if t == 0 {
		return 0
	}
	return time.Duration(now.UnixNano() - t)
}
