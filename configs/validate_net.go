package configs

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// listen checks the addresses of the listeners, and that no two want the same TCP port. UDP needs no look of its own:
// only DNS and gossip use it, on the ports of their TCP.
func (v *validator) listen() {
	l := v.c.Listen
	taken := make(map[string]string)
	one := func(path, addr string) {
		if !v.listenAddress(path, addr) {
			return
		}
		if _, port, err := net.SplitHostPort(addr); err != nil || port == "0" {
			return
		}
		if by, ok := taken[addr]; ok {
			line, _ := v.where(by)
			v.duplicate(path, addr, by, line)
			return
		}
		taken[addr] = path
	}
	for _, list := range []struct {
		path  string
		addrs []string
	}{{"listen.http", l.HTTP}, {"listen.https", l.HTTPS}, {"listen.dns", l.DNS}} {
		for i, addr := range list.addrs {
			one(index(list.path, i), addr)
		}
	}
	if l.Mesh != "" {
		one("listen.mesh", l.Mesh)
	}
	if l.Peer != "" {
		one("listen.peer", l.Peer)
	}
	one("listen.admin", l.Admin)
}

// listenAddress checks host:port; the host may be absent, an IP address or a name, the port 0 (any free one) to 65535.
func (v *validator) listenAddress(path, addr string) bool {
	shown := v.show(path, addr)
	if addr == "" {
		v.fault(path, `must not be empty: write an address such as ":8080" or "127.0.0.1:8080"`)
		return false
	}
	if _, err := strconv.Atoi(addr); err == nil {
		v.fault(path, "%s is not an address%s", shown, v.fix(path, "write \":%s\"", addr))
		return false
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		v.fault(path, `%s is not host:port: write ":8080", "127.0.0.1:8080" or "[::1]:8080"`, shown)
		return false
	}
	if !validPort(port, 0) {
		v.fault(path, "%s has no port from 0 to 65535", shown)
		return false
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && !hostPattern.MatchString(host) {
		v.fault(path, "%s has neither an IP address nor a host name before its port", shown)
		return false
	}
	return true
}

// joinAddress checks host or host:port.
func (v *validator) joinAddress(path, addr string) {
	if _, err := netip.ParseAddr(addr); err == nil {
		return
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		host, port = addr, "1"
	}
	_, err = netip.ParseAddr(host)
	if !validPort(port, 1) || err != nil && !hostPattern.MatchString(strings.ToLower(host)) {
		v.fault(path, `%s is not an address: write host or host:port, such as 10.1.0.10 or node1.example.com:7946`, v.show(path, addr))
	}
}

// validPort tells whether s is a port in plain decimal, least to 65535.
func validPort(s string, least int) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n >= least && n <= 65535 && strconv.Itoa(n) == s
}

// loopback tells whether a listener on host is reachable from this machine only.
func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback() || strings.EqualFold(host, "localhost")
}

