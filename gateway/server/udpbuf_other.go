//go:build !linux

package server

import "net"

// growUDP asks for socket buffers of size bytes; what came of it only Linux tells.
func growUDP(udp *net.UDPConn, size int) (read, write int, ok bool) {
	_ = udp.SetReadBuffer(size)
	_ = udp.SetWriteBuffer(size)
	return 0, 0, false
}
