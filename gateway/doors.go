package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"landfall/configs"
	"landfall/gateway/proxy"
	"landfall/healthcheck"
	"landfall/routing"
	"landfall/routing/mesh"
)

// doorSaid is what an observer tells the fleet of a front door. Nothing in it changes while the state stays, so that
// telling it costs nothing then.
type doorSaid struct {
	State  string `json:"s"`           // up or down
	Since  int64  `json:"t"`           // Unix milliseconds
	Detail string `json:"d,omitempty"` // why it is down
}

// doorsSaid is what an observer tells, by region and service. What it has no opinion on is left out.
type doorsSaid map[string]map[string]doorSaid

// doorFinding is what the fleet's observers find of a front door together.
type doorFinding struct {
	state     routing.State
	evidence  string
	sightings []healthcheck.Sighting
}

// observers is this node's part in looking at other regions as clients do. It belongs to watch.
type observers struct {
	doors     *healthcheck.Doors
	passes    *healthcheck.Passes
	published []byte
	suspect   bool
}

// run asks front doors until ctx ends.
func (o *observers) run(ctx context.Context) error { return o.doors.Run(ctx) }

// followDoors looks at those front doors that are this node's share, and tells the fleet what it sees.
func (n *Node) followDoors() {
	if n.mesh == nil {
		return
	}
	h := n.generation.Load().config.Health
	n.observers.doors.Update(healthcheck.DoorPolicy{
		Interval: h.FrontDoors.Interval.D(), Timeout: h.FrontDoors.Timeout.D(), Rise: h.FrontDoors.Rise, Fall: h.FrontDoors.Fall, Distrust: float64(h.Panic),
	}, n.doorsToWatch())
	sights, suspect := n.observers.doors.Sights()
	if (suspect != "") != n.observers.suspect {
		if n.observers.suspect = suspect != ""; n.observers.suspect {
			n.event("observer.withholds", n.id.name, suspect)
		} else {
			n.event("observer.back", n.id.name, "the front doors of other regions answer it again, and its word on them counts")
		}
	}
	said := doorsTold(sights)
	if bytes.Equal(said, n.observers.published) {
		return
	}
	if err := n.mesh.PublishSights(said); err != nil {
		n.log.Error("what this node sees of other regions' front doors can't be told", "error", err)
	}
	n.observers.published = said
}

// doorsTold is sights as they travel; without the reasons where they would not fit.
func doorsTold(sights []healthcheck.DoorSight) []byte {
	for _, detailed := range []bool{true, false} {
		said := doorsSaid{}
		for _, s := range sights {
			if s.State != routing.Up && s.State != routing.Down {
				continue
			}
			if said[s.Region] == nil {
				said[s.Region] = map[string]doorSaid{}
			}
			d := doorSaid{State: s.State.String(), Since: s.Since.UnixMilli()}
			if s.State == routing.Down && detailed {
				d.Detail = s.Detail
			}
			said[s.Region][s.Service] = d
		}
		if len(said) == 0 {
			return nil
		}
		if b, err := json.Marshal(said); err == nil && len(b) <= mesh.MaxReport {
			return b
		}
	}
	return nil
}

// doorsToWatch are the front doors that are this node's to look at: of every other region that has a live node, for each
// service there, spread over the nodes of this region that serve.
func (n *Node) doorsToWatch() []healthcheck.Door {
	c, s := n.generation.Load().config, n.snapshot.Load()
	self := s.Region(n.id.region)
	if self < 0 || n.state.Load().(mesh.NodeState) != mesh.Serving {
		return nil
	}
	var home []string
	for _, node := range s.Regions[self].Nodes {
		home = append(home, node.Name)
	}
	var out []healthcheck.Door
	for i, r := range s.Regions {
		if i == self || r.Dead {
			continue // that a region has no live node is the mesh's finding
		}
		for _, svc := range s.Services {
			if !svc.Places[i].HasPool || !slices.Contains(healthcheck.Observers(r.Name, svc.Name, home, c.Health.FrontDoors.Observers), n.id.name) {
				continue
			}
			d := healthcheck.Door{Region: r.Name, Service: svc.Name}
			d.Host, d.TLS, d.Port = doorOf(c, svc.Name, n.hasCert)
			for _, node := range r.Nodes {
				d.Nodes = append(d.Nodes, healthcheck.DoorNode{Name: node.Name, Addrs: firstOfEach(node.Addrs, n.id.addrs)})
			}
			out = append(out, d)
		}
	}
	return out
}

