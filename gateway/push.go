package gateway

import (
	"context"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"

	"landfall/configs"
	"landfall/gateway/admin"
	"landfall/gateway/proxy"
	"landfall/routing"
	"landfall/routing/dns/push"
	"landfall/routing/mesh"
)

// pushes are the pushers of this node, by target. They run while dns.push stays as it is.
type pushes struct {
	reloaded chan struct{}

	mu      sync.Mutex
	running map[string]*push.Pusher
}

// runPushes runs a pusher for each target of dns.push until ctx ends, and starts over when a reload has changed them.
func (n *Node) runPushes(ctx context.Context) error {
	select {
	case <-n.joined: // before that it knows no addresses
	case <-ctx.Done():
		return nil
	}
	for ctx.Err() == nil {
		n.runTargets(ctx, n.generation.Load().config.DNS.Push)
	}
	return nil
}

// runTargets runs until ctx ends or the targets are no longer those of the config.
func (n *Node) runTargets(ctx context.Context, targets map[string]*configs.DNSPush) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	running := map[string]*push.Pusher{}
	for name, t := range targets {
		p := push.New(push.Options{
			Target: name, Zone: t.Zone, Provider: push.RFC2136(t.RFC2136), TTL: t.TTL.D(), Interval: t.Interval.D(),
			Elected: func() (string, bool) { return n.elected(name) },
			Wanted:  func() []push.Name { return n.pushedNames(t) },
			OnEvent: n.event, Logger: n.log, Metrics: n.metrics.push, Now: n.o.Now,
		})
		running[name] = p
		all.Go(func() { p.Run(ctx) })
	}
	n.setPushes(running)
	defer n.setPushes(nil)
	defer all.Wait()
	defer cancel()
	for reflect.DeepEqual(targets, n.generation.Load().config.DNS.Push) {
		select {
		case <-n.pushes.reloaded:
		case <-ctx.Done():
			return
		}
	}
}

func (n *Node) setPushes(running map[string]*push.Pusher) {
	n.pushes.mu.Lock()
	defer n.pushes.mu.Unlock()
	n.pushes.running = running
}

// reloadPushes tells that there is a new config.
func (n *Node) reloadPushes() {
	select {
	case n.pushes.reloaded <- struct{}{}:
	default:
	}
}

// elected is the node that pushes to a target: of those that serve and say that their config has the target, the first by
// name, but sooner one that did not fail lately. Every node elects by itself, so while the fleet is cut in two each side has one; a node that reaches less than half
// of the fleet elects nobody, since the others may still serve.
func (n *Node) elected(target string) (node string, self bool) {
	members := n.picture.Load().members
	total, reached, troubled := 0, 0, false
	for _, m := range members {
		if m.State == mesh.Leaving {
			continue
		}
		total++
		if !m.Self && !(m.State != mesh.Dead && m.Reachable) {
			continue
		}
		reached++
		if m.State != mesh.Serving || !m.fresh || !slices.Contains(m.report.Push, target) {
			continue
		}
		fails := slices.Contains(m.report.PushTrouble, target)
		if node == "" || troubled && !fails || troubled == fails && m.Name < node {
			node, self, troubled = m.Name, m.Self, fails
		}
	}
	if reached*2 < total {
		return "", false
	}
	return node, self
}

// pushTargets are the targets that this node's config has, sorted.
func (n *Node) pushTargets() []string {
	return slices.Sorted(maps.Keys(n.generation.Load().config.DNS.Push))
}

// pushTrouble are those of them that this node failed to push to lately, sorted.
func (n *Node) pushTrouble() (out []string) {
	n.pushes.mu.Lock()
	defer n.pushes.mu.Unlock()
	for _, target := range slices.Sorted(maps.Keys(n.pushes.running)) {
		if n.pushes.running[target].Troubled() {
			out = append(out, target)
		}
	}
	return out
}

// pushedNames are the hosts in a target's zone with the addresses that they should have there.
func (n *Node) pushedNames(t *configs.DNSPush) []push.Name {
	c, s := n.generation.Load().config, n.snapshot.Load()
	var out []push.Name
	for _, name := range proxy.ServiceNames(c) {
		service := s.Service(name)
		if service < 0 {
			continue // a reload swaps the config a moment before the snapshot
		}
		for _, host := range pushedHosts(c.Services[name], t.Zone) {
			addrs := everyonesAddresses(s, service, named(c.Services[name], s, host), t.Addresses)
			out = append(out, push.Name{Host: host, Addrs: addrs})
		}
	}
	return out
}

// pushedHosts are a service's hosts in a zone, with the names of its own that lead to one region: a wildcard may cover
// them, and would lead them anywhere.
func pushedHosts(service *configs.Service, zone string) (out []string) {
	hosts := slices.Clone(service.Hosts)
	if r := service.Steering.Redirect; r != nil {
		hosts = slices.AppendSeq(hosts, maps.Values(r.Names))
	}
	for _, host := range hosts {
		if host = strings.ToLower(host); host == zone || strings.HasSuffix(host, "."+zone) {
			out = append(out, host)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// everyonesAddresses are up to count addresses of each family for a record that is the same for every client: of all
// regions that are up and of which no drain has moved most clients, or, where there are none, of those that a client of
// whom nothing is known would be answered. A record by the name of one region (its index plus one; 0: none) has that
// region's alone while it is such a one.
func everyonesAddresses(s *routing.Snapshot, service, name, count int) []netip.Addr {
	d := s.Decide(nil, service, routing.Client{Named: name})
	sure := d
	sure.Choices = nil
	for _, c := range d.Choices[:d.Usable] {
		moved := max(s.Regions[c.Region].Draining, s.Services[service].Places[c.Region].Drained)
		if c.State != routing.Up || moved >= mostMoved {
			continue
		}
		if c.Region == name-1 {
			sure.Choices = []routing.Choice{c}
			break
		}
		sure.Choices = append(sure.Choices, c)
	}
	if sure.Usable = len(sure.Choices); sure.Usable > 0 {
		d = sure
	}
	return append(s.Addresses(nil, d, 0, false, count), s.Addresses(nil, d, 0, true, count)...)
}

// mostMoved is the share of a gradual drain from which a region is no longer in records that can't have shares.
const mostMoved = 0.5

// pushStatus is what people are told of the targets, sorted by name.
func (n *Node) pushStatus() []admin.DNSPush {
	n.pushes.mu.Lock()
	running := maps.Clone(n.pushes.running)
	n.pushes.mu.Unlock()
	c := n.generation.Load().config
	var out []admin.DNSPush
	for _, name := range slices.Sorted(maps.Keys(running)) {
		t := c.DNS.Push[name]
		if t == nil {
			continue // a reload has taken it away, and it is about to end
		}
		s := running[name].Status()
		out = append(out, admin.DNSPush{
			Target: name, Zone: t.Zone, Node: s.Node, Self: s.Self, Pending: s.Pending, Kept: s.Kept,
			LastPush: s.LastPush, Error: s.Error,
		})
	}
	return out
}
