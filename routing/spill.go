package routing

import (
	"math"
	"time"
)

// Spill is the control of what one region sends on when it is full. It is a value: Next returns the one that follows, so
// that it can be kept by whoever measures, in a node or in a simulation, and needs no clock.
//
// Traffic follows a changed answer late: resolvers and clients keep the old one for a TTL and more. A control that
// doesn't know that would go on raising the share while the relief is under way, then do the same downwards, for ever. So
// it keeps a guess of how much has followed so far, takes the demand that the load and the guess together make likely, and
// leaves the share alone while the load is between its two marks.
type Spill struct {
	// Share of the clients that are sent on, 0 to maxSpill.
	Share float64
	// followed is how much of Share the traffic follows by now, as far as the lag lets expect.
	followed float64
	clear    time.Duration // how long the load has been under the lower mark

	// Beyond is the distance of the nearest clients that are sent on, in microseconds of round trip; 0: they are drawn by a
	// hash. See Aim.
	Beyond uint32
	aimed  float64 // the share that Beyond is for

	// Fit is the share of the configured capacity that the region was found to be able to take: less than all of it when
	// its latency rose well above its baseline before the capacity was reached. 0 stands for 1.
	Fit   float64
	trial trial
}

// Whole is the control without what it learnt by latency.
func (s Spill) Whole() Spill {
	s.Fit, s.trial = 1, trial{}
	return s
}

// Load is what a region has to carry, as it was measured.
type Load struct {
	Ratio   float64 // requests a second, as a share of the capacity
	Stretch float64 // the latency of its origins, as a multiple of its baseline; 0: not known
}

// SpillMarks are a region's two marks, as shares of its capacity.
type SpillMarks struct {
	At   float64 // past this, clients are sent on
	Back float64 // under this, they are let back
}

const (
	// maxSpill keeps some clients in any case: a region without traffic is one of which nothing is known.
	maxSpill = 0.95
	// spillBack is how far below At the load must fall.
	spillBack = 0.10
)

// MarksAt are the marks for a service's spill_at.
func MarksAt(at float64) SpillMarks { return SpillMarks{At: at, Back: math.Max(at-spillBack, 0)} }

// Adopt is a control that goes on from what another node has published.
func (s Spill) Adopt(share, fit float64, beyond uint32) Spill {
	s.Share = math.Min(math.Max(share, 0), maxSpill)
	s.aimed, s.Beyond = s.Share, beyond
	s.Fit = math.Min(math.Max(fit, 0), 1)
	s.trial = trial{wait: refit, rest: refit} // of the other's trials nothing is known
	return s
}

// Told is the share as nodes tell it to each other: in thousandths.
func (s Spill) Told() float64 { return math.Round(s.Share*1000) / 1000 }

// Aim is the control with those chosen that its share sends on. They stay the same for as long as the share does, though
// the distances wander.
func (s Spill) Aim(d *Distances) Spill {
	if told := s.Told(); told != s.aimed {
		s.aimed, s.Beyond = told, d.Beyond(told)
	}
	return s
}

// Ratio is a load as a share of what the region was found to be able to take.
func (s Spill) Ratio(l Load) float64 {
	if s.Fit <= 0 {
		return l.Ratio
	}
	return l.Ratio / s.Fit
}

// Next is the control after dt, in which the region had a load. lag is how long traffic takes to follow, about a TTL. room
// tells whether any other region could take more: while none can, sending on would only move the trouble, so the share
// does not grow.
func (s Spill) Next(l Load, m SpillMarks, room bool, lag, dt time.Duration) Spill {
	if dt <= 0 || lag <= 0 {
		return s
	}
	s.learn(l, lag, dt)
	load := s.Ratio(l)
	step := dt.Seconds() / lag.Seconds()
	s.followed += (s.Share - s.followed) * (1 - math.Exp(-step))
	demand := load / (1 - s.followed)
	// Aim between the marks, nearer to the upper one: what is moved is the excess, and only that.
	target := m.At - (m.At-m.Back)/4
	want := 0.0
	if demand > target {
		want = math.Min(1-target/demand, maxSpill)
	}
	switch {
	case load > m.At && room && want > s.Share:
		s.clear = 0
		s.Share = math.Min(want, s.Share+step)
	case load < m.Back && want < s.Share:
		// Downwards only when it has been clear for a while, and slowly: a region that was full is full again soon.
		if s.clear += dt; s.clear >= lag {
			s.Share = math.Max(want, s.Share-step/4)
		}
	case load >= m.Back:
		s.clear = 0
	}
	if s.Share < 1e-3 {
		s.Share = 0
	}
	return s
}
