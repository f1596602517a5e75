package dns

import (
	"encoding/binary"
	"net/netip"
)

// HTTPS is what the HTTPS records of the services' hosts say (RFC 9460 §9). The hints are the steered addresses.
type HTTPS struct {
	ALPN []string // protocol names, the best first, such as h3 and h2; http/1.1 is understood without
	Port uint16   // 0 or 443: the default
}

// Keys of service parameters (RFC 9460 §14.3.2), in the order that they must have.
const (
	svcALPN     = 1
	svcPort     = 3
	svcIPv4Hint = 4
	svcIPv6Hint = 6
)

// data is a record in service mode, priority 1, for the owner itself.
func (h *HTTPS) data(v4, v6 []netip.Addr) []byte {
	b := []byte{0, 1, 0}
	param := func(key uint16, value []byte) {
		b = binary.BigEndian.AppendUint16(b, key)
		b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
		b = append(b, value...)
	}
	var alpn []byte
	for _, p := range h.ALPN {
		alpn = append(append(alpn, byte(len(p))), p...)
	}
	if len(alpn) > 0 {
		param(svcALPN, alpn)
	}
	if h.Port != 0 && h.Port != 443 {
		param(svcPort, binary.BigEndian.AppendUint16(nil, h.Port))
	}
	var hint []byte
	for _, a := range v4 {
		hint = append(hint, a.Unmap().AsSlice()...)
	}
	if len(hint) > 0 {
		param(svcIPv4Hint, hint)
	}
	hint = nil
	for _, a := range v6 {
		hint = append(hint, a.AsSlice()...)
	}
	if len(hint) > 0 {
		param(svcIPv6Hint, hint)
	}
	return b
}
