package gateway

import (
	"fmt"
	"time"

	"landfall/routing/mesh"
)

// settleTime is how long contact must have lasted before a node that was cut off trusts its cache again: several
// heartbeats, the first of which brings the registers that it missed.
const settleTime = 2 * time.Second

// isolation follows whether this node hears of purges. It belongs to watch.
type isolation struct {
	lost   time.Time // since when it hears too few; zero: it hears enough
	back   time.Time // since when it hears enough again, while still cut off
	cutOff bool
}

// step is one look at the members. A node is cut off when, for longer than limit, it reached none of the others or fewer
// than half of the fleet: purges may be issued on the other side, and it can't know. Those that left are not missed.
func (i *isolation) step(members []mesh.Member, limit time.Duration, now time.Time) (cutOff bool, away time.Duration) {
	total, reached := 0, 0
	for _, m := range members {
		if m.State == mesh.Leaving {
			continue
		}
		total++
		if m.Self || m.Reachable {
			reached++
		}
	}
	hears := total <= 1 || reached > 1 && reached*2 >= total
	switch {
	case hears && !i.cutOff:
		i.lost = time.Time{}
	case hears:
		if i.back.IsZero() {
			i.back = now
		}
		if now.Sub(i.back) >= settleTime {
			away = now.Sub(i.lost)
			*i = isolation{}
		}
	default:
		i.back = time.Time{}
		if i.lost.IsZero() {
			i.lost = now
		}
		i.cutOff = limit > 0 && (i.cutOff || now.Sub(i.lost) >= limit)
	}
	return i.cutOff, away
}

// followIsolation makes the cache confirm what it serves while this node is cut off from the mesh.
func (n *Node) followIsolation() {
	if n.mesh == nil {
		return
	}
	now := n.o.Now()
	n.purgeTrack.tick(now)
	was := n.isolation.cutOff
	n.followDoubt(now)
	cutOff, away := n.isolation.step(n.mesh.Members(), n.generation.Load().config.Cache.Isolation.D(), now)
	if away > purgeTTL/2 {
		n.purgesLost(fmt.Sprintf("this node was cut off for %s, longer than purges are kept for it", away.Round(time.Second)))
	}
	if cutOff == was {
		return
	}
	n.cache.SetCutOff(cutOff)
	if cutOff {
		n.metrics.node.cutOff.Set(1)
		n.event("cache.isolated", n.id.name, "cut off from the mesh: purges may be missed, so each cached object is confirmed with its origin")
	} else {
		n.metrics.node.cutOff.Set(0)
		n.event("cache.rejoined", n.id.name, fmt.Sprintf("back in the mesh after %s: what was purged meanwhile has been applied", away.Round(time.Second)))
	}
}
