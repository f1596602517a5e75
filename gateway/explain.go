package gateway

import (
	"fmt"
	"math"
	"net/netip"
	"strings"

	"landfall/gateway/admin"
	"landfall/gateway/proxy"
	"landfall/healthcheck"
	"landfall/routing"
	"landfall/routing/dns"
)

// Explain implements admin.Services: the same decision that DNS answers by, with its reasons.
func (b backend) Explain(url string, client netip.Addr) (admin.Explanation, error) {
	n := b.n
	host, path, query, err := n.generation.Load().normalURL(url)
	if err != nil {
		return admin.Explanation{}, admin.Invalid("url", err.Error())
	}
	d, ok := steer{n}.decide(host, client, nil, make([]routing.RTT, len(n.snapshot.Load().Regions)))
	if !ok {
		return admin.Explanation{}, admin.NotFound("host", host, allHosts(n.generation.Load().config))
	}
	e := admin.Explanation{
		URL: url, Host: host, Service: d.service, Mode: d.decision.Mode.String(), ModeText: d.snapshot.ModeText(d.decision.Mode),
		Client: admin.ExplainClient{Country: d.place.Country, Source: "none"},
	}
	if client.IsValid() {
		e.Client.Address = client.String()
	}
	if d.place.Point.Located {
		e.Client.Source = "geoip"
		e.Client.Location = &admin.Location{Lat: d.place.Point.Lat, Lon: d.place.Point.Lon}
	}
	for i, c := range d.decision.Choices {
		r := explainChoice(&d, c, i, i < d.decision.Usable)
		r.Evidence = n.evidence(r.Region, d.service)
		e.Regions = append(e.Regions, r)
	}
	e.Steering = b.explainSteering(d, host, client)
	b.explainDNS(&e, host, client)
	b.explainRoute(&e, d, path, client)
	b.explainHolders(&e, path, query)
	return e, nil
}

// explainSteering tells whether this node would send the client on, by what it asks when a request comes.
func (b backend) explainSteering(d steered, host string, client netip.Addr) *admin.ExplainedSteering {
	c := b.n.generation.Load().config.Services[d.service]
	if c == nil || c.Steering.Redirect == nil || !client.IsValid() || named(c, d.snapshot, host) > 0 {
		return nil
	}
	better, ok := b.n.better(d.service, client)
	if !ok {
		return nil
	}
	r := c.Steering.Redirect
	out := &admin.ExplainedSteering{
		From: b.n.id.region, To: better.Region, Name: r.Names[better.Region], By: r.By, Saves: millis(better.Saves), Must: better.Must,
	}
	out.Sent = out.Name != "" && (better.Must || better.Saves >= r.Detour.D())
	return out
}

// evidence is what the state of a service in a region rests on; where the region itself is down, that.
func (n *Node) evidence(region, service string) string {
	n.building.Lock()
	defer n.building.Unlock()
	if v := n.judging.judge.Verdict(healthcheck.Subject{Region: region}); v.State == routing.Down {
		return v.Evidence
	}
	return n.judging.judge.Verdict(healthcheck.Subject{Region: region, Service: service}).Evidence
}

func explainChoice(d *steered, c routing.Choice, rank int, usable bool) admin.ExplainedRegion {
	s, service := d.snapshot, d.snapshot.Service(d.service)
	r := admin.ExplainedRegion{
		Region: s.Regions[c.Region].Name, Rank: rank + 1, Usable: usable, State: c.State.String(), Reason: c.Reason.String(),
		ReasonText: c.Reason.Text(), DistanceSource: c.Source.String(), Weight: int(c.Weight),
	}
	if km, ok := s.DistanceKM(c.Region, &d.client); ok {
		km = math.Round(km)
		r.DistanceKM = &km
	}
	if ms, ok := c.RTTMillis(); ok {
		ms = math.Round(ms*10) / 10
		r.RTT = &ms
	}
	region, place := s.Regions[c.Region], s.Services[service].Places[c.Region]
	r.Requests, r.Waiting, r.Fit = region.Load, place.Strain.Waiting, place.Strain.Fit
	r.Latency, r.SpillBeyond = math.Round(place.Strain.Stretch*100)/100, math.Round(float64(place.SpillBeyond)/100)/10
	if region.Capacity > 0 {
		load := math.Round(routing.Spill{Fit: place.Strain.Fit}.Ratio(routing.Load{Ratio: region.Load / region.Capacity})*1000) / 1000
		r.Load = &load
	}
	r.Moved, r.Spill = math.Round(max(region.Draining, place.Drained)*1000)/1000, place.Spill
	r.Returning = place.Return
	if !s.Regions[c.Region].Dead {
		for _, node := range s.Regions[c.Region].Nodes {
			r.Nodes = append(r.Nodes, node.Name)
		}
	}
	return r
}

