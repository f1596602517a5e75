package gateway

import (
	"net/netip"

	"landfall/gateway/proxy"
	"landfall/routing"
	"landfall/routing/dns"
	"landfall/routing/geo"
)

// steer answers DNS from the routing snapshot. explain asks it as well, so that what it tells is what DNS answers.
type steer struct{ n *Node }

// steered is an answer with all that led to it.
type steered struct {
	client   routing.Client
	place    geo.Place
	snapshot *routing.Snapshot
	decision routing.Decision
	service  string
}

// decide runs the decision for a client of a host.
func (s steer) decide(host string, client netip.Addr, buf []routing.Choice, rtts []routing.RTT) (steered, bool) {
	service, ok := s.n.generation.Load().proxy.ServiceOf(host)
	if !ok {
		return steered{}, false
	}
	out := steered{service: service, snapshot: s.n.snapshot.Load()}
	index := out.snapshot.Service(service)
	if index < 0 {
		return steered{}, false // a reload swaps the routes a moment before the snapshot
	}
	out.client, out.place = locate(s.n.geo, client)
	out.client.Via = out.snapshot.Region(s.n.id.region) + 1
	out.client.RTT = s.n.rttOf(rtts, out.snapshot, client)
	out.client.Explore = s.n.explores(s.n.generation.Load().config, out.client.Key)
	out.decision = out.snapshot.Decide(buf, index, out.client)
	return out, true
}

// locate is what a decision needs of a client. The place is that of the client's prefix, so that all addresses of a
// prefix, and a resolver that sends only the prefix, get one answer.
func locate(db *geo.DB, client netip.Addr) (routing.Client, geo.Place) {
	if !client.IsValid() {
		return routing.Client{}, geo.Place{}
	}
	place, _ := db.Lookup(routing.ClientPrefix(client).Addr())
	return routing.Client{Point: place.Point, Key: routing.ClientKey(client), Country: routing.CountryOf(place.Country)}, place
}

// Resolve implements dns.Steer.
func (s steer) Resolve(host string, client netip.Addr, v6 bool, count int) dns.Answer {
	var buf [proxy.MaxRegions]routing.Choice
	var rtts [proxy.MaxRegions]routing.RTT
	d, ok := s.decide(host, client, buf[:0], rtts[:])
	if !ok {
		return dns.Answer{}
	}
	a := dns.Answer{Known: true, Calm: s.n.calmOf(d.service).age, Scope: scopeOf(d.snapshot, d.decision, client)}
	if d.decision.Usable > 0 {
		a.Region = d.snapshot.Regions[d.decision.Choices[0].Region].Name
		if from, ok := d.decision.SpilledFrom(); ok {
			s.n.metrics.node.spilled.WithLabelValues(d.snapshot.Regions[from].Name, a.Region).Inc()
		}
	}
	a.Addrs = d.snapshot.Addresses(make([]netip.Addr, 0, count), d.decision, d.client.Key, v6, count)
	return a
}

// scopeOf is how many bits of the client's address the answer depends on (RFC 7871 section 7.1.1): none where it would be
// the same for everyone, else those of the prefix that the decision is made by.
func scopeOf(s *routing.Snapshot, d routing.Decision, client netip.Addr) uint8 {
	if !client.IsValid() || d.Usable == 0 || d.Usable == 1 && len(s.Regions[d.Choices[0].Region].Nodes) <= 1 {
		return 0
	}
	return uint8(routing.ClientPrefix(client).Bits())
}

// glue are the addresses of live nodes, going round the regions.
func (n *Node) glue() []netip.Addr {
	s := n.snapshot.Load()
	var out []netip.Addr
	for rank := 0; ; rank++ {
		more := false
		for _, r := range s.Regions {
			if rank < len(r.Nodes) && (!r.Dead || allDead(s)) {
				more = true
				out = append(out, r.Nodes[rank].Addrs...)
			}
		}
		if !more {
			return out
		}
	}
}

func allDead(s *routing.Snapshot) bool {
	for _, r := range s.Regions {
		if !r.Dead {
			return false
		}
	}
	return true
}
