package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"landfall/configs"
	"landfall/gateway/admin"
	"landfall/gateway/certs"
	"landfall/gateway/proxy"
	"landfall/routing"
	"landfall/routing/mesh"
)

// backend is the node as the admin API sees it. Everything is answered from the snapshot and the picture of its moment.
type backend struct{ n *Node }

var _ admin.Backend = backend{}

// Status implements admin.Fleet.
func (b backend) Status() admin.Status {
	n := b.n
	c, s := n.generation.Load().config, n.snapshot.Load()
	st := admin.Status{
		Fleet: c.Fleet, Node: n.id.name, Region: n.id.region, Version: n.o.Version, ConfigHash: c.Hash,
		State: string(n.state.Load().(mesh.NodeState)), Uptime: admin.Duration(n.o.Now().Sub(n.started).Truncate(time.Second)),
		RequestsPerSecond: n.requests.value(), SplitConfig: len(b.hashes()) > 1,
		DNSPush: n.pushStatus(),
	}
	st.Ready, st.NotReady = b.Ready()
	st.Faults = len(n.faults())
	for i := range s.Regions {
		st.Regions = append(st.Regions, b.summary(i))
	}
	for i := range s.Services {
		st.Panic = st.Panic || s.Decide(nil, i, routing.Client{}).Mode == routing.PanicMode
	}
	return st
}

// summary is region i of the snapshot in one line.
func (b backend) summary(i int) admin.RegionSummary {
	s, pic := b.n.snapshot.Load(), b.n.picture.Load()
	r := s.Regions[i]
	sum := admin.RegionSummary{
		Name: r.Name, State: routing.Up.String(), NodesLive: pic.facts[i].live, NodesTotal: pic.facts[i].total, Drained: r.Drained,
		Services: admin.Map[string]{}, RTT: regionRTT(pic.members, r.Name),
	}
	if sum.RTT == 0 {
		sum.RTT = estimatedRTT(pic.members, r.Name)
		sum.Estimated = sum.RTT > 0
	}
	worst := routing.Up
	for k := range s.Services {
		st, ok := s.State(k, i)
		if !ok {
			continue
		}
		sum.Services[s.Services[k].Name] = st.String()
		worst = max(worst, st)
	}
	if r.Dead {
		worst = routing.Down
	} else if r.Drained {
		worst = routing.Draining
	}
	sum.State = worst.String()
	return sum
}

// regionRTT is the smallest round trip to a live node of a region, in milliseconds.
func regionRTT(members []member, region string) float64 {
	best := time.Duration(0)
	for _, m := range members {
		if m.Region == region && !m.Self && m.Reachable && m.RTT > 0 && (best == 0 || m.RTT < best) {
			best = m.RTT
		}
	}
	return millis(best)
}

