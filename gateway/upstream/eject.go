package upstream

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"landfall/configs"
)

// Passive ejection: an origin that fails the requests themselves, whatever its health check says, is left out for a
// while. An ejected origin is the last resort of its pool, never out of it, so that ejection alone can't refuse a request.
//
// The moves: in -> ejected by one of the reasons below, when fewer than the allowed share are; ejected -> on trial when its
// time is over; on trial -> in after trialRequests good ones, or ejected again, for longer, by the same reasons, for which
// the few requests of a trial are enough.

// The reasons of an ejection: a closed list, the same in the event and the metric.
const (
	ejectConsecutive = "consecutive_errors"
	ejectRate        = "error_rate"
	ejectLatency     = "latency"
)

const (
	ejectWindow   = 10 * time.Second
	maxEjectTimes = 10                    // the longest ejection, in times of eject.for
	trialRequests = 5                     // requests that decide a trial
	trialShare    = 0.1                   // of its weight, while on trial
	latencyFloor  = 10 * time.Millisecond // slower than the median by less is no outlier, whatever the ratio
	latencyLook   = time.Second           // between two looks for outliers
)

// passive is what ejection knows of one origin.
type passive struct {
	window      window
	consecutive atomic.Int32
	until       atomic.Int64 // nanoseconds since 1970; 0: not ejected
	times       atomic.Int32 // ejections in a row
	trial       atomic.Int32 // requests left of a trial
}

// ejected tells whether the origin is left out now, and ends an ejection whose time is over.
func (o *origin) ejected(now func() time.Time) bool {
	until := o.passive.until.Load()
	if until == 0 {
		return false
	}
	t := now()
	if t.UnixNano() < until {
		return true
	}
	if o.passive.until.CompareAndSwap(until, 0) {
		o.passive.consecutive.Store(0)
		o.passive.window.clear()
		o.passive.trial.Store(trialRequests)
		o.comesBack(t)
		o.pool.tell("origin.returned", o.name, "its ejection is over: on trial with a tenth of its share")
	}
	return false
}

// judge learns from one attempt and ejects the origin when it must.
func (o *origin) judge(ok bool, latency time.Duration) {
	p, c := o.pool, o.pool.o.Eject
	now := p.o.Now()
	at := o.passive.window.at(now)
	if ok {
		at.good.Add(1)
		at.nanos.Add(int64(latency))
		o.passive.consecutive.Store(0)
		if o.passive.trial.Load() > 0 && o.passive.trial.Add(-1) == 0 {
			o.passed(now)
		}
		p.lookForSlow(now)
		return
	}
	at.bad.Add(1)
	n := int(o.passive.consecutive.Add(1))
	sum := o.passive.window.sum(now)
	need, total := uint32(c.MinRequests), sum.good+sum.bad
	if o.passive.trial.Load() > 0 {
		need = min(need, trialRequests)
	}
	switch {
	case c.ConsecutiveErrors > 0 && n >= c.ConsecutiveErrors:
		p.eject(o, ejectConsecutive, fmt.Sprintf("%d failures in a row", n), now)
	case c.ErrorRate > 0 && total >= need && float64(sum.bad) >= float64(c.ErrorRate)*float64(total):
		p.eject(o, ejectRate, fmt.Sprintf("%d of %d requests failed", sum.bad, total), now)
	}
}

// passed ends a trial well, unless the few requests were slow: then the next look decides.
func (o *origin) passed(now time.Time) {
	if slow, _ := o.pool.slow(o, now, trialRequests); slow {
		o.passive.trial.Store(1)
		return
	}
	o.passive.times.Store(0)
}

// lookForSlow compares the origins' latencies, once a second.
func (p *Pool) lookForSlow(now time.Time) {
	last := p.lookedAt.Load()
	if p.o.Eject.Latency <= 0 || now.UnixNano()-last < int64(latencyLook) || !p.lookedAt.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	for _, o := range p.members.Load().list {
		need := uint32(p.o.Eject.MinRequests)
		if o.passive.trial.Load() > 0 {
			need = min(need, trialRequests-1)
		}
		if slow, detail := p.slow(o, now, need); slow {
			p.eject(o, ejectLatency, detail, now)
		}
	}
}

// slow tells whether an origin's mean latency lies beyond the pool's median by the factor that is allowed.
func (p *Pool) slow(o *origin, now time.Time, need uint32) (slow bool, detail string) {
	own := o.passive.window.sum(now)
	if p.o.Eject.Latency <= 0 || own.good < need || own.good == 0 {
		return false, ""
	}
	var means []int64
	for _, other := range p.members.Load().list {
		if s := other.passive.window.sum(now); s.good >= min(uint32(p.o.Eject.MinRequests), trialRequests) {
			means = append(means, s.nanos/int64(s.good))
		}
	}
	if len(means) < 3 {
		return false, ""
	}
	slices.Sort(means)
	mean, median := own.nanos/int64(own.good), means[(len(means)-1)/2]
	if mean < median*int64(p.o.Eject.Latency) || mean-median < int64(latencyFloor) {
		return false, ""
	}
	return true, fmt.Sprintf("its mean latency of %s is %d times the pool's median of %s",
		time.Duration(mean).Round(100*time.Microsecond), mean/max(median, 1), time.Duration(median).Round(100*time.Microsecond))
}

// eject leaves an origin out, when enough others are in.
func (p *Pool) eject(o *origin, reason, detail string, now time.Time) {
	p.stateMu.Lock()
	list := p.members.Load().list
	out := 0
	for _, other := range list {
		if other.passive.until.Load() != 0 {
			out++
		}
	}
	allowed := int(float64(p.o.Eject.Max) * float64(len(list)))
	if len(list) > 1 && p.o.Eject.Max > 0 {
		allowed = max(allowed, 1)
	}
	if o.passive.until.Load() != 0 || out >= allowed {
		p.stateMu.Unlock()
		return
	}
	times := o.passive.times.Add(1)
	length := p.o.Eject.For.D() * time.Duration(min(times, maxEjectTimes))
	o.passive.trial.Store(0)
	o.passive.until.Store(now.Add(length).UnixNano())
	p.stateMu.Unlock()
	p.metrics.ejections[reason].Inc()
	p.tell("origin.ejected", o.name, fmt.Sprintf("%s: %s; left out for %s", reason, detail, length))
}

// normalEject fills in the config language's defaults when nothing at all is said; zeros beside something else mean off.
func normalEject(c configs.Eject) configs.Eject {
	if c == (configs.Eject{}) {
		c = configs.Eject{ConsecutiveErrors: 5, ErrorRate: 0.5, Latency: 5, MinRequests: 20, For: configs.Duration(10 * time.Second), Max: 0.5}
	}
	return c
}