// explainDNS adds what the name servers answer, where the host lies in one of their zones.
func (b backend) explainDNS(e *admin.Explanation, host string, client netip.Addr) {
	c := b.n.generation.Load().config
	if b.n.dns == nil {
		return
	}
	longest := ""
	for zone := range c.DNS.Zones {
		if len(zone) > len(longest) && (host == zone || strings.HasSuffix(host, "."+zone)) {
			longest = zone
		}
	}
	if z, ok := c.DNS.Zones[longest]; ok {
		ans := steer(b).Resolve(nil, host, client, client.IsValid() && client.Unmap().Is6() && b.hasV6(), c.DNS.Answers)
		ttl := dns.TTL(z.MinTTL.D(), z.TTL.D(), ans.Calm)
		e.Answer = &admin.DNSAnswer{TTL: int(ttl.Seconds()), TTLText: b.n.calmOf(e.Service).text(z), Scope: int(ans.Scope)}
		for _, a := range ans.Addrs {
			e.Answer.Addresses = append(e.Answer.Addresses, a.String())
		}
	}
}

// hasV6 tells whether any node has an IPv6 address to answer with.
func (b backend) hasV6() bool {
	for _, r := range b.n.snapshot.Load().Regions {
		for _, node := range r.Nodes {
			for _, a := range node.Addrs {
				if a.Is6() {
					return true
				}
			}
		}
	}
	return false
}

// explainHolders adds whose caches a miss asks.
func (b backend) explainHolders(e *admin.Explanation, path, query string) {
	if e.Route == nil {
		return
	}
	scheme, _, _ := strings.Cut(strings.ToLower(e.URL), "://")
	for _, h := range b.n.generation.Load().proxy.Holders(e.Service, scheme, e.Host, path, query) {
		e.Route.Holders = append(e.Route.Holders, admin.Holder{Role: h[0], Region: h[1], Node: h[2]})
	}
}

// explainCanary is a route's canary as it meets a client.
func explainCanary(p *proxy.Proxy, service string, route int, client netip.Addr) *admin.ExplainedCanary {
	c, side, ok := p.CanaryOf(service, route, client)
	if !ok {
		return nil
	}
	r := c.Config.Rollback
	return &admin.ExplainedCanary{
		To: c.To, Weight: percent(c.Weight), Stopped: c.Stopped, Sticky: c.Config.Sticky, Header: c.Config.Header, Cookie: c.Config.Cookie, Side: side,
		Rules: fmt.Sprintf("after %d requests of each side in %s, when %s sure of %s more failures or %gx the 99th percentile of the latency",
			r.MinRequests, r.Window, r.Confidence, r.ErrorRate, float64(r.LatencyP99)),
	}
}

// explainRoute adds the route and the pool that a GET of the path would meet in the chosen region.
func (b backend) explainRoute(e *admin.Explanation, d steered, path string, client netip.Addr) {
	g, service := b.n.generation.Load(), d.service
	if i, ok := g.proxy.RouteOf(d.service, "GET", path); ok {
		r := g.config.Services[d.service].Routes[i]
		match := r.Match.Path
		if r.To != "" {
			service = r.To
		}
		if len(r.Match.Methods) > 0 {
			match = strings.Join(r.Match.Methods, ",") + " " + match
		}
		e.Route = &admin.ExplainedRoute{Index: i, Match: match, Cache: cachePolicyText(r.Cache)}
		e.Route.Canary = explainCanary(g.proxy, d.service, i, client)
	}
	if d.decision.Usable == 0 {
		return
	}
	region := d.snapshot.Regions[d.decision.Choices[0].Region].Name
	pool, ok := g.config.PoolFor(service, region)
	if !ok {
		return
	}
	e.Pool = &admin.ExplainedPool{Region: region}
	if region == b.n.id.region {
		e.Pool.Origins = b.origins(service)
		return
	}
	e.Pool.Origins = b.remoteOrigins(service, region, pool)
}
