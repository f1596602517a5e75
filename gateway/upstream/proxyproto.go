package upstream

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// announcing makes each connection begin with a PROXY protocol header that names the client whose request it is for (the
// PROXY protocol, versions 1 and 2, by HAProxy).
func announcing(dial dialFunc, version string) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		header := proxyHeader(version, settingsOf(ctx).client, c.RemoteAddr())
		if deadline, ok := ctx.Deadline(); ok {
			_ = c.SetWriteDeadline(deadline)
		}
		if _, err := c.Write(header); err != nil {
			_ = c.Close()
			return nil, err
		}
		_ = c.SetWriteDeadline(time.Time{})
		return c, nil
	}
}

// proxyHeader is the header for a client whose port isn't known (0) and the origin's own address. Without a client, as for
// the gateway's own requests, it says so.
func proxyHeader(version string, client netip.Addr, origin net.Addr) []byte {
	var to netip.AddrPort
	if a, ok := origin.(*net.TCPAddr); ok {
		to = netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
	}
	client = client.Unmap().WithZone("")
	known := client.IsValid() && to.IsValid()
	if known && client.Is4() != to.Addr().Is4() { // a header has one family
		client, to = as6(client), netip.AddrPortFrom(as6(to.Addr()), to.Port())
	}
	if version == "v1" {
		if !known {
			return []byte("PROXY UNKNOWN\r\n")
		}
		family := "TCP6"
		if client.Is4() {
			family = "TCP4"
		}
		return fmt.Appendf(nil, "PROXY %s %s %s 0 %d\r\n", family, client, to.Addr(), to.Port())
	}
	header := []byte("\r\n\r\n\x00\r\nQUIT\n")
	if !known {
		return append(header, 0x20, 0x00, 0, 0) // LOCAL
	}
	family, length := byte(0x21), uint16(36) // TCP over IPv6
	if client.Is4() {
		family, length = 0x11, 12
	}
	header = binary.BigEndian.AppendUint16(append(header, 0x21, family), length)
	header = append(append(header, client.AsSlice()...), to.Addr().AsSlice()...)
	return binary.BigEndian.AppendUint16(append(header, 0, 0), to.Port())
}

func as6(a netip.Addr) netip.Addr { return netip.AddrFrom16(a.As16()) }
