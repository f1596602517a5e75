package dns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sync/errgroup"
)

// udpBuffer is the receive buffer that is asked of the kernel, in bytes: room for a burst while the workers are busy. The
// kernel gives what net.core.rmem_max allows.
const udpBuffer = 4 << 20

// Listen opens addr (host:port; no host: every interface) for UDP and TCP. With port 0 both get the same free port. The
// error says what to do about a port that is taken or not allowed.
func (s *Server) Listen(addr string) (net.PacketConn, net.Listener, error) {
	var last error
	// A port that is free for UDP may be taken for TCP. With port 0 another one will do.
	for range 16 {
		udp, tcp, picked, err := listen(addr)
		if err == nil {
			return udp, tcp, nil
		}
		last = err
		if !picked || !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return nil, nil, explain(addr, last)
}

// listen opens both sockets. picked tells that the kernel chose the port.
func listen(addr string) (udp *net.UDPConn, tcp net.Listener, picked bool, err error) {
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		return nil, nil, false, err
	}
	udp = pc.(*net.UDPConn)
	local := udp.LocalAddr().(*net.UDPAddr)
	host, port, err := net.SplitHostPort(addr)
	picked = err == nil && (port == "0" || port == "")
	tcp, err = net.Listen("tcp", net.JoinHostPort(host, fmt.Sprint(local.Port)))
	if err != nil {
		_ = udp.Close()
		return nil, nil, picked, err
	}
	_ = udp.SetReadBuffer(udpBuffer) // less is slower in bursts, no more
	return udp, tcp, picked, nil
}

func explain(addr string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("dns can't listen on %s: the port is taken, often by systemd-resolved or another DNS server; stop it, or name another address in listen.dns: %w", addr, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("dns can't listen on %s: ports below 1024 need root or CAP_NET_BIND_SERVICE: %w", addr, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("dns can't listen on %s: this machine does not have the address: %w", addr, err)
	}
	return fmt.Errorf("dns can't listen on %s, check listen.dns: %w", addr, err)
}

// Serve answers on both sockets, as Listen returns them or as another process handed them over, until ctx is done; then
// it finishes the queries that it has, closes the sockets and returns nil. Either may be nil. An error means that a
// socket failed. Several calls may run at once, for several addresses.
func (s *Server) Serve(ctx context.Context, udp net.PacketConn, tcp net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	if udp != nil {
		conn, ok := udp.(*net.UDPConn)
		if !ok {
			return fmt.Errorf("dns can serve UDP sockets only, not a %T", udp)
		}
		g.Go(func() error { return s.serveUDP(ctx, conn) })
	}
	if tcp != nil {
		g.Go(func() error { return s.serveTCP(ctx, tcp) })
	}
	return g.Wait()
}

// clientOf is the address that a connection counts for: one IPv4 address, or the /64 that one IPv6 host has to itself.
func clientOf(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64)
		return p.Addr()
	}
	return a
}
