package healthcheck

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"landfall/routing"
)

// Subject is what a verdict is about: a region, for one service or (Service empty) as such.
type Subject struct{ Region, Service string }

// Sight is what is seen of a subject at one moment, before anybody has thought about it.
type Sight struct {
	Subject  Subject
	State    routing.State // Up, Down, Draining or Unknown
	Evidence string        // who saw what
	// Silent tells that nothing of it is heard here, whatever others find: where most are silent, this observer is the
	// suspect. Of the observer's own region: it has other nodes, and none of them is heard.
	Silent bool
	// Starting tells that a region is down only in that its nodes have yet to begin. Of one that was never found otherwise that
	// says nothing, or a fleet that starts as a whole would wait out the hold of every region.
	Starting bool
}

// Force is an operator's word: the subject's state, whatever is seen, until a time.
type Force struct {
	Subject Subject
	State   routing.State // Up or Down
	Reason  string
	By      string
	Until   time.Time
}

// Verdict is what a node acts by.
type Verdict struct {
	State    routing.State
	Since    time.Time // when it became so
	Seen     routing.State
	Evidence string    // who saw what, as of At; for a state that is kept or forced, why
	At       time.Time // when the evidence was last looked at
	Forced   bool
	Kept     bool // the observer distrusts itself, or the subject's return is being waited out
	// Returned is when it came up again after it was down, by what was seen; zero while it is not up, and where it never fell.
	Returned time.Time
}

// Change is a verdict that became another.
type Change struct {
	Subject  Subject
	Was, Is  routing.State
	Evidence string
}

// Policy is how a Judge thinks.
type Policy struct {
	// Hold is how long a subject must look well, without a break, before it counts as up again. It doubles with each fall
	// of the last FlapWindow, up to MaxHold.
	Hold time.Duration
	// Distrust is the share of the regions, 0 to 1: when more than this look down at once, this observer suspects itself
	// and keeps its last verdicts. At least two regions must look down, or the only other one together with all other nodes
	// of the own.
	Distrust float64
}

// Bounds of damping.
const (
	FlapWindow = 10 * time.Minute
	MaxHold    = 5 * time.Minute
	maxFalls   = 16
)

// Judge turns sights into verdicts. It is a step machine without clock, lock or I/O; its transitions, all of them:
//
//	anything   seen draining, or unknown     that          neither needs thought: the one is told, the other is no finding
//	unknown    seen up or down               that          what was never measured is believed at once
//	unknown    seen down, but starting       unknown       it isn't to be had yet, which is no finding
//	up         seen down                     down          at once: the sight itself rests on a quorum and on fall counts
//	down       seen up for Hold, unbroken    up            Hold doubles with each fall of the last ten minutes
//	anything   forced                        the forced    until it expires; the sights are counted on meanwhile
//	anything   this observer is cut off      as it was     and Isolated says so
type Judge struct {
	policy   Policy
	cases    map[Subject]*docket
	lonely   time.Time // since when no other node of the own region is heard; zero: one is, or there is none
	isolated bool
	why      string
}

// docket is one subject's case.
type docket struct {
	Verdict
	calm  routing.State // without force
	well  time.Time     // since when it has looked well; zero: it doesn't
	falls []time.Time   // the latest, oldest first
	fell  bool          // it is down after it was seen otherwise
}

// NewJudge makes a judge that has seen nothing.
func NewJudge(p Policy) *Judge { return &Judge{policy: p, cases: map[Subject]*docket{}} }

// SetPolicy changes how it thinks from now on; what it has found stands.
func (j *Judge) SetPolicy(p Policy) { j.policy = p }

// Isolated tells whether this observer distrusts itself, and why.
func (j *Judge) Isolated() (bool, string) { return j.isolated, j.why }

// Step takes what is seen now, of all subjects, and returns the verdicts that changed, in order of sights. home is the
// region of the observer. Subjects that are no longer seen are forgotten.
func (j *Judge) Step(now time.Time, home string, sights []Sight, forces []Force) []Change {
	j.distrust(now, home, sights)
	var changes []Change
	seen := make(map[Subject]bool, len(sights))
	for _, s := range sights {
		seen[s.Subject] = true
		c := j.cases[s.Subject]
		if c == nil {
			c = &docket{calm: routing.Unknown, Verdict: Verdict{State: routing.Unknown, Since: now}}
			j.cases[s.Subject] = c
		}
		c.At, c.Seen, c.Evidence, c.Forced, c.Kept = now, s.State, s.Evidence, false, false
		if j.isolated && s.Subject.Region != home {
			c.Kept, c.Evidence = true, "kept: "+j.why
		} else {
			j.think(now, c, s)
		}
		state := c.calm
		if f, ok := forced(forces, s.Subject, now); ok {
			state, c.Forced, c.Kept = f.State, true, false
			c.Evidence = fmt.Sprintf("forced %s by %s until %s: %s (seen %s)", f.State, f.By, f.Until.UTC().Format(time.RFC3339), f.Reason, s.State)
		}
		if state != c.State {
			changes = append(changes, Change{s.Subject, c.State, state, c.Evidence})
			c.State, c.Since = state, now
		}
	}
	for s := range j.cases {
		if !seen[s] {
			delete(j.cases, s)
		}
	}
	return changes
}

