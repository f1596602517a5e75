package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"landfall/gateway/admin"
	"landfall/routing"
)

// after is the view as it would be with another drain, carried through at once, or another weight in force.
func (n *Node) after(d Drain, w *Weight) view {
	pic := n.picture.Load()
	v := view{config: n.generation.Load().config, members: pic.members, drains: slices.Clone(pic.drains), weights: weightsIn(n.fleet.Registers(weightPrefix)), now: n.o.Now()}
	if w != nil {
		v.weights = append([]Weight{*w}, v.weights...) // the first that names the region holds
		return v
	}
	d.Over = 0
	v.drains = append([]Drain{d}, v.drains...)
	return v
}

// leftWithout tells what would be missing if a change came into force: a service that no region could serve any more, or
// the capacity for today's load. It is empty when there is enough, or when nobody can tell.
func (n *Node) leftWithout(v view, what string) string {
	after, _ := v.snapshot()
	before := n.snapshot.Load()
	usual := func(s *routing.Snapshot, i int) bool {
		d := s.Decide(nil, i, routing.Client{})
		return d.Mode != routing.LastResort && d.Usable > 0 && d.Choices[0].Reason != routing.WeightZero && d.Choices[0].Weight > 0
	}
	for i, svc := range after.Services {
		if i < len(before.Services) && usual(before, i) && !usual(after, i) {
			return fmt.Sprintf("%s would leave no other region up for service %s; bring another one up first, or insist with force", what, svc.Name)
		}
	}
	load, had, left, known := 0.0, 0.0, 0.0, true
	for i := range after.Regions {
		load += before.Regions[i].Load
		was, is := inUse(before, i), inUse(after, i)
		if was {
			had += after.Regions[i].Capacity
		}
		if is {
			left += after.Regions[i].Capacity
			known = known && after.Regions[i].Capacity > 0
		}
	}
	if known && left < had && left < load {
		return fmt.Sprintf("%s would leave a capacity of %.0f requests/s for a load of %.0f: %.0f are missing; wait for a calmer hour, raise the others' capacity, or insist with force", what, left, load, load-left)
	}
	return ""
}

// inUse tells whether region i serves any service in ordinary times.
func inUse(s *routing.Snapshot, i int) bool {
	r := s.Regions[i]
	if r.Dead || r.Drained {
		return false
	}
	return slices.ContainsFunc(s.Services, func(svc routing.Service) bool {
		p := svc.Places[i]
		return p.HasPool && p.Weight > 0 && p.Pool != routing.Down && p.Drained < 1
	})
}

// Weights implements admin.Weights.
func (b backend) Weights() []admin.Weight {
	var out []admin.Weight
	for _, w := range weightsIn(b.n.fleet.Registers(weightPrefix)) {
		out = append(out, admin.Weight{Service: w.Service, Region: w.Region, Weight: int(w.Weight), By: w.By, Since: w.Since})
	}
	return out
}

// SetWeight implements admin.Weights.
func (b backend) SetWeight(ctx context.Context, service, region string, spec *admin.WeightSpec, by string) (admin.WeightResult, error) {
	n := b.n
	w := Weight{Service: service, Region: region, By: by, Since: n.o.Now().UTC()}
	res := admin.WeightResult{Service: service, Region: region, Set: spec != nil}
	var value json.RawMessage
	if spec != nil {
		w.Weight = uint16(spec.Weight)
		if left := n.leftWithout(n.after(Drain{}, &w), fmt.Sprintf("weight %d for %s in %s", w.Weight, service, region)); left != "" && !spec.Force {
			return res, admin.Refused(left)
		}
		var err error
		if value, err = json.Marshal(w); err != nil {
			return res, err
		}
	}
	ack, err := n.fleet.Set(ctx, w.key(), value, time.Duration(0))
	if err != nil {
		return res, fmt.Errorf("the weight could not be made durable, so nothing was changed: %w", err)
	}
	res.Applied, res.Missing = ack.Applied, ack.Missing
	n.rebuild()
	s := n.snapshot.Load()
	if i, at := s.Service(service), s.Region(region); i >= 0 && at >= 0 {
		res.Weight = int(s.Services[i].Places[at].Weight)
	}
	n.event("weight.set", service+"/"+region, fmt.Sprintf("%d, by %s", res.Weight, by))
	return res, nil
}
