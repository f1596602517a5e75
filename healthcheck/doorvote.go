package healthcheck

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"landfall/routing"
)

// Sighting is one observer's word on a front door: who saw what, and since when.
type Sighting struct {
	Observer, Region string        // the node that looked, and its region
	State            routing.State // Up, Down or Unknown
	Since            time.Time
	Detail           string
}

// DoorVerdict joins what observers find of one region's front door for one service. Observers vote by region, and a region
// votes "down" only when all of its observers that have an opinion do. The door is down when a quorum of voters says so,
// voters being the other regions that have a live node, whether they have an opinion or not: a minority that happens to be
// the only one to look decides nothing. It is up when a region reaches it, else unknown.
func DoorVerdict(sightings []Sighting, voters int, quorum string) (state routing.State, evidence string) {
	against, forIt := map[string][]string{}, map[string][]string{} // observers by region
	detail := ""
	for _, s := range sightings {
		switch s.State {
		case routing.Up:
			forIt[s.Region] = append(forIt[s.Region], s.Observer)
		case routing.Down:
			against[s.Region] = append(against[s.Region], s.Observer+" since "+s.Since.UTC().Format(time.TimeOnly)+"Z")
			detail = s.Detail
		}
	}
	for r := range forIt {
		delete(against, r)
	}
	switch {
	case len(against) == 0 && len(forIt) == 0:
		return routing.Unknown, ""
	case len(against) == 0:
		return routing.Up, "front door answers " + list(forIt)
	}
	need := quota(quorum, max(voters, len(against)+len(forIt)))
	evidence = "front door fails " + list(against)
	if len(forIt) > 0 {
		evidence += ", answers " + list(forIt)
	}
	evidence = fmt.Sprintf("%s; %d of %d regions must agree (%s)", evidence, need, max(voters, len(against)+len(forIt)), detail)
	switch {
	case len(against) >= need:
		return routing.Down, evidence
	case len(forIt) > 0:
		return routing.Up, evidence
	}
	return routing.Unknown, evidence
}

// Observers chooses who of a region's nodes asks one front door: count of them, by rendezvous hashing, so that the work is
// spread over the nodes and few doors change hands when one comes or goes.
func Observers(region, service string, nodes []string, count int) []string {
	type rank struct {
		node  string
		score uint64
	}
	ranks := make([]rank, 0, len(nodes))
	for _, n := range nodes {
		h := uint64(14695981039346656037) // FNV-1a, then mixed as SplitMix64 does
		for _, part := range [...]string{n, "\x00", region, "\x00", service} {
			for i := range len(part) {
				h = (h ^ uint64(part[i])) * 1099511628211
			}
		}
		h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
		h = (h ^ h>>27) * 0x94d049bb133111eb
		ranks = append(ranks, rank{n, h ^ h>>31})
	}
	slices.SortFunc(ranks, func(a, b rank) int {
		switch {
		case a.score > b.score:
			return -1
		case a.score < b.score:
			return 1
		}
		return strings.Compare(a.node, b.node)
	})
	var out []string
	for _, r := range ranks[:min(count, len(ranks))] {
		out = append(out, r.node)
	}
	return out
}
