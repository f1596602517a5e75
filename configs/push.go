package configs

import (
	"encoding/base64"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
)

// DNSPush hands the addresses of service hosts to another DNS provider.
type DNSPush struct {
	Zone      string   `yaml:"zone" doc:"Zone at the provider. Every service host that lies in it is pushed, wildcard hosts too." required:"true"`
	RFC2136   RFC2136  `yaml:"rfc2136" doc:"The provider takes dynamic updates (RFC 2136), by TCP and signed." required:"true"`
	TTL       Duration `yaml:"ttl" doc:"TTL of the records." default:"60s" min:"1s" max:"24h"`
	Addresses int      `yaml:"addresses" doc:"Addresses of each family that a host has, at most: one of each usable region, then further ones." default:"8" min:"1" max:"16"`
	Interval  Duration `yaml:"interval" doc:"Time between two updates, at least; what changes meanwhile is folded into the next. After failures it doubles, up to 10 minutes." default:"10s" min:"1s" max:"1h"`
}

// RFC2136 is a server that takes dynamic updates.
type RFC2136 struct {
	Server    string `yaml:"server" doc:"The zone's primary, as host:port." required:"true"`
	KeyName   string `yaml:"key_name" doc:"Name of the key (TSIG, RFC 8945)." required:"true"`
	Algorithm string `yaml:"algorithm" doc:"The key's algorithm." default:"hmac-sha256" enum:"hmac-sha1,hmac-sha224,hmac-sha256,hmac-sha384,hmac-sha512"`
	Secret    string `yaml:"secret" doc:"The key, in base64. Use ${ENV}." required:"true" secret:"true"`
}

// String is the target without its key: %s of what holds a pointer to it would ask no further.
func (p DNSPush) String() string { return flat(p) }

// GoString is String, so that %#v shows no key either.
func (p DNSPush) GoString() string { return flat(p) }

// MarshalJSON is the target without its key.
func (p DNSPush) MarshalJSON() ([]byte, error) { return (renderer{}).json(reflect.ValueOf(p)) }

// String is the server without its key.
func (r RFC2136) String() string { return flat(r) }

// GoString is String, so that %#v shows no key either.
func (r RFC2136) GoString() string { return flat(r) }

// MarshalJSON is the server without its key.
func (r RFC2136) MarshalJSON() ([]byte, error) { return (renderer{}).json(reflect.ValueOf(r)) }

// pushes checks what is handed to other providers.
func (v *validator) pushes() {
	zones := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(v.c.DNS.Push)) {
		path, p := join("dns.push", name), v.c.DNS.Push[name]
		if p == nil {
			continue // refused above
		}
		at := join(path, "zone")
		switch {
		case p.Zone == "":
		case !validDomain(p.Zone):
			v.fault(at, "%s is not a domain name such as example.com, in lower case and without a final dot", v.show(at, p.Zone))
		case zones[p.Zone] != "":
			v.fault(at, "is the zone of %s too: two targets would undo each other's work", zones[p.Zone])
		case len(v.c.Services) > 0 && len(v.hostsWithin(p.Zone)) == 0:
			v.fault(at, "holds no service's host: there is nothing to push")
		}
		zones[p.Zone] = name
		v.rfc2136(join(path, "rfc2136"), p.RFC2136)
	}
}

func (v *validator) rfc2136(path string, r RFC2136) {
	at := join(path, "server")
	if host, port, err := net.SplitHostPort(r.Server); r.Server != "" {
		if _, bad := netip.ParseAddr(host); err != nil || !validPort(port, 1) || bad != nil && !hostPattern.MatchString(strings.ToLower(host)) {
			v.fault(at, "%s is not host:port, such as 192.0.2.53:53", v.show(at, r.Server))
		}
	}
	at = join(path, "key_name")
	if r.KeyName != "" && !validDomain(strings.ToLower(strings.TrimSuffix(r.KeyName, "."))) {
		v.fault(at, "%s is not a key's name, which is a domain name", v.show(at, r.KeyName))
	}
	at = join(path, "secret")
	if raw, err := base64.StdEncoding.DecodeString(r.Secret); r.Secret != "" && (err != nil || len(raw) < 16) {
		v.fault(at, "must be at least 16 bytes in base64; make one with tsig-keygen or openssl rand -base64 32")
	}
}
