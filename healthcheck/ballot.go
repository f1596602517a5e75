package healthcheck

import (
	"fmt"
	"slices"
	"strings"
)

// Observation is what one node sees of the others.
type Observation struct {
	Observer       string   // the node that looked
	ObserverRegion string   // its region
	Watches        []string // the nodes that it looked at; nil: all
	Unreachable    []string // the nodes that it can't reach
	// Unheard tells that it lives, but that what it says does not come here. It has no vote, yet its region counts among
	// those of which most must agree: who is cut off hears few, and few are no quorum. So it does where others of the region
	// are heard, but only unheard ones look at a node.
	Unheard bool
}

// Ballot is the word of all observers on all nodes, counted once so that asking is cheap. It is immutable.
type Ballot struct {
	heard map[string]bool   // by region: whether any of its observers is heard
	all   []vote            // of observers that look at every node
	of    map[string][]vote // by node, of observers that name whom they look at
	down  map[string][]vote // by node
	mute  map[string][]vote // by node, of observers that look at it and aren't heard
	quota string
}

type vote struct{ observer, region string }

// NewBallot counts observations. quorum is the share of the regions that must vote "unreachable": "any" (one), "all", or
// "majority" (more than half; also for any other value).
func NewBallot(obs []Observation, quorum string) *Ballot {
	b := &Ballot{heard: map[string]bool{}, of: map[string][]vote{}, down: map[string][]vote{}, mute: map[string][]vote{}, quota: quorum}
	seen := map[string]bool{}
	for _, o := range obs {
		if o.ObserverRegion == "" || seen[o.Observer] {
			continue
		}
		seen[o.Observer] = true
		if b.heard[o.ObserverRegion] = b.heard[o.ObserverRegion] || !o.Unheard; o.Unheard {
			for _, n := range o.Watches {
				b.mute[n] = append(b.mute[n], vote{o.Observer, o.ObserverRegion})
			}
			continue
		}
		v := vote{o.Observer, o.ObserverRegion}
		if o.Watches == nil {
			b.all = append(b.all, v)
		}
		for _, n := range o.Watches {
			b.of[n] = append(b.of[n], v)
		}
		for _, n := range o.Unreachable {
			b.down[n] = append(b.down[n], v)
		}
	}
	return b
}

// Reachable tells whether a node of a region counts as reachable, and the evidence in a sentence for people. Observers
// vote by region, so that a region with many nodes has one voice, and the node's own region has none: what is asked
// is whether other regions reach it. A region's vote is "unreachable" only when all of its observers of the node say so:
// one that reaches the node proves that the region can. Without an observer in another region the node counts as
// reachable: a node never withdraws the fleet's last answer on its own word. In a fleet of one region its neighbours decide.
//
// Most of the regions that have looked or can't be heard must agree; and where two others are heard, two must, though
// only one has looked so far. With two regions the only other region decides alone. Whether a node lives at all is the mesh's to say; Reachable is
// asked of nodes that live.
func (b *Ballot) Reachable(node, region string) (ok bool, evidence string) {
	against, forIt := map[string][]string{}, map[string][]string{} // observers by region
	down := b.down[node]
	for _, votes := range [][]vote{b.all, b.of[node]} {
		for _, v := range votes {
			if v.observer == node || v.region == region {
				continue
			}
			side := forIt
			if slices.Contains(down, v) {
				side = against
			}
			side[v.region] = append(side[v.region], v.observer)
		}
	}
	for r := range forIt { // one that reaches it outweighs its region's others
		delete(against, r)
	}
	voters := len(against) + len(forIt)
	if voters == 0 {
		return b.byNeighbours(node, region)
	}
	if len(against) == 0 {
		return true, "reached from " + list(forIt)
	}
	mute := b.without(node, region, against, forIt)
	voters += len(mute)
	voters, least := b.electorate(voters, region)
	need := max(quota(b.quota, voters), least)
	evidence = "unreachable from " + list(against)
	if len(forIt) > 0 {
		evidence += ", reached from " + list(forIt)
	}
	if len(mute) > 0 {
		evidence += ", no word from those who look in " + strings.Join(mute, ", ")
	}
	return len(against) < need, fmt.Sprintf("%s; %d of %d regions must agree", evidence, need, voters)
}

// byNeighbours is for a fleet of one region: nobody else looks, so that a node's neighbours decide, all of those that look
// together. A node that asks counts itself as reachable, so that one answer is always left.
func (b *Ballot) byNeighbours(node, region string) (ok bool, evidence string) {
	for r := range b.heard {
		if r != region {
			return true, "no observer in another region"
		}
	}
	against := map[string][]string{}
	down := b.down[node]
	for _, votes := range [][]vote{b.all, b.of[node]} {
		for _, v := range votes {
			switch {
			case v.observer == node:
			case !slices.Contains(down, v):
				return true, "reached by its neighbour " + v.observer
			default:
				against[region] = append(against[region], v.observer)
			}
		}
	}
	if len(against) == 0 {
		return true, "no observer"
	}
	mute := 0
	for _, v := range b.mute[node] {
		if v.observer != node {
			mute++
		}
	}
	if mute >= len(against[region]) { // who is cut off hears few, and few are no quorum
		return true, fmt.Sprintf("%d of its neighbours can't be heard", mute)
	}
	return false, "unreachable from its neighbours in " + list(against)
}

// without is the regions whose observers of a node can't be heard, though others of the region are.
func (b *Ballot) without(node, region string, against, forIt map[string][]string) (mute []string) {
	for _, v := range b.mute[node] {
		_, no := against[v.region]
		_, yes := forIt[v.region]
		if !no && !yes && v.region != region && b.heard[v.region] && !slices.Contains(mute, v.region) {
			mute = append(mute, v.region)
		}
	}
	slices.Sort(mute)
	return mute
}

// electorate adds to the regions that voted those that live but can't be heard, and tells how many must agree at least.
func (b *Ballot) electorate(voters int, region string) (all, least int) {
	if b.quota == "any" {
		return voters, 1
	}
	for r, heard := range b.heard {
		switch {
		case r == region:
		case heard:
			least++
		default:
			voters++
		}
	}
	least = min(least, 2)
	return max(voters, least), least
}

// quota is how many of the voters must agree.
func quota(quorum string, voters int) int {
	switch quorum {
	case "any":
		return 1
	case "all":
		return voters
	}
	return voters/2 + 1
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
