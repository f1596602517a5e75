package gateway

import (
	"time"

	"landfall/configs"
	"landfall/routing"
	"landfall/routing/mesh"
)

// Paper is a fleet on paper: what a simulation says of each region instead of what nodes report. Its snapshots are made
// by the very code that makes a node's.
type Paper struct {
	Config *configs.Config
	Down   map[string]bool               // regions without a live node
	Drains []Drain                       // with Since and Over in the simulation's time
	Load   map[string]float64            // requests a second, by region
	Spill  map[string]map[string]Spilled // by region and service
}

// Spilled is what a region sends on of a service.
type Spilled struct {
	Share  float64 // of the clients
	Beyond uint32  // distance of the nearest of them, in microseconds of round trip; 0: drawn by a hash
}

// Snapshot is what a node would decide by at now. Each region has one node, whose pools are up.
func (p Paper) Snapshot(now time.Time) *routing.Snapshot {
	v := view{config: p.Config, drains: p.Drains, now: now}
	for _, name := range p.Config.RegionNames() {
		m := member{Member: mesh.Member{Name: name + "-1", Region: name, State: mesh.Serving, Reachable: true}, fresh: true}
		m.report = report{Pools: map[string]string{}, Load: p.Load[name], Spill: map[string]spillReport{}}
		for service, s := range p.Spill[name] {
			m.report.Spill[service] = spillReport{Share: s.Share, Beyond: s.Beyond}
		}
		for service := range p.Config.Services {
			m.report.Pools[service] = routing.Up.String()
		}
		if p.Down[name] {
			m.State, m.Reachable, m.fresh = mesh.Dead, false, false
		}
		v.members = append(v.members, m)
	}
	s, _ := v.snapshot()
	return s
}

// RegionDrain is a drain of a region, as an operator sets it.
func RegionDrain(region string, since time.Time, over time.Duration) Drain {
	return Drain{Kind: kindRegion, Name: region, Since: since, Over: over}
}

// RoomElsewhere tells whether another region than self could take more of a service (both indices of s) by its spill_at.
func RoomElsewhere(s *routing.Snapshot, service, self int, at float64) bool {
	return roomElsewhere(s, service, self, at)
}

// FollowLag is how long a config's clients take to follow a changed answer.
func FollowLag(c *configs.Config) time.Duration { return followLag(c) }