// hostPattern is a host name in lower case as requests carry it. Underscores are not in RFC 1123, but in use.
var hostPattern = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$`)

// domainPattern is the name of a zone or of something in it: labels of RFC 1123 section 2.1, an underscore first allowed.
var domainPattern = regexp.MustCompile(`^[a-z0-9_]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9_]([a-z0-9-]{0,61}[a-z0-9])?)*$`)

var mailPattern = regexp.MustCompile(`^[A-Za-z0-9!#$%&'*+/=?^_{|}~.-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]{0,250}[A-Za-z0-9])?$`)

var mailboxPattern = regexp.MustCompile(`^[A-Za-z0-9!#$%&'*+/=?^_{|}~.-]{1,63}$`)

// maxName is the most characters of a domain name in text without the final dot (RFC 1035 section 2.3.4).
const maxName = 253

// dns checks the zones, and that somebody answers for them.
func (v *validator) dns() {
	v.rttHeader("dns.rtt.header")
	zones := v.c.DNS.Zones
	if len(v.c.Listen.DNS) > 0 && len(zones) == 0 && !v.unsure("dns.zones") {
		v.fault("listen.dns", "needs dns.zones: there is nothing to answer for")
	}
	if len(zones) > 0 && len(v.c.Listen.DNS) == 0 && !v.unsure("listen.dns") {
		v.fault("dns.zones", `needs listen.dns, such as [":53"]: nobody would answer for the zones`)
	}
	for _, name := range slices.Sorted(maps.Keys(zones)) {
		v.zone(join("dns.zones", name), name, zones[name])
	}
	v.pushes()
}

func (v *validator) zone(path, name string, z Zone) {
	if plain := strings.ToLower(strings.TrimSuffix(name, ".")); plain != name && validDomain(plain) {
		v.fault(path, "write the zone as %s: in lower case, without a final dot", plain)
		name = plain
	} else if !validDomain(name) {
		v.fault(path, "%q is not a domain name such as edge.example.com", name)
		name = "zone.invalid" // so that its name servers are judged on their own
	}
	servers := join(path, "nameservers")
	if len(z.Nameservers) == 0 {
		v.fault(servers, "must not be empty: a zone has name servers, such as [ns1, ns2]")
	}
	absolute := make([]string, len(z.Nameservers))
	for i, server := range z.Nameservers {
		absolute[i] = v.nameserver(index(servers, i), server, name)
	}
	v.distinct(servers, len(absolute), func(i int) string { return absolute[i] })
	if z.MinTTL > z.TTL && z.TTL >= Duration(time.Second) {
		v.fault(join(path, "min_ttl"), "is %s, more than the ttl of %s: answers are kept that long at most", z.MinTTL, z.TTL)
	}
	contact := join(path, "contact")
	if !mailPattern.MatchString(z.Contact) && !mailboxPattern.MatchString(z.Contact) {
		v.fault(contact, "%s is not a mail address: write hostmaster@example.com, or hostmaster for the zone's own", v.show(contact, z.Contact))
	}
	v.zoneRecords(path, name, z, absolute)
	if z.HTTPS && len(v.c.Listen.HTTPS) == 0 && !v.unsure("listen.https") {
		v.fault(join(path, "https"), `needs listen.https, such as [":443"]: browsers would be sent where nobody listens`)
	}
}

// nameserver checks one name server of a zone and returns its absolute name, or "" when it has none.
func (v *validator) nameserver(path, server, zone string) string {
	name, absolute := strings.CutSuffix(strings.ToLower(server), ".")
	if !absolute {
		if name == zone || strings.HasSuffix(name, "."+zone) {
			fix := v.fix(path, "write %q", name+".")
			if short := strings.TrimSuffix(strings.TrimSuffix(name, zone), "."); short != "" {
				fix = v.fix(path, "write %q or %q", short, name+".")
			}
			v.fault(path, "%s would mean %s.%s, as a name without a final dot is relative to the zone%s", v.show(path, server), name, zone, fix)
			return ""
		}
		name += "." + zone
	}
	if !validDomain(name) {
		v.fault(path, "%s is not the name of a name server: write ns1 for one in the zone, or ns1.example.net. with a final dot", v.show(path, server))
		return ""
	}
	return name
}

func validDomain(name string) bool {
	return len(name) <= maxName && domainPattern.MatchString(name)
}

// hostFault says what is wrong with a host of a service, which is in lower case.
func hostFault(host string) string {
	name := strings.TrimPrefix(host, "*.")
	_, err := netip.ParseAddr(host)
	switch {
	case host == "*" || err == nil && !strings.Contains(host, ":"):
		return ""
	case strings.Contains(name, "://") || strings.Contains(name, "/"):
		return "is a URL, not a host name: leave out the scheme and the path"
	case err == nil || strings.ContainsAny(name, "[]"):
		return `is an IPv6 address: use "*" for requests by address`
	case strings.Contains(name, ":"):
		return "has a port: a service answers on every listener, so leave it out"
	case strings.Contains(name, "*"):
		return `has a * in the wrong place: only "*" and "*.suffix" are known`
	case strings.HasSuffix(name, "."):
		return "has a final dot: leave it out"
	case strings.ContainsFunc(name, func(r rune) bool { return r > 127 }):
		return "is not ASCII: write it as browsers send it (xn--...)"
	case len(name) > maxName || !hostPattern.MatchString(name):
		return "is not a host name"
	default:
		return ""
	}
}

// srvPattern is the name of SRV records (RFC 2782), or any other host name.
var srvPattern = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9])?)+$`)

// originFault says what is wrong with the URL of an origin, without repeating it.
func originFault(origin string) string {
	scheme, rest, ok := strings.Cut(origin, "://")
	scheme, lookup, looked := strings.Cut(scheme, "+")
	switch {
	case looked && lookup != "dns" && lookup != "srv":
		return "is looked up by neither dns nor srv: write http+dns://host:port or http+srv://name"
	case !ok || scheme != "http" && scheme != "https":
		return "is not a URL: write http://host:port or https://host:port"
	case strings.Contains(rest, "@"):
		return "holds a user or password: an origin is only http://host:port or https://host:port"
	case strings.ContainsAny(rest, "/?#"):
		return "has a path, a query or a fragment: an origin is only " + scheme + "://host:port, requests bring their own path"
	}
	if lookup == "srv" {
		if len(rest) > maxName || !srvPattern.MatchString(strings.ToLower(rest)) {
			return "has no name of SRV records, such as _web._tcp.example.com, and nothing else"
		}
		return ""
	}
	host, port, err := net.SplitHostPort(rest)
	if err == nil && looked {
		if _, err := netip.ParseAddr(host); err == nil {
			return "is an address, which need not be looked up: leave out +dns"
		}
	}
	if err != nil {
		known := map[string]string{"http": "80", "https": "443"}
		return fmt.Sprintf("has no port: write host:port, such as :%s at its end", known[scheme])
	}
	addr, err := netip.ParseAddr(host)
	switch {
	case !validPort(port, 1):
		return "has no port from 1 to 65535"
	case err == nil && addr.IsUnspecified():
		return "is an address to listen on, not one to connect to: use 127.0.0.1 or [::1] for this machine"
	case err != nil && (len(host) > maxName || !hostPattern.MatchString(strings.ToLower(host))):
		return "has neither an IP address nor a host name before its port"
	default:
		return ""
	}
}
