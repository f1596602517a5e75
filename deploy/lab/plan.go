package lab

import (
	"fmt"
	"net/netip"
	"time"
)

// The ports of every node of a lab; the nodes differ by address.
const (
	HTTPPort   = 8080
	HTTPSPort  = 8443
	DNSPort    = 5300
	meshPort   = 7946
	peerPort   = 7443
	adminPort  = 9901
	originPort = 9000
)

// capacity of each region, in requests a second: far more than the drills and a person at the lab ask for, but for the rush.
const capacity = 5 * RushAt

// MaxNet bounds Options.Net.
const MaxNet = 254

// ControlAddr is where the lab of that net serves its control API: what runs, kill and start a region.
func ControlAddr(net int) string { return fmt.Sprintf("127.%d.0.1:9900", net) }

// AdminAddr leads to the admin API of the first node that lives. Net 0's is where the CLI looks without flags.
func AdminAddr(net int) string { return fmt.Sprintf("127.%d.0.1:%d", net, adminPort) }

// Zone and Host are what the lab serves.
const (
	Zone = "lab.test"
	Host = "shop.lab.test"
	// RushHost is a service that spills at RushAt requests a second of its region, and VaultHost one whose clients' data stays
	// in the region of their country.
	RushHost  = "rush.lab.test"
	RushAt    = 80
	VaultHost = "vault.lab.test"
)

// TTL of the lab's DNS answers, short so that drills need not wait long; dnsWait outlasts it.
const (
	TTL     = 2 * time.Second
	dnsWait = 3 * time.Second
)

// MaxRegions and MaxNodes bound a lab's size.
const (
	MaxRegions = 8
	MaxNodes   = 9
)

// place is where a region of the lab is said to be. Its clients come from prefix.
type place struct {
	name     string
	lat, lon float64
	country  string
	prefix   string
}

// places are the regions in the order in which a lab takes them. The first three have the documentation prefixes of
// RFC 5737; the others have parts of the shared address space of RFC 6598, which is no more on the internet than those. No
// two share a /16, since what is learnt of one client's distance tells of its wider network.
func places() []place {
	return []place{
		{"eu-west", 53.35, -6.26, "IE", "192.0.2.0/24"},
		{"us-east", 38.95, -77.45, "US", "198.51.100.0/24"},
		{"ap-southeast", 1.35, 103.99, "SG", "203.0.113.0/24"},
		{"sa-east", -23.55, -46.63, "BR", "100.64.4.0/24"},
		{"af-south", -33.92, 18.42, "ZA", "100.65.5.0/24"},
		{"us-west", 45.60, -121.18, "US", "100.66.6.0/24"},
		{"ap-northeast", 35.68, 139.69, "JP", "100.67.7.0/24"},
		{"ap-south", 19.08, 72.88, "IN", "100.68.8.0/24"},
	}
}

// Fleet describes a running lab: what the control API answers, and all that a drill needs to know.
type Fleet struct {
	PID       int      `json:"pid"` // the lab's own process
	Dir       string   `json:"dir"`
	Host      string   `json:"host"`
	Zone      string   `json:"zone"`
	CA        string   `json:"ca"`       // PEM file
	TTL       string   `json:"ttl"`      // of DNS answers
	DNSWait   string   `json:"dns_wait"` // how long a drained region goes on serving before it tells connections to go
	Admin     string   `json:"admin"`    // URL of the admin API of the first node that lives
	HTTPSPort int      `json:"https_port"`
	DNSPort   int      `json:"dns_port"`
	Traffic   Traffic  `json:"traffic"`
	Regions   []Region `json:"regions"`
}

// Traffic counts what became of the lab's own trickle of requests.
type Traffic struct {
	Rate     float64 `json:"rate"` // requests a second from each place
	Requests int     `json:"requests"`
	Retried  int     `json:"retried"` // served at the second try
	Failed   int     `json:"failed"`
}

// NameServers are the region's DNS servers, host:port.
func (f Fleet) NameServers(r Region) []string {
	var out []string
	for _, n := range r.Nodes {
		out = append(out, netip.AddrPortFrom(n.Addr, uint16(f.DNSPort)).String())
	}
	return out
}

// Region is the region of that name.
func (f Fleet) Region(name string) (Region, bool) {
	for _, r := range f.Regions {
		if r.Name == name {
			return r, true
		}
	}
	return Region{}, false
}

// Region is one region of a lab.
type Region struct {
	Name    string         `json:"name"`
	Prefix  netip.Prefix   `json:"prefix"` // where its clients come from
	Client  netip.Addr     `json:"client"` // one of them
	Crowd   netip.Prefix   `json:"crowd"`  // a /16 of further clients of the same place, for drills that need many
	Nodes   []Node         `json:"nodes"`
	Origins []string       `json:"origins"` // URLs
	RTT     map[string]int `json:"rtt_ms"`  // simulated round trip to each other region, milliseconds
	Up      bool           `json:"up"`      // its processes run

	place place
}

// Node is one node of a lab.
type Node struct {
	Name string     `json:"name"`
	Addr netip.Addr `json:"addr"`
	PID  int        `json:"pid"` // 0: not running
}

// Admin is the base URL of the node's admin API.
func (n Node) Admin() string { return fmt.Sprintf("http://%s:%d", n.Addr, adminPort) }

// plan lays out a lab: names, addresses and distances, no more. The addresses are 127.NET.REGION.NODE.
func plan(net, regions, nodes int, rtt func(from, to string) (time.Duration, bool)) Fleet {
	f := Fleet{Host: Host, Zone: Zone, TTL: TTL.String(), DNSWait: dnsWait.String(), Admin: "http://" + AdminAddr(net), HTTPSPort: HTTPSPort, DNSPort: DNSPort}
	for r, p := range places()[:regions] {
		prefix := netip.MustParsePrefix(p.prefix)
		region := Region{Name: p.name, Prefix: prefix, Client: prefix.Addr().Next(), Crowd: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(101 + r), 0, 0}), 16), RTT: map[string]int{}, place: p}
		for n := range nodes {
			region.Nodes = append(region.Nodes, Node{Name: fmt.Sprintf("%s-%d", p.name, n+1), Addr: netip.AddrFrom4([4]byte{127, byte(net), byte(r + 1), byte(n + 1)})})
		}
		for o := range 2 {
			region.Origins = append(region.Origins, fmt.Sprintf("http://127.%d.%d.%d:%d", net, r+1, 201+o, originPort))
		}
		for _, q := range places()[:regions] {
			if q.name == p.name {
				continue
			}
			d, ok := rtt(p.name, q.name)
			if !ok {
				d = distanceRTT(p, q)
			}
			region.RTT[q.name] = int(d.Milliseconds())
		}
		f.Regions = append(f.Regions, region)
	}
	return f
}
