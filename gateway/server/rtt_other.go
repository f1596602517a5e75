//go:build !linux

package server

import (
	"net"
	"time"
)

// minRTT is not known here: only Linux tells it.
func minRTT(*net.TCPConn) (time.Duration, bool) { return 0, false }
