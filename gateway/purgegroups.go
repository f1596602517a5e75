package gateway

import (
	"context"
	"slices"
	"sync"
	"time"

	limits "golang.org/x/time/rate"
)

// An unsafe request whose response names cache groups invalidates them (RFC 9875 section 3) at the node that saw it, before
// its answer is sent; and everywhere else by a purge like any other, which nobody waits for. Origins cause these purges by
// what clients do, so there is a bound on them: past it they hold at this node alone, as the RFC allows. And they share
// registers, one a groupPace: a ring that they turned fast would be lost to nodes that were away for seconds, and with it
// all that those have cached.
const (
	groupPurgesASecond = 100
	groupPurgesAtOnce  = 500
	maxGroupsOrigin    = 300 // bytes of scheme, host and port
	groupPace          = time.Second
)

type groupPurges struct {
	limit *limits.Limiter

	mu   sync.Mutex
	due  map[groupsOf][]string
	busy bool // a goroutine sends what is due
}

type groupsOf struct{ service, origin string }

func newGroupPurges() *groupPurges {
	return &groupPurges{limit: limits.NewLimiter(groupPurgesASecond, groupPurgesAtOnce), due: map[groupsOf][]string{}}
}

// purgeGroups implements proxy.Options.Groups.
func (n *Node) purgeGroups(service, origin string, groups []string) {
	if n.mesh == nil {
		return // it is done here already
	}
	g, of, now := n.groupPurges, groupsOf{service, origin}, n.o.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, name := range groups {
		switch {
		case slices.Contains(g.due[of], name):
		case len(origin) > maxGroupsOrigin || !g.limit.AllowN(now, 1):
			n.metrics.node.groupsKept.Inc()
		default:
			g.due[of] = append(g.due[of], name)
		}
	}
	if len(g.due) > 0 && !g.busy {
		g.busy = n.purgeWriter.run(n.sendGroups)
	}
}

// sendGroups sends what is due until nothing is.
func (n *Node) sendGroups(ctx context.Context) {
	g := n.groupPurges
	pace := time.NewTicker(groupPace)
	defer pace.Stop()
	for {
		g.mu.Lock()
		due := g.due
		g.due, g.busy = map[groupsOf][]string{}, len(due) > 0
		g.mu.Unlock()
		if len(due) == 0 {
			return
		}
		for of, names := range due {
			base := purgeRecord{ID: newID(), Service: of.service, Origin: of.origin, By: "Cache-Group-Invalidation", Issued: n.o.Now().UTC().Truncate(time.Millisecond)}
			c := purgeCutter{base: base}
			for _, name := range names {
				c.add(name, func(r *purgeRecord) *[]string { return &r.Groups })
			}
			for i := range c.records {
				c.records[i].Part, c.records[i].Parts = i, len(c.records)
			}
			n.purgeWriter.submit(newPurgeJob(c.records, nil))
		}
		select {
		case <-pace.C:
		case <-ctx.Done():
			return
		}
	}
}
