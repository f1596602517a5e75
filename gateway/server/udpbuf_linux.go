package server

import (
	"net"

	"golang.org/x/sys/unix"
)

// growUDP asks for socket buffers of size bytes, beyond the system's bound where the process may, and tells what came of it.
func growUDP(udp *net.UDPConn, size int) (read, write int, ok bool) {
	raw, err := udp.SyscallConn()
	if err != nil {
		return 0, 0, false
	}
	_ = udp.SetReadBuffer(size) // a refusal shows below
	_ = udp.SetWriteBuffer(size)
	err = raw.Control(func(fd uintptr) {
		grow := func(opt, force int) int {
			n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, opt)
			if err == nil && n < size && unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, force, size) == nil {
				n, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, opt)
			}
			ok = err == nil
			return n
		}
		read = grow(unix.SO_RCVBUF, unix.SO_RCVBUFFORCE)
		write = grow(unix.SO_SNDBUF, unix.SO_SNDBUFFORCE)
	})
	return read, write, ok && err == nil
}