// doorOf is how a client of a service comes: the host to ask for, whether by TLS, and the port; no host where there is no
// way in.
func doorOf(c *configs.Config, service string, hasCert func(string) bool) (host string, secure bool, port uint16) {
	secured, plain := portOf(c.Listen.HTTPS), portOf(c.Listen.HTTP)
	var hosts []string
	for _, h := range c.Services[service].Hosts {
		switch {
		case h == "*":
			h = "front-door.invalid"
		case strings.HasPrefix(h, "*."):
			h = "front-door" + h[1:]
		}
		hosts = append(hosts, strings.ToLower(h))
	}
	for _, h := range hosts {
		if secured > 0 && hasCert(h) {
			return h, true, secured
		}
	}
	switch {
	case len(hosts) == 0:
		return "", false, 0
	case plain > 0:
		return hosts[0], false, plain
	case secured > 0:
		return hosts[0], true, secured
	}
	return "", false, 0
}

// portOf is the port of the first listener, which all nodes share; 0: there is none that is known.
func portOf(listen []string) uint16 {
	if len(listen) == 0 {
		return 0
	}
	_, port, err := net.SplitHostPort(listen[0])
	if err != nil {
		return 0
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(number)
}

// firstOfEach are the addresses that clients are told: the first of each family, of those families that own has too, since
// this node can't ask by another.
func firstOfEach(addrs, own []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, six := range []bool{false, true} {
		family := func(a netip.Addr) bool { return a.Is6() == six }
		if i := slices.IndexFunc(addrs, family); i >= 0 && slices.ContainsFunc(own, family) {
			out = append(out, addrs[i])
		}
	}
	return out
}

// heardDoors is what a member told of front doors, decoded once.
type heardDoors struct {
	raw  json.RawMessage
	said doorsSaid
}

// hear decodes what is told now, unless it is what was told before. What can't be read counts for nothing: versions mix.
func (h heardDoors) hear(raw json.RawMessage) heardDoors {
	if len(raw) == len(h.raw) && (len(raw) == 0 || &raw[0] == &h.raw[0]) {
		return h
	}
	h = heardDoors{raw: raw}
	if json.Unmarshal(raw, &h.said) != nil {
		h.said = nil
	}
	return h
}

// findings joins what the members tell of front doors. What is stale, unreadable or of an unknown region counts for nothing.
func (v view) findings(regions []routing.Region, facts []regionFacts) {
	sightings := map[[2]string][]healthcheck.Sighting{}
	for _, m := range v.members {
		if !m.fresh || m.State == mesh.Dead || !m.Reachable && !m.Self {
			continue
		}
		for region, services := range m.doors {
			if region == m.Region {
				continue
			}
			for service, d := range services {
				if s := parseState(d.State); s != routing.Up && s != routing.Down {
					continue
				}
				k := [2]string{region, service}
				sightings[k] = append(sightings[k], healthcheck.Sighting{
					Observer: m.Name, Region: m.Region, State: parseState(d.State), Since: time.UnixMilli(d.Since), Detail: d.Detail,
				})
			}
		}
	}
	live := 0
	for _, f := range facts {
		if f.live > 0 {
			live++
		}
	}
	for i, r := range regions {
		voters := live
		if facts[i].live > 0 {
			voters--
		}
		facts[i].doors = map[string]doorFinding{}
		for _, service := range proxy.ServiceNames(v.config) {
			found := sightings[[2]string{r.Name, service}]
			if len(found) == 0 {
				continue
			}
			slices.SortFunc(found, func(a, b healthcheck.Sighting) int { return strings.Compare(a.Observer, b.Observer) })
			f := doorFinding{sightings: found}
			f.state, f.evidence = healthcheck.DoorVerdict(found, voters, v.config.Health.Quorum)
			facts[i].doors[service] = f
		}
	}
}

// throughDoor puts what the front door shows into a place.
func throughDoor(p *routing.Place, f doorFinding, found bool) {
	switch {
	case !found || !p.HasPool:
	case f.state == routing.Down && p.Pool != routing.Down:
		p.Pool, p.Shut = routing.Down, true
	case f.state == routing.Up && p.Pool == routing.Unknown:
		p.Pool = routing.Up // a request went through it, which says more than no report
	}
}

// answerDoor answers another region's observer.
func (n *Node) answerDoor(w http.ResponseWriter, r *http.Request) bool {
	return n.mesh != nil && proxy.IsDoor(r) && n.generation.Load().proxy.ServeDoor(w, r, n.observers.passes)
}
