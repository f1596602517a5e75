package server

import "net"

// tellRTT tells how far the client was. A connection from a proxy in front of the node says how far the proxy is, which is
// told as well: it is the proxy's address that it is told of.
func (c *conn) tellRTT() {
	if c.srv.onRTT == nil || c.ln.kind == peerListener {
		return
	}
	if h3 := c.http3(); h3 != nil {
		if rtt := h3.quic.ConnectionStats().MinRTT; rtt > 0 {
			c.srv.onRTT(h3.remote().Addr(), rtt)
		}
		return
	}
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		if rtt, ok := minRTT(tcp); ok {
			c.srv.onRTT(c.base.RemoteAddr.Addr().Unmap(), rtt)
		}
	}
}
