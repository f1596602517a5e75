package upstream

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// The priorities of requests: who is shed last.
const (
	Critical = iota
	Normal
	Background
	priorities
)

// roomFor is the share of the limit that requests of a priority may fill: the rest is kept for the more important.
var roomFor = [priorities]float64{1, 0.9, 0.5}

// limiter learns how many requests an origin can work on at once, from their latency alone (the gradient rule of
// Netflix's concurrency-limits): while the latency of late stays near that without a queue there is room for more; once it
// rises, requests wait in the origin's queue, and the limit falls by the ratio of the two. No request waits here. Asking
// costs two loads; learning is done once a period by whichever request finds it due. Safe for concurrent use.
type limiter struct {
	limit atomic.Uint64 // float bits; 0: no limit
	fixed bool          // by the config
	cap   float64       // the limit never exceeds it

	// Collected since the last step.
	sum     atomic.Int64 // of latencies, in nanoseconds
	count   atomic.Int64
	dropped atomic.Int64 // attempts that the origin refused or let time out
	most    atomic.Int64 // requests in flight
	nextAt  atomic.Int64 // when the next step is due, in nanoseconds since 1970

	mu    sync.Mutex // one step at a time
	model gradient
}

// The periods and bounds of learning.
const (
	limiterPeriod  = 100 * time.Millisecond
	limiterSamples = 10 // latencies that a step needs
	limiterStart   = 20.0
	limiterLeast   = 4.0
)

// newLimiter makes a limiter that is off (0), fixed (above 0), or learns (below 0).
func newLimiter(setting int, bound int64) *limiter {
	l := &limiter{fixed: setting >= 0, cap: float64(bound)}
	start := float64(setting)
	if setting < 0 {
		start = min(limiterStart, l.cap)
		l.model.limit = start
	}
	l.limit.Store(math.Float64bits(start))
	return l
}

// admits tells whether one more request may join those in flight, the new one already counted.
func (l *limiter) admits(inFlight int64, priority int) bool {
	limit := math.Float64frombits(l.limit.Load())
	if limit == 0 {
		return true
	}
	return float64(inFlight) <= max(limit*roomFor[priority], 1)
}

// observe learns from an attempt that ended with headers, or was dropped, at that moment.
func (l *limiter) observe(latency time.Duration, inFlight int64, dropped bool, at time.Time) {
	if l.fixed {
		return
	}
	if dropped {
		l.dropped.Add(1)
	} else {
		l.sum.Add(int64(latency))
		l.count.Add(1)
	}
	if most := l.most.Load(); inFlight > most {
		l.most.CompareAndSwap(most, inFlight)
	}
	now := at.UnixNano()
	if now < l.nextAt.Load() || l.count.Load()+l.dropped.Load() < limiterSamples || !l.mu.TryLock() {
		return
	}
	defer l.mu.Unlock()
	l.nextAt.Store(now + int64(limiterPeriod))
	n, dropsNow := l.count.Swap(0), l.dropped.Swap(0)
	l.model.step(sample{
		mean: float64(l.sum.Swap(0)) / float64(max(n, 1)), count: n, dropped: dropsNow, most: float64(l.most.Swap(0)),
	}, l.cap)
	l.limit.Store(math.Float64bits(l.model.allowed()))
}

// now for people: the limit, 0 when there is none.
func (l *limiter) current() float64 { return math.Float64frombits(l.limit.Load()) }

// sample is what one period showed.
type sample struct {
	mean    float64 // latency, nanoseconds
	count   int64
	dropped int64
	most    float64 // requests in flight at once
}

// gradient is the pure core of the limiter.
type gradient struct {
	limit float64
	long  float64 // latency without a queue, as believed, in nanoseconds; 0: none yet
	steps int     // since the last look without a queue
	best  float64 // the least latency of the look under way
}

const (
	gradientTolerance = 1.5  // latency may rise by so much before the limit falls
	gradientSmoothing = 0.2  // weight of one period in the limit
	gradientIdle      = 1.1  // latency up to which there is no queue at all
	gradientPressed   = 0.8  // share of the limit that is filled when requests press against it, whatever their priority
	gradientBoost     = 0.5  // by so much of itself the limit wants to grow then: what was lost in a storm is back in a second
	gradientDropped   = 0.9  // what the limit is multiplied by when the origin refused work
	gradientDropShare = 0.05 // share of dropped attempts from which it does
	gradientSteepest  = 0.5  // the limit falls by no more than half of it at a time
	gradientLookEvery = 250  // periods from one look without a queue to the next: 25 s
	gradientLookFor   = 4    // periods that it lasts
)

// allowed is the limit that holds now. From time to time it is halved for a few periods: under a load that fills all that
// is allowed only so can be seen what the latency is without the queue that this makes. A latency that rose for good is
// learned by the next look; until then the limit is too low rather than too high.
func (g *gradient) allowed() float64 {
	if g.steps >= gradientLookEvery {
		return max(g.limit/2, limiterLeast)
	}
	return g.limit
}

// step learns from one period.
func (g *gradient) step(s sample, most float64) {
	if float64(s.dropped) > gradientDropShare*float64(s.count+s.dropped) {
		g.limit = max(g.limit*gradientDropped, limiterLeast)
		return
	}
	if s.count == 0 {
		return
	}
	if g.steps++; g.steps > gradientLookEvery {
		if g.best == 0 || s.mean < g.best {
			g.best = s.mean
		}
		if g.steps >= gradientLookEvery+gradientLookFor {
			g.long, g.steps, g.best = g.best, 0, 0
		}
		return
	}
	if g.long == 0 || s.mean < g.long {
		g.long = s.mean
	}
	ratio := min(max(gradientTolerance*g.long/s.mean, gradientSteepest), 1)
	if ratio == 1 && s.most < g.limit/2 {
		return // nobody asks for more room
	}
	want := g.limit*ratio + math.Sqrt(g.limit)
	if s.mean <= gradientIdle*g.long && s.most >= gradientPressed*g.limit {
		want += g.limit * gradientBoost
	}
	g.limit = min(max(g.limit+(want-g.limit)*gradientSmoothing, limiterLeast), most)
}
