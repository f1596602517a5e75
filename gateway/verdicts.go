package gateway

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"landfall/configs"
	"landfall/healthcheck"
	"landfall/routing"
	"landfall/routing/mesh"
)

const forcePrefix = "force/"

// force is an operator's word on a region's state, as it travels: a register.
type force struct {
	Region  string    `json:"region"`
	Service string    `json:"service,omitempty"` // empty: the region as such
	State   string    `json:"state"`             // up or down
	Reason  string    `json:"reason"`
	By      string    `json:"by"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until"`
}

func (f force) key() string {
	return strings.TrimSuffix(forcePrefix+f.Region+"/"+f.Service, "/")
}

func (f force) subject() healthcheck.Subject {
	return healthcheck.Subject{Region: f.Region, Service: f.Service}
}

// forcesIn reads the forces in force out of registers. A value that this version can't read is left out.
func forcesIn(registers []mesh.Register, now time.Time) []force {
	var out []force
	for _, r := range registers {
		var f force
		if r.Value == nil || json.Unmarshal(r.Value, &f) != nil || f.key() != r.Key || !now.Before(f.Until) {
			continue
		}
		if s := parseState(f.State); s == routing.Up || s == routing.Down {
			out = append(out, f)
		}
	}
	return out
}

// judging turns what a view shows into verdicts and puts those in the snapshot. It is used by one rebuild at a time.
type judging struct {
	judge    *healthcheck.Judge
	isolated bool
	forces   []force
	shut     map[healthcheck.Subject]bool // down because of their front doors
	facts    []regionFacts                // as they were last weighed
}

func newJudging(p healthcheck.Policy) *judging {
	return &judging{judge: healthcheck.NewJudge(p), shut: map[healthcheck.Subject]bool{}}
}

// weigh replaces what is seen by what was found, and returns the events to tell.
func (j *judging) weigh(v view, home string, s *routing.Snapshot, facts []regionFacts) (events [][3]string) {
	var forces []healthcheck.Force
	for _, f := range j.forces {
		forces = append(forces, healthcheck.Force{Subject: f.subject(), State: parseState(f.State), Reason: f.Reason, By: f.By, Until: f.Until})
	}
	j.judge.Step(v.now, home, sights(s, facts), forces)
	for i := range s.Regions {
		r := &s.Regions[i]
		found := j.judge.Verdict(healthcheck.Subject{Region: r.Name})
		switch {
		case found.State == routing.Down:
			r.Dead = true
		case found.State == routing.Up && len(r.Nodes) > 0:
			r.Dead = false
		}
		if found.Kept || found.Forced {
			facts[i].evidence = strings.TrimSuffix(found.Evidence+"; "+facts[i].evidence, "; ")
		}
		for k := range s.Services {
			if p := &s.Services[k].Places[i]; p.HasPool {
				j.settle(v, p, healthcheck.Subject{Region: r.Name, Service: s.Services[k].Name}, found)
			}
		}
	}
	j.facts = facts
	isolated, why := j.judge.Isolated()
	switch {
	case isolated && !j.isolated:
		events = append(events, [3]string{"observer.isolated", home, why})
	case !isolated && j.isolated:
		events = append(events, [3]string{"observer.back", home, "this node sees most regions again and goes by what it sees"})
	}
	j.isolated = isolated
	return events
}

// settle puts the verdict on a service in a region into its place, region being the verdict on the region as such.
func (j *judging) settle(v view, p *routing.Place, subject healthcheck.Subject, region healthcheck.Verdict) {
	found := j.judge.Verdict(subject)
	switch {
	case found.State != routing.Down:
		delete(j.shut, subject)
	case p.Shut:
		j.shut[subject] = true
	case p.Pool == routing.Down:
		delete(j.shut, subject)
	}
	p.Pool, p.Shut = found.State, j.shut[subject] && !found.Forced
	back := found.Returned
	if region.Returned.After(back) {
		back = region.Returned
	}
	if v.config == nil || back.IsZero() || p.Pool != routing.Up {
		return
	}
	if over := v.config.Health.SlowStart.D(); over > 0 {
		// In hundredths, so that not each look makes another snapshot of the same thing; a region that is back gets some at once.
		left := 1 - v.now.Sub(back).Seconds()/over.Seconds()
		p.Return = min(max(math.Ceil(left*100)/100, 0), 0.99)
	}
}

// sights is what the raw snapshot shows of each region and each service there.
func sights(s *routing.Snapshot, facts []regionFacts) []healthcheck.Sight {
	var out []healthcheck.Sight
	for i, r := range s.Regions {
		f := facts[i]
		seen := healthcheck.Sight{Subject: healthcheck.Subject{Region: r.Name}, State: routing.Up, Evidence: f.evidence, Silent: f.silent, Starting: f.starting}
		switch {
		case facts[i].total == 0: // no node of it was ever met: that is no finding
			seen.State = routing.Unknown
		case r.Dead:
			seen.State = routing.Down
		case r.Drained:
			seen.State = routing.Draining
		}
		out = append(out, seen)
		for _, svc := range s.Services {
			if p := svc.Places[i]; p.HasPool {
				out = append(out, healthcheck.Sight{
					Subject: healthcheck.Subject{Region: r.Name, Service: svc.Name}, State: p.Pool,
					Evidence: strings.TrimSuffix(fmt.Sprintf("%d of its %d nodes live; %s", facts[i].live, facts[i].total, facts[i].doors[svc.Name].evidence), "; "),
				})
			}
		}
	}
	return out
}

// verdictPolicy is how a config wants verdicts to be found.
func verdictPolicy(c *configs.Config) healthcheck.Policy {
	return healthcheck.Policy{Hold: c.Health.Hold.D(), Distrust: float64(c.Health.Panic)}
}

// tellForces writes events for forces that came or went.
func (n *Node) tellForces(old, now []force) {
	for _, f := range missingForces(old, now) {
		n.event("verdict.forced", strings.TrimPrefix(f.key(), forcePrefix),
			fmt.Sprintf("%s by %s until %s: %s", f.State, f.By, f.Until.UTC().Format(time.RFC3339), f.Reason))
	}
	for _, f := range missingForces(now, old) {
		n.event("verdict.unforced", strings.TrimPrefix(f.key(), forcePrefix), "lifted or expired")
	}
}

// missingForces are the forces of all that have is without.
func missingForces(have, all []force) []force {
	return slices.DeleteFunc(slices.Clone(all), func(f force) bool { return slices.Contains(have, f) })
}
