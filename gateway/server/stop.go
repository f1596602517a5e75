package server

import (
	"cmp"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"slices"
	"time"
)

// The times of a stop and of leaving.
const (
	idleLinger      = 500 * time.Millisecond // an idle HTTP/1.1 connection is kept for a request on its way
	handshakeLinger = 2 * time.Second        // a TLS handshake may take this long
	stopPoll        = 20 * time.Millisecond
	stopLogs        = 3 * time.Second         // between two logs of what holds the stop up
	stopLogMost     = 10                      // requests named in one
	h2LastWait      = 1500 * time.Millisecond // for an HTTP/2 connection to close after the last GOAWAY
	cutWait         = time.Second             // for handlers to notice that they were cut
	farewellWait    = time.Second             // for upgraded connections to say goodbye before that
	leaveSpread     = 5 * time.Second         // over which a leaving node tells its HTTP/2 connections
)

// Held is a request in flight.
type Held struct {
	Method string        `json:"method"`
	Host   string        `json:"host"`
	Path   string        `json:"path"`   // without the query
	Remote string        `json:"remote"` // address and port
	Proto  string        `json:"proto"`  // HTTP/1.1, HTTP/2.0, HTTP/3.0 or upgraded
	Age    time.Duration `json:"age"`
}

// StopReport is how a stop went.
type StopReport struct {
	Finished int    // requests that finished since the stop began
	Cut      []Held // requests that were cut when the grace was over, oldest first
}

// InFlight lists the requests in flight, upgraded connections included, oldest first.
func (s *Server) InFlight() []Held {
	now := s.now()
	var all []Held
	s.each(func(c *conn) { all = c.held(all, now) })
	slices.SortFunc(all, func(a, b Held) int { return cmp.Compare(b.Age, a.Age) })
	return all
}

// SetLeaving tells the server that its node is about to stop, or no longer is. While it leaves, it accepts and answers
// as ever, but moves clients off: HTTP/1.1 responses carry Connection: close; every HTTP/2 or HTTP/3 connection, idle or not, is
// told by GOAWAY at a random moment within five seconds, or behind its next response.
func (s *Server) SetLeaving(leaving bool) {
	if s.leaving.Swap(leaving) == leaving || !leaving {
		return
	}
	s.each(func(c *conn) {
		c.mu.Lock()
		h2, h3 := c.h2, c.h3
		c.mu.Unlock()
		leave := func() {
			if s.leaving.Load() {
				c.leave()
			}
		}
		if h2 != nil {
			h2.after(s.jitter(leaveSpread), leave)
		}
		if h3 != nil {
			h3.after(s.jitter(leaveSpread), leave)
		}
	})
}

// leave tells an HTTP/2 or HTTP/3 client to go.
func (c *conn) leave() {
	c.mu.Lock()
	h2, h3 := c.h2, c.h3
	c.mu.Unlock()
	if h2 != nil {
		h2.leave()
	}
	if h3 != nil {
		h3.leave(c.srv.now())
	}
}

// jitter is a random time below d.
func (s *Server) jitter(d time.Duration) time.Duration {
	var b [8]byte
	_, _ = io.ReadFull(s.rand, b[:])
	return time.Duration(binary.LittleEndian.Uint64(b[:]) % uint64(d))
}

// Stop stops in stages: no new connections; every connection told to go (GOAWAY, Connection: close), idle ones too;
// requests in flight awaited, up to grace or the end of ctx, while the log says every few seconds what holds it up;
// then the rest is cut. It returns when all is closed. A second call waits for the first and returns its report.
func (s *Server) Stop(ctx context.Context, grace time.Duration) StopReport {
	s.stopOnce.Do(func() {
		defer close(s.stopped)
		s.report = s.stop(ctx, grace)
	})
	<-s.stopped
	return s.report
}

func (s *Server) stop(parent context.Context, grace time.Duration) StopReport {
	ctx, cancel := context.WithTimeout(parent, grace)
	defer cancel()
	before := s.finished.Load()
	s.log.Info("stopping: no new connections", "in_flight", s.inFlight.Load(), "grace", grace)
	s.leaving.Store(true)
	s.closeListeners(grace > 0)
	if s.await(ctx); ctx.Err() != nil && s.inFlight.Load() > 0 {
		s.bidFarewell(parent)
	}

	s.hurry.Store(true)
	report := StopReport{Finished: int(s.finished.Load() - before), Cut: s.InFlight()}
	for _, h := range report.Cut {
		s.metrics.cut.Inc()
		s.log.Warn("stopping: a request was cut", h.attrs()...)
	}
	ended := s.cutAll(ctx)
	s.closeQUIC()
	if ended {
		s.serving.Wait() // only now: until then a QUIC listener may have begun to serve one more connection
	}
	s.log.Info("stopped", "finished", report.Finished, "cut", len(report.Cut))
	return report
}

