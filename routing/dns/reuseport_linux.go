package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// ListenMore opens count further UDP sockets on the address of udp, which Listen has opened. The kernel spreads the
// clients over all of them by their address and port (SO_REUSEPORT), so that each core can read one of its own. On systems
// that don't spread there are none.
func (s *Server) ListenMore(udp net.PacketConn, count int) (more []net.PacketConn, err error) {
	defer func() {
		if err != nil {
			for _, c := range more {
				_ = c.Close()
			}
			more = nil
		}
	}()
	conn, ok := udp.(*net.UDPConn)
	if !ok || count <= 0 {
		return nil, nil
	}
	// The first was bound alone, so that a port of somebody else's was not taken for one of ours; only now may it be shared.
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("share the dns port of %s: %w", udp.LocalAddr(), err)
	}
	if err := share(raw); err != nil {
		return nil, fmt.Errorf("share the dns port of %s: %w", udp.LocalAddr(), err)
	}
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error { return share(raw) }}
	for range count {
		c, err := lc.ListenPacket(context.Background(), network(conn), udp.LocalAddr().String())
		if err != nil {
			return more, fmt.Errorf("open another dns socket on %s: %w", udp.LocalAddr(), err)
		}
		_ = c.(*net.UDPConn).SetReadBuffer(udpBuffer)
		more = append(more, c)
	}
	return more, nil
}

// defaultWorkers is the workers of a socket: while one answers, the other reads.
func defaultWorkers() int { return 2 }

func share(raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	return errors.Join(err, failed)
}

// network is the family of a socket as it was bound: an address of IPv4 may be held by a socket of that family only.
func network(conn *net.UDPConn) string {
	if a, ok := conn.LocalAddr().(*net.UDPAddr); ok && a.IP.To4() != nil {
		return "udp4"
	}
	return "udp"
}