func millis(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

// Regions implements admin.Fleet.
func (b backend) Regions() []admin.Region {
	s, pic := b.n.snapshot.Load(), b.n.picture.Load()
	var out []admin.Region
	for i, r := range s.Regions {
		reg := admin.Region{RegionSummary: b.summary(i), Self: r.Name == b.n.id.region, Reason: pic.facts[i].evidence}
		if r.Location.Located {
			reg.Location = &admin.Location{Lat: r.Location.Lat, Lon: r.Location.Lon}
		}
		for _, m := range pic.members {
			if m.Region == r.Name {
				reg.Nodes = append(reg.Nodes, m.Name)
			}
		}
		slices.Sort(reg.Nodes)
		if r.Dead && reg.Reason == "" {
			reg.Reason = routing.NoNode.Text()
		}
		for _, d := range pic.drains {
			if d.Kind == kindRegion && d.Name == r.Name {
				shown := drainShown(d, b.n.o.Now())
				reg.Drain = &shown
			}
		}
		out = append(out, reg)
	}
	return out
}

// Nodes implements admin.Fleet.
func (b backend) Nodes() []admin.Node {
	pic := b.n.picture.Load()
	var out []admin.Node
	for _, m := range pic.members {
		node := admin.Node{
			Name: m.Name, Region: m.Region, State: string(m.State), Reachable: m.Reachable, Version: m.Version, ConfigHash: m.ConfigHash,
			RTT: millis(m.RTT), LastSeen: m.LastSeen, Self: m.Self,
			Drained: slices.ContainsFunc(pic.drains, func(d Drain) bool {
				return d.Kind == kindNode && d.Name == m.Name || d.Kind == kindRegion && d.Name == m.Region
			}),
		}
		for _, a := range m.Addrs {
			node.Addresses = append(node.Addresses, a.String())
		}
		out = append(out, node)
	}
	return out
}

// Config implements admin.Fleet.
func (b backend) Config() admin.ConfigInfo {
	last := b.n.lastReload.Load()
	info := admin.ConfigInfo{Hash: b.n.generation.Load().config.Hash, File: b.n.o.ConfigFile, Loaded: last.at, LastError: last.err, Hashes: b.hashes()}
	info.Split = len(info.Hashes) > 1
	return info
}

// hashes are the configs that live nodes run, by hash.
func (b backend) hashes() []admin.ConfigHolder {
	var out []admin.ConfigHolder
	for _, m := range b.n.picture.Load().members {
		if !m.here() {
			continue
		}
		i := slices.IndexFunc(out, func(h admin.ConfigHolder) bool { return h.Hash == m.ConfigHash })
		if i < 0 {
			i = len(out)
			out = append(out, admin.ConfigHolder{Hash: m.ConfigHash})
		}
		out[i].Nodes = append(out[i].Nodes, m.Name)
	}
	return out
}

// Services implements admin.Services.
func (b backend) Services() []admin.Service {
	c, s := b.n.generation.Load().config, b.n.snapshot.Load()
	var out []admin.Service
	for k, svc := range s.Services {
		item := admin.Service{Name: svc.Name, Hosts: c.Services[svc.Name].Hosts}
		for i, r := range s.Regions {
			if st, ok := s.State(k, i); ok {
				item.Regions = append(item.Regions, admin.ServiceRegion{Region: r.Name, State: st.String()})
			}
		}
		out = append(out, item)
	}
	return out
}

// Pools implements admin.Services. Of other regions' origins this node knows what their nodes report: the verdict.
func (b backend) Pools(service string) ([]admin.Pool, error) {
	g, s := b.n.generation.Load(), b.n.snapshot.Load()
	k := s.Service(service)
	var out []admin.Pool
	for i, r := range s.Regions {
		pool, ok := g.config.PoolFor(service, r.Name)
		if !ok || k < 0 {
			continue
		}
		p := admin.Pool{Region: r.Name, State: s.Services[k].Places[i].Pool.String()}
		if own := g.pools[service]; r.Name == b.n.id.region && own != nil {
			status := own.Status()
			p.Panic, p.Breaker, p.Forced, p.Balance = status.Panic, status.Breaker, status.Forced, status.Balance
			p.Origins = b.origins(service)
		} else {
			p.Origins = b.remoteOrigins(service, r.Name, pool)
		}
		out = append(out, p)
	}
	return out, nil
}

// origins are this region's origins of a service, with what this node found.
func (b backend) origins(service string) []admin.Origin {
	pool := b.n.generation.Load().pools[service]
	if pool == nil {
		return nil
	}
	results := b.n.checker.Results()
	var out []admin.Origin
	for _, o := range pool.Status().Origins {
		shown := admin.Origin{
			URL: o.URL, State: o.State.String(), Breaker: o.Breaker, Forced: o.Forced, Ejected: o.Ejected, Drained: o.Drained,
			InFlight: o.InFlight, Limit: o.Limit, Weight: o.Weight, Share: o.Share, Detail: o.LastFailure,
		}
		for _, r := range results {
			if r.Service == service && r.Origin == o.URL {
				shown.Detail, shown.LastProbe = r.Detail, r.Last
			}
		}
		out = append(out, shown)
	}
	return out
}

// remoteOrigins are another region's origins, as its nodes report them.
func (b backend) remoteOrigins(service, region string, pool configs.Pool) []admin.Origin {
	var out []admin.Origin
	for _, url := range b.lookedUp(service, region, pool) {
		o := admin.Origin{URL: url, State: routing.Unknown.String(), Detail: "no node of " + region + " has told yet"}
		for _, m := range b.n.picture.Load().members {
			state, told := m.report.Origins[service][url]
			if m.Region == region && m.fresh && told {
				o.State, o.Detail = state, "as "+m.Name+" sees it"
			}
		}
		out = append(out, o)
	}
	return out
}

// Cache implements admin.Local.
func (b backend) Cache() admin.CacheStats {
	st := b.n.cache.Stats()
	out := admin.CacheStats{
		Node: b.n.id.name, Enabled: st.MaxBytes > 0, Objects: st.Objects, Bytes: st.Bytes, MaxBytes: st.MaxBytes,
		Hits: uint64(st.Hits), Misses: uint64(st.Misses), Evictions: uint64(st.Evictions), Sources: b.n.sources(),
	}
	if d := st.Disk; d != nil {
		out.Disk = &admin.CacheDisk{Objects: d.Records, Bytes: d.Bytes, MaxBytes: d.MaxBytes, Evictions: uint64(d.Evicted), Corrupt: uint64(d.Corrupt), Down: d.Down}
	}
	if total := out.Hits + out.Misses; total > 0 {
		out.HitRatio = float64(out.Hits) / float64(total)
	}
	return out
}

// Certs implements admin.Local. The node's own certificate, by which the other nodes know it, is the last.
func (b backend) Certs() []admin.Cert {
	var out []admin.Cert
	if b.n.certs != nil {
		for _, i := range b.n.certs.Infos() {
			out = append(out, certShown(i))
		}
	}
	if b.n.creds != nil {
		own := certShown(b.n.creds.Info())
		if err := b.n.creds.Err(); err != nil {
			own.Error = err.Error()
		}
		out = append(out, own)
	}
	return out
}

func certShown(i certs.Info) admin.Cert {
	source := "file"
	if i.Source == "acme" {
		source = "acme"
	}
	return admin.Cert{Names: i.Names, Issuer: i.Issuer, Source: source, NotBefore: i.NotBefore, NotAfter: i.NotAfter}
}

// Ready implements admin.Local.
func (b backend) Ready() (bool, []string) {
	switch s := b.n.state.Load().(mesh.NodeState); s {
	case mesh.Serving:
		return true, nil
	case mesh.Joining:
		why := "the node has not joined the fleet and merged its registers yet"
		if b.n.mesh != nil && b.n.mesh.Waiting() != "" {
			why += "; it waits for " + b.n.mesh.Waiting()
		}
		return false, []string{why}
	case mesh.Draining:
		return false, []string{"the node or its region is drained"}
	default:
		return false, []string{"the node is " + string(s)}
	}
}

// Drains implements admin.Drains.
func (b backend) Drains() []admin.Drain {
	var out []admin.Drain
	for _, d := range drainsIn(b.n.fleet.Registers(drainPrefix), b.n.o.Now()) {
		out = append(out, drainShown(d, b.n.o.Now()))
	}
	return out
}

func drainShown(d Drain, now time.Time) admin.Drain {
	return admin.Drain{DrainTarget: admin.DrainTarget{Kind: d.Kind, Name: d.Name}, Reason: d.Reason, By: d.By, Since: d.Since, Expires: d.Until,
		Over: admin.Duration(d.Over), Moved: math.Round(d.share(now)*1000) / 1000}
}

// SetDrain implements admin.Drains.
func (b backend) SetDrain(ctx context.Context, target admin.DrainTarget, spec *admin.DrainSpec, by string) (admin.DrainResult, error) {
	n, now := b.n, b.n.o.Now()
	d := Drain{Kind: target.Kind, Name: target.Name, By: by, Since: now.UTC()}
	was := slices.ContainsFunc(drainsIn(n.fleet.Registers(drainPrefix), now), func(o Drain) bool { return o.key() == d.key() })
	res := admin.DrainResult{DrainTarget: target, Drained: spec != nil, Changed: was != (spec != nil)}
	var value json.RawMessage
	ttl := time.Duration(0)
	if spec != nil {
		d.Reason, d.Over = spec.Reason, spec.Over.D()
		if spec.For > 0 {
			ttl = spec.For.D()
			d.Until = now.Add(ttl).UTC()
		}
		left := ""
		if d.Kind == kindOrigin {
			left = n.originLeft(d)
		} else {
			left = n.leftWithout(n.after(d, nil), "draining "+d.Kind+" "+d.Name)
		}
		if left != "" && !spec.Force {
			return res, admin.Refused(left)
		}
		var err error
		if value, err = json.Marshal(d); err != nil {
			return res, err
		}
		shown := drainShown(d, now)
		res.Drain = &shown
	}
	ack, err := n.fleet.Set(ctx, d.key(), value, ttl)
	if err != nil {
		return res, fmt.Errorf("the drain could not be made durable, so nothing was changed: %w", err)
	}
	res.Applied, res.Missing = ack.Applied, ack.Missing
	n.rebuild()
	n.followOrders()
	return res, nil
}

// cachePolicyText says a route's cache policy in words.
func cachePolicyText(c *configs.RouteCache) string {
	if c == nil {
		return "on"
	}
	if c.Off {
		return "off"
	}
	text := "on, as the response's headers say"
	if c.TTL != nil {
		text = "on, ttl " + c.TTL.String() + " where the response has none"
	}
	if c.StaleWhileRevalidate != nil {
		text += ", stale_while_revalidate " + c.StaleWhileRevalidate.String()
	}
	if c.StaleIfError != nil {
		text += ", stale_if_error " + c.StaleIfError.String()
	}
	if c.RangeFill {
		text += ", range_fill"
	}
	return text
}

var _ proxy.Purger = (*Node)(nil)
