package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/net/ipv4"
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

// batch is a worker's room for packets: queries in in, and the answers to them, fewer perhaps, in out.
type batch struct {
	in, out []ipv4.Message
	sources sources
}

func newBatch(oobSize int) *batch {
	b := &batch{in: make([]ipv4.Message, batchSize), out: make([]ipv4.Message, 0, batchSize)}
	for i := range b.in {
		b.in[i].Buffers = [][]byte{make([]byte, maxUDP+1)}
		if oobSize > 0 {
			b.in[i].OOB = make([]byte, oobSize)
		}
	}
	for range batchSize {
		b.out = append(b.out, ipv4.Message{Buffers: [][]byte{make([]byte, 0, maxUDP)}})
	}
	return b
}

func (s *Server) udpWorker(ctx context.Context, conn *net.UDPConn, local localAddr) error {
	pc := ipv4.NewPacketConn(conn) // reads and writes batches of either family
	b := newBatch(local.size)
	pause := firstPause
	for ctx.Err() == nil {
		n, err := pc.ReadBatch(b.in, 0)
		if err != nil {
			if err := s.readFailed(ctx, "UDP", err, &pause); err != nil {
				return err
			}
			continue
		}
		pause = firstPause
		s.send(pc, b.out[:s.answerBatch(b, n)])
	}
	return nil
}

// answerBatch answers the first n queries of b and returns how many answers there are.
func (s *Server) answerBatch(b *batch, n int) (answers int) {
	for i := range b.in[:n] {
		q := &b.in[i]
		from, ok := q.Addr.(*net.UDPAddr)
		if q.N > maxUDP || !ok { // cut off, so it can't be parsed
			s.metrics.droppedOversize.Inc()
			continue
		}
		a := &b.out[answers]
		res := s.Respond(a.Buffers[0][:0], q.Buffers[0][:q.N], from.AddrPort(), false)
		if res == nil {
			continue
		}
		a.Buffers[0], a.Addr = res, from // res may have grown
		a.OOB = b.sources.of(q.OOB[:q.NN])
		answers++
	}
	return answers
}

// send sends answers. A full send buffer makes it wait until the network card has sent some of it.
func (s *Server) send(pc *ipv4.PacketConn, out []ipv4.Message) {
	for len(out) > 0 {
		n, err := pc.WriteBatch(out, 0)
		if err != nil {
			s.metrics.droppedWrite.Inc() // a client that can't be reached, such as port 0: not our trouble
			n++
		}
		out = out[min(max(n, 1), len(out)):]
	}
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
