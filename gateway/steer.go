package gateway

import (
	"net"
	"net/netip"
	"time"

	"landfall/configs"
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
	out.client.Named = named(s.n.generation.Load().config.Services[service], out.snapshot, host)
	out.client.Explore = s.n.explores(s.n.generation.Load().config, out.client.Key)
	out.decision = out.snapshot.Decide(buf, index, out.client)
	return out, true
}

// named is the region whose own name a host is, by the service's steering.redirect, plus one; 0: none.
func named(c *configs.Service, s *routing.Snapshot, host string) int {
	if c == nil || c.Steering.Redirect == nil {
		return 0
	}
	for region, name := range c.Steering.Redirect.Names {
		if name == host {
			return s.Region(region) + 1
		}
	}
	return 0
}

// steerBy lets the handler chain send clients on.
func (n *Node) steerBy(o *proxy.Options, c *configs.Config) {
	o.Better, o.ToldRTT = n.better, n.toldRTT
	if len(c.Listen.HTTPS) > 0 {
		_, o.AltSvcPort, _ = net.SplitHostPort(c.Listen.HTTPS[0])
		o.AltSvcH3 = c.Listen.HTTP3
	}
}

// better tells of a region that a client of a service should rather be in than in this one: by the decision that DNS would
// have answered by, had it known the client. Only an ordinary decision for a region that is up counts, and only distances
// that are the client's own.
func (n *Node) better(service string, client netip.Addr) (proxy.Better, bool) {
	s := n.snapshot.Load()
	index, self := s.Service(service), s.Region(n.id.region)
	if index < 0 || self < 0 {
		return proxy.Better{}, false
	}
	c, _ := locate(n.geo, client)
	if n.explores(n.generation.Load().config, c.Key) {
		return proxy.Better{}, false // it may be here to learn how far it is
	}
	var buf [proxy.MaxRegions]routing.Choice
	var rtts [proxy.MaxRegions]routing.RTT
	c.RTT = n.rttOf(rtts[:], s, client)
	d := s.Decide(buf[:0], index, c)
	if d.Usable == 0 || d.Mode != routing.Normal {
		return proxy.Better{}, false
	}
	first := d.Choices[0]
	if first.Region == self || first.State != routing.Up || first.Reason != routing.Chosen {
		return proxy.Better{}, false
	}
	b := proxy.Better{Region: s.Regions[first.Region].Name, Must: s.Forbidden(index, self, c.Country)}
	near, ok := first.RTTMillis()
	for _, ch := range d.Choices {
		if far, known := ch.RTTMillis(); ch.Region == self && known && ok {
			b.Saves = time.Duration((far - near) * float64(time.Millisecond))
		}
	}
	return b, b.Must || b.Saves > 0
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
func (s steer) Resolve(room []netip.Addr, host string, client netip.Addr, v6 bool, count int) dns.Answer {
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
	a.Addrs = d.snapshot.Addresses(room, d.decision, d.client.Key, v6, count)
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
