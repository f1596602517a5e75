package server

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// minRTT is the smallest round trip that the kernel saw on a connection (tcp(7), TCP_INFO).
func minRTT(nc *net.TCPConn) (time.Duration, bool) {
	raw, err := nc.SyscallConn()
	if err != nil {
		return 0, false
	}
	var info *unix.TCPInfo
	var asked error
	err = raw.Control(func(fd uintptr) { info, asked = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err != nil || asked != nil || info.Min_rtt == 0 || info.Min_rtt == ^uint32(0) {
		return 0, false // closed already, or nothing was measured
	}
	return time.Duration(info.Min_rtt) * time.Microsecond, true
}
