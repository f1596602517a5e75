package gateway

import (
	"math"
	"slices"
	"sync"
	"time"

	"landfall/configs"
	"landfall/routing"
)

// loadReport is this node's load as it is told to the others: to three digits, so that a report does not change with every
// request.
func (n *Node) loadReport() float64 {
	v := n.requests.value()
	if v < 0.5 {
		return 0
	}
	step := math.Pow(10, math.Floor(math.Log10(v))-2)
	return math.Round(v/step) * step
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

// spillOf is the share of a service's clients that a region sends on.
func spillOf(reporting []member, service string) float64 {
	if m := speaker(reporting); m != nil {
		return min(max(m.report.Spill[service], 0), 1)
	}
	return 0
}

// spills are the controls of what this node's region sends on, by service. Only the speaker's count; the others follow
// it, so as to go on from there when they become the speaker.
type spills struct {
	mu   sync.Mutex
	by   map[string]routing.Spill
	last time.Time
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
	if r.Capacity <= 0 {
		sp.by = nil // nothing is known of what it can take
		return
	}
	c := n.generation.Load().config
	var own []member
	for _, m := range pic.members {
		if m.Region == n.id.region {
			own = append(own, m)
		}
	}
	speaks := speaker(own)
	by := map[string]routing.Spill{}
	for i, svc := range s.Services {
		at := float64(c.Services[svc.Name].Steering.SpillAt)
		next := sp.by[svc.Name]
		if speaks != nil && !speaks.Self {
			next = next.Adopt(speaks.report.Spill[svc.Name])
		} else if svc.Places[self].HasPool {
			next = next.Next(r.Load/r.Capacity, routing.MarksAt(at), roomElsewhere(s, i, self, at), followLag(c), dt)
		}
		by[svc.Name] = next
		n.metrics.node.spilling.WithLabelValues(svc.Name, n.id.region).Set(next.Share)
	}
	sp.by = by
}

// roomElsewhere tells whether another region could take more of a service. One whose capacity is not known can.
func roomElsewhere(s *routing.Snapshot, service, self int, at float64) bool {
	for i, r := range s.Regions {
		p := s.Services[service].Places[i]
		if i == self || !p.HasPool || p.Pool != routing.Up || p.Weight == 0 || r.Dead || r.Drained || p.Drained >= 1 {
			continue
		}
		if r.Capacity <= 0 || r.Load < r.Capacity*at {
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
func (sp *spills) published() map[string]float64 {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	var out map[string]float64
	for name, s := range sp.by {
		if share := math.Round(s.Share*1000) / 1000; share > 0 {
			if out == nil {
				out = map[string]float64{}
			}
			out[name] = share
		}
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

// peerRTT is the round trips from this node's region to the others, in microseconds: of the other rows nothing is known
// here, nor needed. Rounded to milliseconds, so that the order of far regions does not follow every jitter.
func (v view) peerRTT(regions []routing.Region) [][]uint32 {
	self := ""
	for _, m := range v.members {
		if m.Self {
			self = m.Region
		}
	}
	rows := make([][]uint32, len(regions))
	for i := range rows {
		rows[i] = make([]uint32, len(regions))
		if regions[i].Name != self {
			continue
		}
		for j, r := range regions {
			if ms := regionRTT(v.members, r.Name); ms > 0 && i != j {
				rows[i][j] = uint32(max(math.Round(ms), 1)) * 1000
			}
		}
	}
	return rows
}
