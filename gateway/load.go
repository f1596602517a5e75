package gateway

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"landfall/configs"
	"landfall/routing"
)

// threeDigits rounds a load, so that what is told of it is short.
func threeDigits(v float64) float64 {
	if v < 0.5 {
		return 0
	}
	step := math.Pow(10, math.Floor(math.Log10(v))-2)
	return math.Round(v/step) * step
}

// steady holds the figures of this node's report still while they move little: each change of a report goes to every
// node of the fleet and makes all of their heartbeats longer, and under traffic such figures never stand still.
type steady struct {
	load   float64
	strain map[string]strainReport
	at     time.Time // of the last change
}

// A figure is told anew when it has moved by steadyShare of what was told, all such together once in steadyEvery; at once
// when it has moved by jumpShare. Figures near zero are noise: they have to move by a floor of their own, and for a jump by
// jumpFloors of it.
const (
	steadyEvery = time.Second
	steadyShare = 0.05
	jumpShare   = 0.25
	jumpFloors  = 10

	loadFloor    = 1   // requests a second
	waitingFloor = 1   // requests
	stretchFloor = 0.1 // of the baseline
)

// hold puts what is told of a report's figures in the place of what they are.
func (s *steady) hold(r *report, now time.Time) {
	paced, moved := now.Sub(s.at) >= steadyEvery, false
	follow := func(told, v, floor float64) float64 {
		d := math.Abs(v - told)
		if !(d > max(told*jumpShare, floor*jumpFloors) || paced && (d > max(told*steadyShare, floor) || v == 0 && d > 0)) {
			return told
		}
		moved = true
		return v
	}
	s.load = follow(s.load, r.Load, loadFloor)
	r.Load = s.load
	var strain map[string]strainReport
	services := maps.Clone(s.strain) // those that the report no longer has go down to nothing
	if services == nil {
		services = map[string]strainReport{}
	}
	maps.Copy(services, r.Strain)
	for name := range services {
		was, is := s.strain[name], r.Strain[name]
		next := strainReport{follow(was.Waiting, is.Waiting, waitingFloor), follow(was.Stretch, is.Stretch, stretchFloor)}
		if next == (strainReport{}) {
			continue
		}
		if strain == nil {
			strain = map[string]strainReport{}
		}
		strain[name] = next
	}
	s.strain, r.Strain = strain, strain
	if moved {
		s.at = now
	}
}

// loadOf is what the nodes of a region report together.
func loadOf(reporting []member) float64 {
	sum := 0.0
	for _, m := range reporting {
		if m.fresh {
			sum += m.report.Load
		}
	}
	return sum
}

// speaker is the node that speaks for its region: the first by name of those with a fresh report. Every node sees the
// same one, so that a region has one share to send on, not one a node.
func speaker(reporting []member) *member {
	var first *member
	for i := range reporting {
		if m := &reporting[i]; m.fresh && (first == nil || m.Name < first.Name) {
			first = m
		}
	}
	return first
}

// spillOf is what a region sends on of a service.
func spillOf(reporting []member, service string) spillReport {
	m := speaker(reporting)
	if m == nil {
		return spillReport{}
	}
	r := m.report.Spill[service]
	r.Share, r.Fit = min(max(r.Share, 0), 1), min(max(r.Fit, 0), 1)
	return r
}

// spillReport is what a region sends on of a service, in its speaker's report.
type spillReport struct {
	Share  float64 `json:"share,omitempty"`  // of the clients
	Beyond uint32  `json:"beyond,omitempty"` // distance of the nearest of them in microseconds; 0: drawn by a hash
	Fit    float64 `json:"fit,omitempty"`    // the share of its capacity that it can take, where that is not all of it
}

// UnmarshalJSON takes what other versions tell, too: the first told the share alone, as a number. What it does not know
// counts as nothing told, since the report around it must not be lost.
func (r *spillReport) UnmarshalJSON(b []byte) error {
	type plain spillReport
	var p plain
	if json.Unmarshal(b, &p.Share) != nil && json.Unmarshal(b, &p) != nil {
		p = plain{}
	}
	*r = spillReport(p)
	return nil
}

// decodeReport reads a report of this version or another.
func decodeReport(b []byte) (r report, err error) {
	if err := json.Unmarshal(b, &r); err != nil {
		return report{}, err
	}
	if r.Spill == nil {
		r.Spill = r.OldSpill
	}
	r.OldSpill = nil
	return r, nil
}

// spills are the controls of what this node's region sends on, by service. Only the speaker's count; the others follow
// it, so as to go on from there when they become the speaker.
type spills struct {
	mu   sync.Mutex
	by   map[string]routing.Spill
	last time.Time

	// distances are how far this region's clients are, by service.
	distances map[string]*routing.Distances
}

// seen counts a client of this region.
func (sp *spills) seen(s *routing.Snapshot, self int, service string, c *routing.Client) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.distances == nil {
		sp.distances = map[string]*routing.Distances{}
	}
	d := sp.distances[service]
	if d == nil {
		d = new(routing.Distances)
		sp.distances[service] = d
	}
	d.Add(s, self, c, 1)
}

