package gateway

import (
	"slices"
	"strings"
	"time"

	"landfall/configs"
	"landfall/gateway/proxy"
	"landfall/healthcheck"
	"landfall/routing"
	"landfall/routing/mesh"
)

// report is the soft state that a node tells the fleet: how it sees its region's pools. It expires by itself.
type report struct {
	Pools map[string]string `json:"pools"` // by service: up, unknown or down
	// Origins are for people who ask another region's node: by service and URL, up, unknown or down. Absent when there
	// are more than maxReportOrigins.
	Origins  map[string]map[string]string `json:"origins,omitempty"`
	Keys     []string                     `json:"keys,omitempty"`      // fingerprints of the mesh keys, the one that encrypts first
	KeysKept bool                         `json:"keys_kept,omitempty"` // they are kept over a restart
	Load     float64                      `json:"load,omitempty"`      // clients' requests a second of this node
	Spill    map[string]spillReport       `json:"spilling,omitempty"`  // by service: what this region sends on
	// OldSpill is what versions tell instead that have spillReport in another form; this one only reads it.
	OldSpill map[string]spillReport `json:"spill,omitempty"`
	// Strain is how its services bear their load here; absent for those without any.
	Strain map[string]strainReport `json:"strain,omitempty"`
	Push   []string                `json:"push,omitempty"` // the targets of dns.push that its config has
	// PushTrouble are those of them that it failed to push to lately.
	PushTrouble []string `json:"push_trouble,omitempty"`
}

// maxReportOrigins bounds a report: with URLs of ordinary length it stays well under mesh.MaxReport.
const maxReportOrigins = 400

// view is everything that a snapshot is made of, as plain values: the same view makes the same snapshot.
type view struct {
	config  *configs.Config
	members []member
	drains  []Drain // in force
	weights []Weight
	self    string             // this node's region
	peers   map[string]peerRTT // round trips to the other regions
	now     time.Time
	version uint64
	weigh   func(*routing.Snapshot, []regionFacts) // puts verdicts in the place of what is seen; nil: none
}

// member is a node with its report decoded.
type member struct {
	mesh.Member
	report report
	doors  doorsSaid // what it sees of other regions' front doors
	fresh  bool      // the report is recent enough to count
}

// here tells a node that runs from one that is dead, or left in order and is gone. It counts when something has to reach
// every node.
func (m member) here() bool {
	return m.Self || m.State != mesh.Dead && (m.State != mesh.Leaving || m.Reachable)
}

// regionFacts is what a view says of a region beside the routing snapshot, for people.
type regionFacts struct {
	live, total int
	silent      bool                   // none of its nodes is reached from here, this one not counted
	starting    bool                   // its nodes have yet to begin, those that live
	evidence    string                 // who can't reach which node, when some observers disagree or agree
	doors       map[string]doorFinding // by service; absent where nobody looked
}

// snapshot folds a view into what routing decides by.
func (v view) snapshot() (*routing.Snapshot, []regionFacts) {
	s := routing.Snapshot{Panic: float64(v.config.Health.Panic), AllDown: -1, Version: v.version}
	var facts []regionFacts
	ballot := healthcheck.NewBallot(v.observations(), v.config.Health.Quorum)
	byRegion := map[string][]member{}
	for _, m := range v.members {
		byRegion[m.Region] = append(byRegion[m.Region], m)
	}
	reporters := map[string][]member{}
	for i, name := range v.config.RegionNames() {
		r, f, reporting := v.region(name, byRegion[name], ballot)
		r.Load, r.Capacity = loadOf(reporting), float64(v.config.Regions[name].Capacity)
		s.Regions = append(s.Regions, r)
		facts = append(facts, f)
		reporters[name] = reporting
		if name == v.config.Health.AllDown {
			s.AllDown = i
		}
	}
	v.findings(s.Regions, facts)
	for _, name := range proxy.ServiceNames(v.config) {
		svc := v.service(name, s.Regions, reporters)
		for i := range svc.Places {
			f, found := facts[i].doors[name]
			throughDoor(&svc.Places[i], f, found)
		}
		s.Services = append(s.Services, svc)
	}
	s.PeerRTT, s.Estimated = v.peerRTT(s.Regions)
	if v.weigh != nil {
		v.weigh(&s, facts)
	}
	return routing.NewSnapshot(s), facts
}

