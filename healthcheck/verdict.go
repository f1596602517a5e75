package healthcheck

import (
	"fmt"
	"slices"
	"strings"

	"landfall/routing"
)

// Observation is what one node sees of the others.
type Observation struct {
	Observer       string   // the node that looked
	ObserverRegion string   // its region
	Unreachable    []string // the nodes that it can't reach
}

// Reachable tells whether a node of a region counts as reachable, and the evidence in a sentence for people. Observers
// vote by region, so that a region with many nodes has one voice, and the node's own region has none: what is asked
// is whether other regions reach it. A region's vote is "unreachable" only when all of its observers say so: one that
// reaches the node proves that the region can. quorum is the share of the regions that must vote "unreachable":
// "any" (one), "all", or "majority" (more than half; also for any other value). Without an observer in another region
// the node counts as reachable: a node never withdraws the fleet's last answer on its own word.
//
// With two regions the only other region decides alone. Whether a node lives at all is the mesh's to say; Reachable is
// asked of nodes that live.
func Reachable(node, region string, obs []Observation, quorum string) (ok bool, evidence string) {
	against, forIt := map[string][]string{}, map[string][]string{} // observers by region
	for _, o := range obs {
		if o.Observer == node || o.ObserverRegion == region || o.ObserverRegion == "" {
			continue
		}
		side := forIt
		if slices.Contains(o.Unreachable, node) {
			side = against
		}
		if !slices.Contains(side[o.ObserverRegion], o.Observer) {
			side[o.ObserverRegion] = append(side[o.ObserverRegion], o.Observer)
		}
	}
	for r := range forIt { // one that reaches it outweighs its region's others
		delete(against, r)
	}
	voters := len(against) + len(forIt)
	if voters == 0 {
		return true, "no observer in another region"
	}
	need := voters/2 + 1
	switch quorum {
	case "any":
		need = 1
	case "all":
		need = voters
	}
	if len(against) == 0 {
		return true, "reached from " + list(forIt)
	}
	evidence = "unreachable from " + list(against)
	if len(forIt) > 0 {
		evidence += ", reached from " + list(forIt)
	}
	return len(against) < need, fmt.Sprintf("%s; %d of %d regions must agree", evidence, need, voters)
}

// list writes regions with their observers, sorted: "eu-west (n1, n2), us-east (n3)".
func list(regions map[string][]string) string {
	var parts []string
	for region, observers := range regions {
		slices.Sort(observers)
		parts = append(parts, fmt.Sprintf("%s (%s)", region, strings.Join(observers, ", ")))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// PoolState joins what a region's live nodes report of their pool for a service: Up when any of them finds it up, Down
// when there are reports and all of them say down, else Unknown. One node that can't reach the origins (its own link may be
// at fault) takes nothing down.
func PoolState(reports []routing.State) routing.State {
	down := 0
	for _, s := range reports {
		switch s {
		case routing.Up:
			return routing.Up
		case routing.Down:
			down++
		}
	}
	if down > 0 && down == len(reports) {
		return routing.Down
	}
	return routing.Unknown
}
