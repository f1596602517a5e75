package gateway

import (
	"time"

	limits "golang.org/x/time/rate"
)

// An unsafe request whose response names cache groups invalidates them (RFC 9875 section 3) at the node that saw it, before
// its answer is sent; and everywhere else by a purge like any other, which nobody waits for. Origins cause these purges by
// what clients do, so there is a bound on them: past it they hold at this node alone, as the RFC allows.
const (
	groupPurgesASecond = 100
	groupPurgesAtOnce  = 500
	maxGroupsOrigin    = 300 // bytes of scheme, host and port
)

type groupPurges struct {
	limit *limits.Limiter
}

func newGroupPurges() groupPurges {
	return groupPurges{limits.NewLimiter(groupPurgesASecond, groupPurgesAtOnce)}
}

// purgeGroups implements proxy.Options.Groups.
func (n *Node) purgeGroups(service, origin string, groups []string) {
	if n.mesh == nil {
		return // it is done here already
	}
	now := n.o.Now()
	if len(origin) > maxGroupsOrigin || !n.groupPurges.limit.AllowN(now, len(groups)) {
		n.metrics.node.groupsKept.Add(float64(len(groups)))
		return
	}
	base := purgeRecord{ID: newID(), Service: service, Origin: origin, By: "Cache-Group-Invalidation", Issued: now.UTC().Truncate(time.Millisecond)}
	c := purgeCutter{base: base}
	for _, name := range groups {
		c.add(name, func(r *purgeRecord) *[]string { return &r.Groups })
	}
	for i := range c.records {
		c.records[i].Part, c.records[i].Parts = i, len(c.records)
	}
	n.purgeWriter.submit(newPurgeJob(c.records, nil))
}
