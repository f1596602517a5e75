package gateway

import (
	"fmt"
	"slices"
	"time"

	"landfall/configs"
	"landfall/routing"
)

// calm tells how long the answers for a service have stayed what they are, which their TTL follows. It is what can be
// seen from the outside of a decision that it compares, not what only moves clients between regions that stay usable
// (load below the bound, measured round trips).
type calm struct {
	since time.Time     // of the last change
	age   time.Duration // since then, when the snapshot was made: answers and explanations agree until the next one
	what  string        // changed, in words
}

// calms follows the snapshots and remembers when each service last changed. It starts with a change, as does the fleet
// when a node joins it: nodes agree on how old their answers are.
func calms(before map[string]calm, old, now *routing.Snapshot, at time.Time) map[string]calm {
	out := make(map[string]calm, len(now.Services))
	for i := range now.Services {
		name := now.Services[i].Name
		c, known := before[name]
		if !known || old == nil {
			c = calm{since: at, what: "this node started or learnt of the service"}
		} else if what := difference(old, now, name); what != "" {
			c = calm{since: at, what: what}
		}
		c.age = max(at.Sub(c.since), 0)
		out[name] = c
	}
	return out
}

// followCalm is part of rebuild.
func (n *Node) followCalm(old, now *routing.Snapshot, at time.Time) {
	var before map[string]calm
	if p := n.calms.Load(); p != nil {
		before = *p
	}
	after := calms(before, old, now, at)
	n.calms.Store(&after)
}

// calmOf is how long a service has been calm, and what changed last.
func (n *Node) calmOf(service string) calm { return (*n.calms.Load())[service] }

// text says why an answer has its TTL, within the bounds of its zone.
func (c calm) text(z configs.Zone) string {
	if z.MinTTL == z.TTL {
		return "always"
	}
	age := c.age.Truncate(time.Second)
	if age >= 2*z.TTL.D() {
		return fmt.Sprintf("calm for %s", age)
	}
	return fmt.Sprintf("%s to %s: %s, %s ago", z.MinTTL, z.TTL, c.what, age)
}

// difference is what has changed between two snapshots for a service's answers, the first thing found, or "".
func difference(old, now *routing.Snapshot, service string) string {
	i, j := old.Service(service), now.Service(service)
	if i < 0 || j < 0 {
		return "the service is new"
	}
	was, is := &old.Services[i], &now.Services[j]
	if len(old.Regions) != len(now.Regions) || was.Policy != is.Policy || !slices.EqualFunc(was.Rules, is.Rules, sameRule) {
		return "another config"
	}
	for r := range now.Regions {
		if was.Places[r].HasPool || is.Places[r].HasPool {
			if what := regionDifference(&old.Regions[r], &now.Regions[r]); what != "" {
				return what
			}
			if what := placeDifference(&was.Places[r], &is.Places[r]); what != "" {
				return now.Regions[r].Name + ": " + what
			}
		}
	}
	return ""
}

func sameRule(a, b routing.Rule) bool {
	return a.Clients == b.Clients && a.Strict == b.Strict && slices.Equal(a.Allowed, b.Allowed)
}

func regionDifference(was, is *routing.Region) string {
	switch {
	case was.Name != is.Name:
		return "another config"
	case was.Dead != is.Dead && is.Dead:
		return is.Name + " went down"
	case was.Dead != is.Dead:
		return is.Name + " came back"
	case was.Drained != is.Drained || was.Draining != is.Draining:
		return fmt.Sprintf("a drain of %s has moved %.0f%% of its clients", is.Name, is.Draining*100)
	case !slices.EqualFunc(was.Nodes, is.Nodes, sameNode):
		return fmt.Sprintf("other nodes take traffic in %s: %d", is.Name, len(is.Nodes))
	}
	return ""
}

func sameNode(a, b routing.Node) bool { return a.Name == b.Name && slices.Equal(a.Addrs, b.Addrs) }

// spillStep is how much a region's spill has to move to count: it breathes with the load.
const spillStep = 0.05

func placeDifference(was, is *routing.Place) string {
	step := func(share float64) int { return int(share/spillStep + 0.999) } // from none to some is a step
	switch {
	case was.HasPool != is.HasPool || was.Order != is.Order:
		return "another config"
	case was.Pool != is.Pool:
		return "its origins were " + was.Pool.String() + " and are " + is.Pool.String()
	case was.Weight != is.Weight:
		return fmt.Sprintf("its weight is %d", is.Weight)
	case was.Drained != is.Drained:
		return fmt.Sprintf("a drain has moved %.0f%% of the service's clients", is.Drained*100)
	case step(was.Return) != step(is.Return):
		return fmt.Sprintf("it is coming back, %.0f%% of its clients are not let in yet", is.Return*100)
	case step(was.Spill) != step(is.Spill):
		return fmt.Sprintf("it is full and sends %.0f%% of its clients on", is.Spill*100)
	}
	return ""
}
