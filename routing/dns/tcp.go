package dns

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// tcpIdle is how long a client may take for a query, from the last one or from the connection on (RFC 7766 §6.2.3).
	tcpIdle = 10 * time.Second
	// tcpWrite is how long a client may take to accept answers.
	tcpWrite = 5 * time.Second
	// tcpLinger is how long a connection stays half closed, so that answers under way are not lost to a reset.
	tcpLinger = 500 * time.Millisecond
	// tcpBatch is how many bytes of answers to pipelined queries are collected for one write.
	tcpBatch = 16 << 10
)

// connLimit bounds the open TCP connections.
type connLimit struct {
	max, perClient int

	mu       sync.Mutex
	open     int
	byClient map[netip.Addr]int // as many entries as open connections, at most
}

// serveTCP accepts connections until ctx is done, then waits for those it has to finish.
func (s *Server) serveTCP(ctx context.Context, ln net.Listener) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	// Whatever ends this ends the connections too, or Wait would last as long as the clients like.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer ln.Close()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	pause := firstPause
	for {
		conn, err := ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil
		}
		if err != nil {
			if err := s.readFailed(ctx, "TCP", err, &pause); err != nil {
				return err
			}
			continue
		}
		pause = firstPause
		from := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
		client := clientOf(from.Addr())
		if !s.admit(client) {
			_ = conn.Close()
			continue
		}
		conns.Go(func() {
			defer s.leave(client)
			defer conn.Close()
			s.serveConn(ctx, conn, from)
		})
	}
}

// admit counts a connection in, or refuses it.
func (s *Server) admit(client netip.Addr) bool {
	l := s.conns
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.max {
		s.metrics.droppedTCPLimit.Inc()
		return false
	}
	if l.byClient[client] >= l.perClient {
		s.metrics.droppedTCPClient.Inc()
		return false
	}
	l.open++
	l.byClient[client]++
	s.metrics.tcpConnections.Inc()
	return true
}

func (s *Server) leave(client netip.Addr) {
	l := s.conns
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.byClient[client]--; l.byClient[client] == 0 {
		delete(l.byClient, client)
	}
	s.metrics.tcpConnections.Dec()
}

// serveConn answers one connection's queries in their order until the client goes, idles or sends what is no query, or
// ctx is done. Answers to queries that arrived together leave together.
func (s *Server) serveConn(ctx context.Context, conn net.Conn, from netip.AddrPort) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	r := bufio.NewReaderSize(conn, 2+maxTCP)
	var out []byte
	for {
		if len(out) > 0 && (len(out) >= tcpBatch || !wholeQuery(r)) {
			_ = conn.SetWriteDeadline(time.Now().Add(tcpWrite))
			if _, err := conn.Write(out); err != nil {
				s.metrics.droppedWrite.Inc()
				return
			}
			out = out[:0]
		}
		// What has arrived is answered even now; nothing more is waited for. The order matters: the deadline that
		// AfterFunc sets must not be overwritten.
		_ = conn.SetReadDeadline(time.Now().Add(tcpIdle))
		if ctx.Err() != nil && !wholeQuery(r) {
			break
		}
		msg, ok := s.readQuery(r)
		if !ok {
			break
		}
		var asked query
		asked.tcp = true
		if z := s.transferOf(&asked, msg, from.Addr()); z != nil {
			_ = conn.SetWriteDeadline(time.Now().Add(tcpWrite))
			_, err := conn.Write(out) // in the order of the queries
			if err == nil {
				err = s.transfer(conn, &asked, z)
			}
			if _, discard := r.Discard(2 + len(msg)); err != nil || discard != nil {
				s.metrics.droppedWrite.Inc()
				return
			}
			out = out[:0]
			continue
		}
		at := len(out)
		res := s.Respond(append(out, 0, 0), msg, from, true)
		if _, err := r.Discard(2 + len(msg)); res == nil || err != nil {
			break // what sends answers or rubbish over TCP is no client
		}
		out = res
		binary.BigEndian.PutUint16(out[at:], uint16(len(out)-at-2))
	}
	s.linger(conn, out)
}

// wholeQuery tells whether r can give a query without waiting.
func wholeQuery(r *bufio.Reader) bool {
	if r.Buffered() < 2 {
		return false
	}
	head, err := r.Peek(2)
	return err == nil && r.Buffered() >= 2+int(binary.BigEndian.Uint16(head))
}

// readQuery returns the next query, which stays in r's buffer.
func (s *Server) readQuery(r *bufio.Reader) ([]byte, bool) {
	head, err := r.Peek(2)
	if err != nil {
		return nil, false
	}
	size := int(binary.BigEndian.Uint16(head))
	if size > maxTCP {
		s.metrics.droppedOversize.Inc()
		return nil, false
	}
	msg, err := r.Peek(2 + size)
	if err != nil {
		return nil, false
	}
	return msg[2:], true
}

// linger sends what is left and closes towards the client, then reads a little of what is still under way: closing with
// unread data would reset the connection, and the client would lose answers.
func (s *Server) linger(conn net.Conn, out []byte) {
	if len(out) > 0 {
		_ = conn.SetWriteDeadline(time.Now().Add(tcpWrite))
		if _, err := conn.Write(out); err != nil {
			s.metrics.droppedWrite.Inc()
			return
		}
	}
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(tcpLinger))
	_, _ = io.Copy(io.Discard, io.LimitReader(conn, maxMsg))
}