// observations are the links that each node reports as broken. A node that can't be reached from here has no say here,
// since what it last said is old; that it lives counts.
func (v view) observations() []healthcheck.Observation {
	var obs []healthcheck.Observation
	for _, m := range v.members {
		o := healthcheck.Observation{Observer: m.Name, ObserverRegion: m.Region}
		switch {
		case m.Self:
			o.Watches = []string{}
			for _, other := range v.members {
				if other.Linked {
					o.Watches = append(o.Watches, other.Name)
				}
				if other.Linked && !other.Reachable {
					o.Unreachable = append(o.Unreachable, other.Name)
				}
			}
		case m.State == mesh.Dead:
			continue
		case !m.Reachable:
			o.Unheard, o.Watches = true, m.Watches
		default:
			o.Watches, o.Unreachable = m.Watches, m.Unreachable
		}
		obs = append(obs, o)
	}
	return obs
}

// region sorts a region's nodes into those that take traffic, those that could at need, and those that are gone.
func (v view) region(name string, members []member, ballot *healthcheck.Ballot) (routing.Region, regionFacts, []member) {
	share := v.drainedShare(kindRegion, name)
	r := routing.Region{Name: name, Drained: share >= 1, Draining: share}
	if l := v.config.Regions[name].Location; l != nil {
		r.Location = routing.Point{Lat: l.Lat, Lon: l.Lon, Located: true}
	}
	f := regionFacts{total: len(members)}
	asked, heard := false, false
	var serving, draining, joining, gone []routing.Node
	var reporting []member
	var evidence []string
	for _, m := range members {
		node := routing.Node{Name: m.Name, Addrs: m.Addrs, Peer: m.Peer}
		if !m.Self && (name != v.self || m.State != mesh.Leaving) { // neighbours that left leave nobody cut off
			asked, heard = true, heard || m.Reachable
		}
		alive := m.Self
		if !m.Self && m.here() {
			var why string
			alive, why = ballot.Reachable(m.Name, m.Region)
			if why != "" && !slices.Contains(evidence, why) { // a region's nodes mostly share theirs
				evidence = append(evidence, why)
			}
		}
		switch {
		case !alive:
			gone = append(gone, node)
			continue
		case m.State == mesh.Serving && !v.drained(kindNode, m.Name):
			serving = append(serving, node)
		case m.State == mesh.Joining:
			joining = append(joining, node) // it takes no traffic yet
		default:
			// Drained, or leaving: it said so, so the region is not dead. At the worst it serves on until it is gone.
			draining = append(draining, node)
		}
		f.live++
		reporting = append(reporting, m)
	}
	f.evidence, f.silent = strings.Join(evidence, "; "), asked && !heard
	switch {
	case len(serving) > 0:
		r.Nodes = serving
	case len(draining) > 0:
		r.Nodes, r.Drained = draining, true
	case len(joining) > 0:
		// Only when no region at all is left: then a node that is about to serve beats an answer without an address, which
		// resolvers would remember.
		r.Nodes, r.Dead, f.starting = joining, true, true
	default:
		r.Nodes, r.Dead = gone, true
	}
	slices.SortFunc(r.Nodes, func(a, b routing.Node) int { return strings.Compare(a.Name, b.Name) })
	return r, f, reporting
}

func (v view) drained(kind, name string) bool { return v.drainedShare(kind, name) >= 1 }

// drainedShare is the share of clients that a drain has moved away by now, 0 to 1.
func (v view) drainedShare(kind, name string) float64 {
	for _, d := range v.drains {
		if d.Kind == kind && d.Name == name {
			return d.share(v.now)
		}
	}
	return 0
}

func (v view) service(name string, regions []routing.Region, reporters map[string][]member) routing.Service {
	c := v.config.Services[name]
	s := routing.Service{Name: name}
	switch c.Steering.Policy {
	case "weighted":
		s.Policy = routing.Weighted
	case "priority":
		s.Policy = routing.Priority
	}
	s.Rules = residencyRules(v.config, c)
	for _, r := range regions {
		p := routing.Place{Weight: v.weight(name, r.Name), Order: orderOf(c.Steering.Order, r.Name), Drained: v.drainedShare(kindService, name+"/"+r.Name)}
		spill := spillOf(reporters[r.Name], name)
		p.Spill, p.SpillBeyond, p.Strain = spill.Share, spill.Beyond, strainOf(reporters[r.Name], name)
		p.Strain.Fit = spill.Fit
		if _, p.HasPool = v.config.PoolFor(name, r.Name); p.HasPool {
			var states []routing.State
			for _, m := range reporters[r.Name] {
				if m.fresh {
					states = append(states, parseState(m.report.Pools[name]))
				}
			}
			p.Pool = healthcheck.PoolState(states)
		}
		s.Places = append(s.Places, p)
	}
	return s
}

// parseState reads a state from a report. A word that this version does not know is unknown, not an error: versions mix.
func parseState(s string) routing.State {
	switch s {
	case routing.Up.String():
		return routing.Up
	case routing.Down.String():
		return routing.Down
	}
	return routing.Unknown
}