// tick folds the region's load of this moment in. Called by watch.
func (sp *spills) tick(n *Node) {
	s, pic, now := n.snapshot.Load(), n.picture.Load(), n.o.Now()
	self := s.Region(n.id.region)
	sp.mu.Lock()
	defer sp.mu.Unlock()
	dt := now.Sub(sp.last)
	first := sp.last.IsZero()
	sp.last = now
	if self < 0 || first {
		return
	}
	r := s.Regions[self]
	c := n.generation.Load().config
	n.strains.tick(c, dt)
	if r.Capacity <= 0 {
		sp.by, sp.distances = nil, nil // nothing is known of what it can take
		return
	}
	var own []member
	for _, m := range pic.members {
		if m.Region == n.id.region {
			own = append(own, m)
		}
	}
	speaks := speaker(own)
	by := map[string]routing.Spill{}
	for i, svc := range s.Services {
		config := c.Services[svc.Name]
		if config == nil {
			continue // a reload swaps the config a moment before the snapshot
		}
		steering := config.Steering
		at := float64(steering.SpillAt)
		next := sp.by[svc.Name]
		load := routing.Load{Ratio: r.Load / r.Capacity}
		if steering.SpillByLatency {
			load.Stretch = svc.Places[self].Strain.Stretch
		} else {
			next = next.Whole()
		}
		if speaks != nil && !speaks.Self {
			told := speaks.report.Spill[svc.Name]
			next = next.Adopt(told.Share, told.Fit, told.Beyond)
		} else if svc.Places[self].HasPool {
			next = next.Next(load, routing.MarksAt(at), roomElsewhere(s, i, self, at), followLag(c), dt)
		}
		if d := sp.distances[svc.Name]; d != nil {
			d.Tick(dt, svc.Places[self].SpillBeyond)
			if speaks == nil || speaks.Self {
				next = next.Aim(d)
			}
		}
		by[svc.Name] = next
		n.metrics.node.spilling.WithLabelValues(svc.Name, n.id.region).Set(next.Share)
		n.metrics.node.stretch.WithLabelValues(svc.Name, n.id.region).Set(svc.Places[self].Strain.Stretch)
	}
	sp.by = by
	maps.DeleteFunc(sp.distances, func(name string, _ *routing.Distances) bool { return c.Services[name] == nil })
}

// roomElsewhere tells whether another region could take more of a service. One whose capacity is not known can.
func roomElsewhere(s *routing.Snapshot, service, self int, at float64) bool {
	for i, r := range s.Regions {
		p := s.Services[service].Places[i]
		if i == self || !p.HasPool || p.Pool != routing.Up || p.Weight == 0 || r.Dead || r.Drained || p.Drained >= 1 {
			continue
		}
		fit := p.Strain.Fit
		if fit <= 0 {
			fit = 1
		}
		if r.Capacity <= 0 || r.Load < r.Capacity*fit*at {
			return true
		}
	}
	return false
}

// followLag is how long clients take to follow a changed answer: the longest TTL, and what a client keeps beyond it.
func followLag(c *configs.Config) time.Duration {
	lag := 10 * time.Second
	for _, z := range c.DNS.Zones {
		lag = max(lag, z.TTL.D())
	}
	return lag
}

// published is what the report tells: shares to a thousandth, only those above zero.
func (sp *spills) published() map[string]spillReport {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	var out map[string]spillReport
	for name, s := range sp.by {
		r := spillReport{Share: s.Told(), Beyond: s.Beyond}
		if fit := math.Round(s.Fit*100) / 100; fit < 1 {
			r.Fit = fit
		}
		if r == (spillReport{}) {
			continue
		}
		if out == nil {
			out = map[string]spillReport{}
		}
		out[name] = r
	}
	return out
}

// orderOf is a region's place in the order of policy priority; those not listed share the last.
func orderOf(order []string, region string) uint8 {
	i := slices.Index(order, region)
	if i < 0 || i > math.MaxUint8 {
		return math.MaxUint8
	}
	return uint8(i)
}

// residencyRules are a service's residency rules, with countries and jurisdictions resolved.
func residencyRules(c *configs.Config, s *configs.Service) []routing.Rule {
	var rules []routing.Rule
	for _, r := range s.Residency {
		rule := routing.Rule{Strict: r.Strict}
		for _, entry := range r.Clients {
			for _, code := range configs.CountryCodes(entry) {
				rule.Clients.Add(routing.CountryOf(code)) // "unknown" is no code, and so country 0
			}
		}
		for _, name := range c.RegionNames() {
			under := slices.ContainsFunc(c.Regions[name].Jurisdictions, func(j string) bool { return slices.Contains(r.Jurisdictions, j) })
			rule.Allowed = append(rule.Allowed, under)
		}
		rules = append(rules, rule)
	}
	return rules
}
