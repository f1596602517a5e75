package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	firstPause = 5 * time.Millisecond
	lastPause  = time.Second
)

// serveUDP answers on conn with a fixed number of workers that share it. There is no queue of our own: while all workers
// are busy, the kernel keeps packets up to the socket's buffer and drops the newest past it.
func (s *Server) serveUDP(ctx context.Context, conn *net.UDPConn) error {
	defer conn.Close()
	local := newLocalAddr(conn)
	g, ctx := errgroup.WithContext(ctx)
	// Workers in a read return; one that answers finishes first. The socket is closed when all are done.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for range s.workers {
		g.Go(func() error { return s.udpWorker(ctx, conn, local) })
	}
	return g.Wait()
}

// batchSize is how many packets a worker takes from the kernel at once, where it can (Linux: recvmmsg and sendmmsg). Only
// what has arrived is taken; nothing waits for a batch to fill.
const batchSize = 32

func (s *Server) udpWorker(ctx context.Context, conn *net.UDPConn, local localAddr) error {
	p, err := newPackets(conn, local.size)
	if err != nil {
		return fmt.Errorf("dns UDP socket: %w", err)
	}
	pause := firstPause
	for ctx.Err() == nil {
		n, err := p.read()
		if err != nil {
			if err := s.readFailed(ctx, "UDP", err, &pause); err != nil {
				return err
			}
			continue
		}
		pause = firstPause
		// A full send buffer makes it wait until the network card has sent some of it. A client that can't be reached, such
		// as port 0, is not our trouble.
		p.write(s.answerBatch(p, n), s.metrics.droppedWrite.Inc)
	}
	return nil
}

// answerBatch answers the first n queries of p and returns how many answers there are.
func (s *Server) answerBatch(p *packets, n int) (answers int) {
	for i := range n {
		msg, from, ok := p.query(i)
		if !ok { // cut off, so it can't be parsed
			s.metrics.droppedOversize.Inc()
			continue
		}
		if res := s.Respond(p.room(answers), msg, from, false); res != nil {
			p.answer(answers, i, res)
			answers++
		}
	}
	return answers
}

// readFailed decides about an error of a socket that is read in a loop: nil means to go on, after a pause that doubles
// from time to time, so that a lasting failure costs nothing and fills no log.
func (s *Server) readFailed(ctx context.Context, what string, err error, pause *time.Duration) error {
	if ctx.Err() != nil {
		return nil
	}
	if errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("dns %s socket was closed by somebody else: %w", what, err)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("dns %s socket has a deadline that was not set here: %w", what, err)
	}
	s.log.Warn("dns socket fails, trying again", "socket", what, "error", err, "pause", *pause)
	t := time.NewTimer(*pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	*pause = min(*pause*2, lastPause)
	return nil
}
