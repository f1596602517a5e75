package dns

import (
	"bytes"
	"net"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// localAddr makes answers leave from the address that was asked. A socket that is bound to every interface would let the
// kernel choose, and on a host with several addresses a client drops an answer that comes from another one.
type localAddr struct {
	size int // bytes of control data to read with a packet; 0 when the socket is bound to one address
}

func newLocalAddr(conn *net.UDPConn) localAddr {
	a, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok || !a.IP.IsUnspecified() {
		return localAddr{}
	}
	// A socket for both families takes both options, one for IPv4 only the second. Systems without either (Windows) leave
	// the choice to the kernel.
	err6 := ipv6.NewPacketConn(conn).SetControlMessage(ipv6.FlagDst, true)
	err4 := ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst, true)
	if err4 != nil && err6 != nil {
		return localAddr{}
	}
	return localAddr{size: len(ipv4.NewControlMessage(ipv4.FlagDst)) + len(ipv6.NewControlMessage(ipv6.FlagDst))}
}

// sources remembers the last control data of a worker's queries: nearly always the next is the same.
type sources struct{ query, answer []byte }

// of is source, from memory where it can.
func (s *sources) of(oob []byte) []byte {
	if len(oob) == 0 {
		return nil
	}
	if !bytes.Equal(oob, s.query) {
		s.query, s.answer = append(s.query[:0], oob...), source(oob)
	}
	return s.answer
}

// source turns the control data of a query into that of its answer. Nil lets the kernel choose.
func source(oob []byte) []byte {
	var dst net.IP
	var m6 ipv6.ControlMessage
	if m6.Parse(oob) == nil {
		dst = m6.Dst
	}
	if dst == nil {
		var m4 ipv4.ControlMessage
		if m4.Parse(oob) == nil {
			dst = m4.Dst
		}
	}
	switch {
	case dst == nil || dst.IsMulticast() || dst.Equal(net.IPv4bcast):
		return nil // not an address to send from
	case dst.To4() != nil:
		// In a socket for both families, too: the kernel wants the IPv4 form for an IPv4 packet.
		return (&ipv4.ControlMessage{Src: dst.To4()}).Marshal()
	}
	return (&ipv6.ControlMessage{Src: dst}).Marshal()
}
