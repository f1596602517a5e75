package routing

import (
	"math"
	"time"
)

const (
	// strainAt is how far above its baseline latency has to be, for a lag, to say that a region has more than it can take;
	// under calmBelow it has room again.
	strainAt  = 2.0
	calmBelow = 1.5
	// minFit bounds what latency can take away of a capacity: slow origins are not always full ones.
	minFit = 0.3
	// refit is how long a capacity that was found too high takes to be believed in full again.
	refit = 10 * time.Minute
	// While the region still sends clients on, the capacity rises only as a trial, at first refit after it fell. Each trial
	// that fails doubles the wait for the next: to try anew all the time would make the load go up and down for ever.
	maxRest = 12 * time.Hour

	// helpedBelow is the share of the latency above the baseline that may be left, once the region has as little load as
	// latency can bring it down to, for the load to have been the reason.
	helpedBelow = 0.7
	// A latency that less load did not help counts as the region's own, and only one that is blameShare of it as strain.
	blameShare = 1.4
	// judgeLags is how many lags the region is given before it is said that less load did not help it, and judgeHelped how
	// long where it did help, but not enough: the rest of the latency may still be of other reasons.
	judgeLags   = 3
	judgeHelped = time.Hour
)

// trial is what the control remembers of how it came to its Fit.
type trial struct {
	strained time.Duration // how long the latency has been high
	worst    float64       // the highest latency since Fit began to fall
	held     time.Duration // how long the latency has not been low though the region has less load
	left     float64       // the highest latency in that time
	own      float64       // the latency that less load did not help; 0: none
	calm     time.Duration // how long the latency has been low while own is set

	rest, wait time.Duration // until Fit may rise while clients are sent on; the whole of it
	rose       bool          // since Fit last fell
}

// learn corrects the capacity by the latency. It falls to what the region takes when the latency is high, and where that
// does not help down to minFit. What is slow even then is slow for other reasons, and the capacity comes back.
func (s *Spill) learn(l Load, lag, dt time.Duration) {
	if s.Fit <= 0 {
		s.Fit = 1
	}
	t := &s.trial
	t.rest = max(t.rest-dt, 0)
	t.forgetOwn(l.Stretch, lag, dt)
	own := l.Stretch < t.own*blameShare
	switch {
	case own, l.Stretch < calmBelow:
		t.strained, t.held, t.left = 0, 0, 0
		s.raise(dt)
	case l.Stretch >= strainAt && l.Ratio > minFit:
		t.worst = math.Max(t.worst, l.Stretch)
		if t.strained += dt; t.strained >= lag {
			t.strained = 0 // what this changes shows after another lag
			s.lower(l.Ratio)
		}
	default:
		t.strained = 0
		s.judge(l, lag, dt)
	}
}

// judge asks, while the latency is neither low nor a reason to take less, whether what is left of it comes from the load.
func (s *Spill) judge(l Load, lag, dt time.Duration) {
	t := &s.trial
	if s.Fit == 1 {
		return
	}
	t.held, t.left = t.held+dt, math.Max(t.left, l.Stretch)
	patience := max(judgeHelped, t.wait)
	if l.Ratio <= minFit && t.worst > 0 && l.Stretch-1 > helpedBelow*(t.worst-1) {
		patience = judgeLags * lag
	}
	if t.held >= patience {
		t.own, t.held, t.left, t.rest = t.left, 0, 0, 0
	}
}

// forgetOwn drops the latency that is the region's own once it has been low for as long as strain takes to be believed.
func (t *trial) forgetOwn(stretch float64, lag, dt time.Duration) {
	if t.own == 0 || stretch >= calmBelow {
		t.calm = 0
		return
	}
	if t.calm += dt; t.calm >= lag {
		t.own, t.calm = 0, 0
	}
}

// raise lets the capacity grow: at once when nobody is sent on, else when the wait for the next trial is over.
func (s *Spill) raise(dt time.Duration) {
	if s.Fit == 1 {
		if s.Share == 0 && s.trial.own == 0 {
			s.trial = trial{}
		}
		return
	}
	if s.Share > 0 && s.trial.rest > 0 {
		return
	}
	s.trial.rose = true
	s.Fit = math.Min(s.Fit+dt.Seconds()/refit.Seconds(), 1)
}

// lower sets the capacity to what the region has now, where that is less.
func (s *Spill) lower(ratio float64) {
	t := &s.trial
	if ratio < s.Fit {
		switch {
		case t.wait == 0:
			t.wait = refit
		case t.rose:
			t.wait = min(2*t.wait, maxRest)
		}
		s.Fit, t.rose, t.held, t.left = ratio, false, 0, 0
	}
	t.rest = max(t.rest, t.wait)
}
