package routing

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"strings"
)

// NewSnapshot prepares s for deciding. Regions and services must be sorted by name and each service must have one place a
// region; that is the caller's to see to. s must not be changed afterwards.
func NewSnapshot(s Snapshot) *Snapshot {
	s.vectors = make([]vector, len(s.Regions))
	s.hashes = make([]uint64, len(s.Regions))
	for i, r := range s.Regions {
		s.vectors[i] = r.Location.vector()
		s.hashes[i] = hashString(r.Name)
	}
	s.around = newAround(s.vectors)
	s.ready = make([]ready, len(s.Services))
	for i := range s.Services {
		s.ready[i] = s.prepare(&s.Services[i])
	}
	return &s
}

// State is what is known of a service in a region, both by index, whoever the client is: draining as soon as any client is
// moved away. ok is false when the service has no pool there.
func (s *Snapshot) State(service, region int) (state State, ok bool) {
	ch, p := &s.ready[service].choices[region], &s.Services[service].Places[region]
	if ch.tier <= lastUsable && (s.Regions[region].Draining > 0 || p.Drained > 0) {
		return Draining, true
	}
	return ch.State, ch.tier != tierNoPool
}

// Region finds a region by name, or -1.
func (s *Snapshot) Region(name string) int {
	i, ok := slices.BinarySearchFunc(s.Regions, name, func(r Region, n string) int { return strings.Compare(r.Name, n) })
	if !ok {
		return -1
	}
	return i
}

// Service finds a service by name, or -1.
func (s *Snapshot) Service(name string) int {
	i, ok := slices.BinarySearchFunc(s.Services, name, func(v Service, n string) int { return strings.Compare(v.Name, n) })
	if !ok {
		return -1
	}
	return i
}

// Addresses appends up to n addresses of one family to dst for the decision d: one of the best region's nodes, then one
// of each next candidate's, then further nodes of the same regions. Clients use the later ones as their own fallback, so
// while an up region exists the second address is of one, even when panic put a doubtful region first. Which node of a
// region comes first depends on the client's key, so that the clients spread over the nodes and stay with them.
func (s *Snapshot) Addresses(dst []netip.Addr, d Decision, key uint64, v6 bool, n int) []netip.Addr {
	candidates := d.Choices[:d.Usable]
	end := len(dst) + n
	for rank, more := 0, true; more; rank++ {
		more = false
		for _, sure := range [...]bool{true, false} {
			for i := range candidates {
				if len(dst) == end {
					return dst
				}
				more = more || rank+1 < len(s.Regions[candidates[i].Region].Nodes)
				first := rank == 0 && i == 0
				if (first || candidates[i].State == Up) != sure {
					continue
				}
				if a, ok := s.address(candidates[i].Region, key, v6, rank); ok {
					dst = append(dst, a)
				}
			}
		}
	}
	return dst
}

// address is the address of the rank-th node of a region for a client: the nodes are rotated by the client's key.
func (s *Snapshot) address(region int, key uint64, v6 bool, rank int) (netip.Addr, bool) {
	nodes := s.Regions[region].Nodes
	if rank >= len(nodes) {
		return netip.Addr{}, false
	}
	for _, a := range nodes[(FirstNode(key, len(nodes))+rank)%len(nodes)].Addrs {
		if a.Is6() == v6 {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// FirstNode is the index of the node, of n in a region, that a client goes to first: clients spread over the nodes and
// stay with theirs. n must be above 0.
func FirstNode(key uint64, n int) int { return int(mix(key) % uint64(n)) }

// ClientPrefix is the part of a client's address that a decision may depend on: /24 for IPv4 and /48 for IPv6.
func ClientPrefix(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	bits := 24
	if a.Is6() {
		bits = 48
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// ClientKey is the stable hash of a client's prefix. It is the same on every node and in every version, since all nodes
// must give one client the same answer.
func ClientKey(a netip.Addr) uint64 {
	b := ClientPrefix(a).Addr().As16()
	return mix(mix(binary.BigEndian.Uint64(b[:8])) ^ binary.BigEndian.Uint64(b[8:]))
}

// mix is the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// hashString is FNV-1a, 64 bits.
func hashString(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// vector is a unit vector from the Earth's centre; the cosine of the angle between two places is their dot product, which
// orders distances without trigonometry.
type vector struct {
	x, y, z float64
	located bool // else there is no such place, and the rest is 0
}

func (p Point) vector() vector {
	if !p.Located {
		return vector{}
	}
	sinLat, cosLat := math.Sincos(p.Lat * math.Pi / 180)
	sinLon, cosLon := math.Sincos(p.Lon * math.Pi / 180)
	return vector{cosLat * cosLon, cosLat * sinLon, sinLat, true}
}

func (v vector) dot(w vector) float64 { return v.x*w.x + v.y*w.y + v.z*w.z }

// earthRadiusKM is the mean radius of the Earth (IUGG).
const earthRadiusKM = 6371.0088