// think is the machine of one subject.
func (j *Judge) think(now time.Time, c *docket, s Sight) {
	seen := s.State
	if seen != routing.Up {
		c.well = time.Time{}
	}
	switch {
	case seen == routing.Down && c.calm == routing.Unknown && s.Starting:
	case seen == routing.Down && c.calm != routing.Down:
		if c.calm != routing.Unknown { // the first finding is no fall
			c.falls, c.fell = append(recent(c.falls, now), now), true
		}
		c.calm, c.Returned = routing.Down, time.Time{}
	case seen == routing.Up && c.calm == routing.Down:
		if c.well.IsZero() {
			c.well = now
		}
		hold := j.hold(now, c)
		if now.Sub(c.well) >= hold {
			if c.calm = routing.Up; c.fell {
				c.Returned, c.fell = now, false
			}
			return
		}
		c.Kept = true
		c.Evidence = strings.TrimSpace(fmt.Sprintf("well since %s; up again after %s of that (%d falls in %s) %s",
			now.Sub(c.well).Round(time.Millisecond), hold, len(recent(c.falls, now)), FlapWindow, c.Evidence))
	default:
		c.calm = seen
	}
}

// hold is how long a subject must look well: doubled with each fall but the latest.
func (j *Judge) hold(now time.Time, c *docket) time.Duration {
	d := j.policy.Hold
	for range max(len(recent(c.falls, now))-1, 0) {
		d = min(2*d, MaxHold)
	}
	return d
}

func recent(falls []time.Time, now time.Time) []time.Time {
	i := 0
	for i < len(falls) && (now.Sub(falls[i]) > FlapWindow || len(falls)-i >= maxFalls) {
		i++
	}
	return falls[i:]
}

// lonelyTogether is how soon after each other the own region's nodes and all other regions fall silent to an observer that is
// cut off.
const lonelyTogether = 10 * time.Second

// distrust decides whether this observer is the suspect: most other regions don't all fall at one moment, nor does the only
// other one together with the nodes next door, but one observer's line does.
func (j *Judge) distrust(now time.Time, home string, sights []Sight) {
	down, fallen, all, lonely := 0, 0, 0, false
	for _, s := range sights {
		if s.Subject.Service != "" {
			continue
		}
		if s.Subject.Region == home {
			lonely = s.Silent
			continue
		}
		all++
		if s.State == routing.Down && !s.Starting || s.Silent {
			down++
			if c := j.cases[s.Subject]; c != nil && c.calm != routing.Down {
				fallen++
			}
		}
	}
	switch {
	case !lonely:
		j.lonely = time.Time{}
	case j.lonely.IsZero():
		j.lonely = now
	}
	alone := lonely && down == all && (j.isolated || now.Sub(j.lonely) <= lonelyTogether)
	most := down >= 2 && float64(down) > j.policy.Distrust*float64(all)
	switch {
	case all == 0 || !most && !alone:
		j.isolated, j.why = false, ""
	case !j.isolated && fallen == 0: // those that had been found down one by one before are no sign of isolation
	case alone:
		j.isolated, j.why = true, "no other node is heard, not even of the own region: this observer is cut off and goes by what it knew"
	default:
		j.isolated = true
		j.why = fmt.Sprintf("%d of %d other regions look down at once: this observer is cut off and goes by what it knew", down, all)
	}
}

// Verdict is what was found of a subject; Unknown when it was never seen.
func (j *Judge) Verdict(s Subject) Verdict {
	if c := j.cases[s]; c != nil {
		return c.Verdict
	}
	return Verdict{State: routing.Unknown, Seen: routing.Unknown}
}

// forced is the force that holds for a subject: its own, else that of its whole region.
func forced(forces []Force, s Subject, now time.Time) (Force, bool) {
	for _, want := range []Subject{s, {Region: s.Region}} {
		i := slices.IndexFunc(forces, func(f Force) bool { return f.Subject == want && now.Before(f.Until) })
		if i >= 0 {
			return forces[i], true
		}
	}
	return Force{}, false
}
