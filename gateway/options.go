package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"landfall/configs"
)

// Options are what differs between the nodes of a fleet; all else is in the config, which is the same on every node.
type Options struct {
	ConfigFile string
	Lookup     func(string) (string, bool) // the environment
	Name       string                      // of the node; empty: the host's name
	Region     string                      // empty: the only region of the config
	Bind       string                      // IP for listeners whose address has no host; empty: every interface
	Advertise  []netip.Addr                // where clients and nodes reach it; empty: --bind, or the machine's addresses
	Join       []string                    // beside the config's mesh.join
	DataDir    string                      // empty: nothing is kept over a restart
	Admin      string                      // overrides listen.admin
	Version    string

	// Latency delays what this node sends to nodes of a region, one way: simulated distance, for labs and drills.
	Latency map[string]time.Duration
	// Network is a file that says which regions this node can't reach and how much is lost on the way, looked at again and
	// again: simulated trouble, for labs and drills. Empty: none. See parseNetwork.
	Network string

	Logger *slog.Logger
	Print  func(line string) // for people and scripts: one line a listener, then "ready"
	Now    func() time.Time
}

// identity is who a node is, worked out of its options and config.
type identity struct {
	name, region string
	bind         string
	addrs        []netip.Addr // advertised
}

// identify settles who this node is, or says which flag is missing or wrong.
func identify(o Options, c *configs.Config) (identity, error) {
	id := identity{name: o.Name, region: o.Region, bind: o.Bind, addrs: o.Advertise}
	if id.name == "" {
		host, err := os.Hostname()
		if err != nil {
			return id, fmt.Errorf("this machine has no host name; give the node one with --node: %w", err)
		}
		id.name = strings.ToLower(strings.Split(host, ".")[0])
	}
	regions := c.RegionNames()
	if id.region == "" {
		if len(regions) != 1 {
			return id, fmt.Errorf("the config has %d regions (%s): say with --region which one this node is in", len(regions), strings.Join(regions, ", "))
		}
		id.region = regions[0]
	}
	if _, ok := c.Regions[id.region]; !ok {
		return id, fmt.Errorf("--region %s is not in the config; its regions are %s", id.region, strings.Join(regions, ", "))
	}
	if id.bind != "" {
		a, err := netip.ParseAddr(id.bind)
		if err != nil {
			return id, fmt.Errorf("--bind %q is not an IP address", id.bind)
		}
		if len(id.addrs) == 0 && !a.IsUnspecified() {
			id.addrs = []netip.Addr{a}
		}
	}
	if len(id.addrs) == 0 {
		var err error
		if id.addrs, err = interfaceAddrs(); err != nil {
			return id, err
		}
	}
	return id, nil
}

// interfaceAddrs are this machine's global unicast addresses, IPv4 first; loopback where it has no other.
func interfaceAddrs() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list this machine's addresses (or give them with --advertise): %w", err)
	}
	var v4, v6 []netip.Addr
	for _, a := range all {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || !p.Addr().IsGlobalUnicast() {
			continue
		}
		if p.Addr().Is4() {
			v4 = append(v4, p.Addr())
		} else {
			v6 = append(v6, p.Addr())
		}
	}
	if addrs := append(v4, v6...); len(addrs) > 0 {
		return addrs, nil
	}
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, nil
}

// on completes a listen address without a host with the node's --bind.
func (id identity) on(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host != "" {
		return addr
	}
	return net.JoinHostPort(id.bind, port)
}

// reachable is the address by which others reach a listener of this node.
func (id identity) reachable(listen string) (netip.AddrPort, error) {
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return netip.AddrPort{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("port %q is not a number", port)
	}
	return netip.AddrPortFrom(id.addrs[0], uint16(n)), nil
}

// errNeedsRestart tells that a reload would change what only a start can.
var errNeedsRestart = errors.New("needs a restart of the node")

// reloadable checks that next changes nothing that only a start can change, and names all that it does.
func reloadable(now, next *configs.Config) error {
	var errs []error
	changed := func(what string, same bool) {
		if !same {
			errs = append(errs, fmt.Errorf("%s changed: that %w", what, errNeedsRestart))
		}
	}
	changed("fleet", now.Fleet == next.Fleet)
	changed("regions (their names)", sameStrings(now.RegionNames(), next.RegionNames()))
	changed("listen", sameListen(now.Listen, next.Listen))
	// A list that shares a key with the present one is a step of a rotation.
	shared := func(k string) bool { return slices.Contains(next.Mesh.Key, k) }
	changed("mesh.key", len(now.Mesh.Key) == len(next.Mesh.Key) && len(now.Mesh.Key) == 0 || slices.ContainsFunc(now.Mesh.Key, shared))
	changed("mesh.tls", now.Mesh.TLS == next.Mesh.TLS)
	a, b := now.Cache, next.Cache
	b.RegionPeers, b.Shield, b.Isolation = a.RegionPeers, a.Shield, a.Isolation // the parts that are read anew
	changed("cache", reflect.DeepEqual(a, b))
	changed("mesh.join", sameStrings(now.Mesh.Join, next.Mesh.Join))
	changed("tls.min_version", now.TLS.MinVersion == next.TLS.MinVersion)
	changed("tls.acme", (now.TLS.ACME == nil) == (next.TLS.ACME == nil) && (now.TLS.ACME == nil || *now.TLS.ACME == *next.TLS.ACME))
	changed("services.*.hosts, with tls.acme,", next.TLS.ACME == nil || sameStrings(allHosts(now), allHosts(next)))
	changed("dns.geoip (the path)", now.DNS.GeoIP == next.DNS.GeoIP)
	changed("dns.asn (the path)", now.DNS.ASN == next.DNS.ASN)
	changed("observe.log_format", now.Observe.LogFormat == next.Observe.LogFormat)
	return errors.Join(errs...)
}

func sameStrings[S ~[]string](a, b S) bool { return strings.Join(a, "\x00") == strings.Join(b, "\x00") }

func sameListen(a, b configs.Listen) bool {
	return sameStrings(a.HTTP, b.HTTP) && sameStrings(a.HTTPS, b.HTTPS) && sameStrings(a.DNS, b.DNS) &&
		a.Mesh == b.Mesh && a.Peer == b.Peer && a.Admin == b.Admin && a.HTTP3 == b.HTTP3
}
