package push

import (
	"github.com/libdns/rfc2136"

	"landfall/configs"
)

// RFC2136 is a provider that takes dynamic updates (RFC 2136) by TCP, signed by a shared key (TSIG, RFC 8945): BIND, Knot,
// PowerDNS, NSD's primaries and several hosted services. One update is one message, so that a name's addresses change at
// once.
func RFC2136(c configs.RFC2136) Provider {
	return &rfc2136.Provider{Server: c.Server, KeyName: c.KeyName, KeyAlg: c.Algorithm, Key: c.Secret}
}