// closeListeners ends accepting. With a last call, connections that the kernel has queued are still taken in.
func (s *Server) closeListeners(withLastCall bool) {
	s.mu.Lock()
	s.stopping.Store(true) // under mu: no listener is added behind this
	s.closeQUICListeners()
	for _, l := range s.listeners {
		if withLastCall && s.running {
			_ = l.SetDeadline(time.Now().Add(lastCall)) // one that is closed already needs none
		} else {
			_ = l.Close()
		}
	}
	s.mu.Unlock()
	s.accepting.Wait()
}

// await moves every connection to its end, until none is left or ctx ends.
func (s *Server) await(ctx context.Context) {
	poll := time.NewTicker(stopPoll)
	defer poll.Stop()
	logged := time.Now()
	for {
		left := 0
		now := s.now()
		s.each(func(c *conn) {
			if !c.retire(now) {
				left++
			}
		})
		if left == 0 {
			return
		}
		if time.Since(logged) >= stopLogs {
			logged = time.Now()
			s.logHeld(left)
		}
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		}
	}
}

// retire moves one connection of a stopping server on, and tells whether it is closed.
func (c *conn) retire(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	idle := now.Sub(c.since)
	switch {
	case c.phase == phaseClosed:
		return true
	case c.h3 != nil:
		if c.h3.retire(c.requests == nil, c.lastDone, now) {
			go c.Close()
		}
	case c.h2 != nil:
		if c.h2.retire(c.requests == nil, now) {
			go c.Close()
		}
	case c.h1 == nil && idle < handshakeLinger:
	case (c.phase == phaseIdle || c.phase == phaseNew) && idle >= idleLinger:
		c.phase, c.since = phaseClosed, now // under mu: a request that comes now finds it closed
		go c.shut()
	}
	return false
}

// shut closes an idle connection that was marked as closed.
func (c *conn) shut() {
	c.mu.Lock()
	h1 := c.h1
	c.mu.Unlock()
	if h1 != nil {
		_ = h1.Conn.Close() // over TLS says goodbye
	}
	_ = c.Conn.Close()
	c.srv.remove(c)
}

// retire sends the GOAWAYs and tells whether the connection has been quiet for so long since the last that it may be
// closed. net/http closes it sooner unless the client never began to speak HTTP/2.
func (h *h2Conn) retire(quiet bool, now time.Time) (done bool) {
	h.leave()
	final := h.finalAt.Load()
	return final != 0 && quiet && !h.open.Load() && now.Sub(time.Unix(0, final)) > h2LastWait
}

// bidFarewell lets upgraded connections say goodbye, and waits a moment for what that ends; not when ctx has ended.
func (s *Server) bidFarewell(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	s.farewell()
	ctx, cancel := context.WithTimeout(ctx, farewellWait)
	defer cancel()
	poll := time.NewTicker(stopPoll)
	defer poll.Stop()
	for s.upgraded.Load() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		}
	}
}

// logHeld says what holds the stop up.
func (s *Server) logHeld(conns int) {
	all := s.InFlight()
	s.log.Info("stopping: waiting for requests", "in_flight", len(all), "connections", conns)
	for _, h := range all[:min(len(all), stopLogMost)] {
		s.log.Info("stopping: waiting for", h.attrs()...)
	}
}

func (h Held) attrs() []any {
	return []any{slog.String("method", clip(h.Method)), slog.String("host", clip(h.Host)), slog.String("path", clip(h.Path)),
		slog.String("proto", h.Proto), slog.Duration("age", h.Age), slog.String("remote", h.Remote)}
}

// cutAll closes what is left and waits a little for its handlers to end. It tells whether they did.
func (s *Server) cutAll(ctx context.Context) bool {
	_ = s.h1Feed.Close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cutWait)
	defer cancel()
	poll := time.NewTicker(stopPoll)
	defer poll.Stop()
	for {
		left := 0
		s.each(func(c *conn) {
			left++
			_ = c.Close()
		})
		if left == 0 && s.inFlight.Load() == 0 {
			return true
		}
		select {
		case <-ctx.Done():
			s.log.Warn("stopping: handlers still run though their connections are closed", "requests", s.inFlight.Load())
			return false
		case <-poll.C:
		}
	}
}
