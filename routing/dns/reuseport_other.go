//go:build !linux

package dns

import (
	"net"
	"runtime"
)

// defaultWorkers is the workers of a socket, the only one of its address.
func defaultWorkers() int { return 2 * runtime.GOMAXPROCS(0) }

// ListenMore opens no further sockets: this system does not spread the clients over them.
func (s *Server) ListenMore(net.PacketConn, int) ([]net.PacketConn, error) { return nil, nil }
