package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"landfall/gateway/admin"
	"landfall/healthcheck"
)

// Verdicts implements admin.Verdicts.
func (b backend) Verdicts() []admin.Verdict {
	n := b.n
	s := n.snapshot.Load()
	n.building.Lock()
	defer n.building.Unlock()
	var out []admin.Verdict
	add := func(subject healthcheck.Subject) {
		v := n.judging.judge.Verdict(subject)
		shown := admin.Verdict{
			Region: subject.Region, Service: subject.Service, State: v.State.String(), Seen: v.Seen.String(),
			Since: v.Since.UTC(), At: v.At.UTC(), Evidence: v.Evidence, Kept: v.Kept, Forced: v.Forced,
		}
		if i := s.Region(subject.Region); i >= 0 && i < len(n.judging.facts) {
			for _, w := range n.judging.facts[i].doors[subject.Service].sightings {
				shown.Sightings = append(shown.Sightings, admin.Sighting{
					Observer: w.Observer, Region: w.Region, Saw: w.State.String(), Since: w.Since.UTC(), Detail: w.Detail,
				})
			}
		}
		out = append(out, shown)
	}
	for i, r := range s.Regions {
		add(healthcheck.Subject{Region: r.Name})
		for _, svc := range s.Services {
			if svc.Places[i].HasPool {
				add(healthcheck.Subject{Region: r.Name, Service: svc.Name})
			}
		}
	}
	return out
}

// Forces implements admin.Verdicts.
func (b backend) Forces() []admin.Force {
	var out []admin.Force
	for _, f := range forcesIn(b.n.fleet.Registers(forcePrefix), b.n.o.Now()) {
		out = append(out, forceShown(f))
	}
	return out
}

func forceShown(f force) admin.Force {
	return admin.Force{Region: f.Region, Service: f.Service, State: f.State, Reason: f.Reason, By: f.By, Expires: f.Until}
}

// SetForce implements admin.Verdicts.
func (b backend) SetForce(ctx context.Context, region, service string, spec *admin.ForceSpec, by string) (admin.ForceResult, error) {
	n, now := b.n, b.n.o.Now()
	res := admin.ForceResult{Region: region, Service: service}
	f := force{Region: region, Service: service, By: by, Since: now.UTC()}
	var value json.RawMessage
	ttl := time.Duration(0)
	if spec != nil {
		ttl = spec.For.D()
		f.State, f.Reason, f.Until = spec.State, spec.Reason, now.Add(ttl).UTC()
		var err error
		if value, err = json.Marshal(f); err != nil {
			return res, err
		}
		shown := forceShown(f)
		res.Force = &shown
	}
	ack, err := n.fleet.Set(ctx, f.key(), value, ttl)
	if err != nil {
		return res, fmt.Errorf("the forced state could not be made durable, so nothing was changed: %w", err)
	}
	res.Applied, res.Missing = ack.Applied, ack.Missing
	n.rebuild()
	return res, nil
}
