package canary

import (
	"fmt"
	"math"
	"sync"
	"time"
)

// Policy tells what is borne of a canary.
type Policy struct {
	ErrorRate   float64 // how much larger its share of failures may be, 0 to 1; 1: any
	LatencyP99  float64 // how many times the 99th percentile of its latency may be; 0: any
	Window      time.Duration
	MinRequests int     // of each side in the window
	Confidence  float64 // 0 to 1
}

// Side is one of the two that are compared.
type Side int

// The sides.
const (
	Stable Side = iota
	Canary
)

// String is the side's name in metrics and faces.
func (s Side) String() string { return [...]string{"stable", "canary"}[s] }

const (
	slots        = 10 // how finely the window rolls
	looksPer     = 10 // looks in the length of a window
	tests        = 2  // of each look: failures, latency
	bucketsPer2x = 16 // latencies are told apart to 4.4%
	bucketLeast  = 50 * time.Microsecond
	bucketCount  = 22 * bucketsPer2x // up to 3.5 minutes
	topShare     = 0.01              // of requests that are slower than the 99th percentile
)

// Trial counts how the requests of both sides went. Safe for concurrent use; Observe allocates nothing.
type Trial struct {
	mu     sync.Mutex
	policy Policy // immutable
	sides  [2][slots]slot
	looked time.Time
}

// slot is what a side did in one part of the window.
type slot struct {
	at         int64 // which part, counted from 1970
	total, bad uint32
	latencies  [bucketCount]uint32 // of those that did not fail
}

// New begins a trial.
func New(p Policy) *Trial { return &Trial{policy: p} }

// Reset forgets what was counted, so that what comes is judged by itself.
func (t *Trial) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sides = [2][slots]slot{}
}

func (t *Trial) part(now time.Time) int64 {
	return now.UnixNano() / max(int64(t.policy.Window)/slots, 1)
}

// Observe counts one request: whether it failed, and if not how long its answer took.
func (t *Trial) Observe(side Side, failed bool, latency time.Duration, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	part := t.part(now)
	s := &t.sides[side][uint64(part)%slots]
	if s.at != part {
		*s = slot{at: part}
	}
	s.total++
	if failed {
		s.bad++
		return
	}
	s.latencies[bucketOf(latency)]++
}

// bucketOf is the bucket of a latency; bucket i ends at bucketEnd(i).
func bucketOf(d time.Duration) int {
	if d <= bucketLeast {
		return 0
	}
	return min(int(math.Ceil(math.Log2(float64(d)/float64(bucketLeast))*bucketsPer2x-1e-9)), bucketCount-1)
}

func bucketEnd(i int) time.Duration {
	return time.Duration(float64(bucketLeast) * math.Exp2(float64(i)/bucketsPer2x))
}

// Sample is what a side did in the window.
type Sample struct {
	Requests, Failed int
	P99              time.Duration // of those that did not fail, to 4.4%; 0 without any

	latencies [bucketCount]int
}

func (t *Trial) sample(side Side, now time.Time) (s Sample) {
	part := t.part(now)
	for i := range t.sides[side] {
		slot := &t.sides[side][i]
		if age := part - slot.at; age < 0 || age >= slots {
			continue
		}
		s.Requests += int(slot.total)
		s.Failed += int(slot.bad)
		for b, n := range slot.latencies {
			s.latencies[b] += int(n)
		}
	}
	answered := s.Requests - s.Failed
	if answered > 0 {
		s.P99 = s.ranked(answered - int(topShare*float64(answered)))
	}
	return s
}

// ranked is an upper bound, to 4.4%, of the latency of a rank, from 1.
func (s *Sample) ranked(rank int) time.Duration {
	for b, n := range s.latencies {
		if rank -= n; rank <= 0 {
			return bucketEnd(b)
		}
	}
	return bucketEnd(bucketCount - 1)
}

// slowerThan counts the answers that surely took longer than d.
func (s *Sample) slowerThan(d time.Duration) (n int) {
	for b := bucketOf(d) + 1; b < bucketCount; b++ {
		n += s.latencies[b]
	}
	return n
}

// Samples are both sides as they stand.
func (t *Trial) Samples(now time.Time) (stable, canary Sample) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sample(Stable, now), t.sample(Canary, now)
}

// Look judges the canary if it is time to, which is ten times in the length of a window; judges is how many nodes do, each
// by what it saw itself. The reason is empty while nothing speaks against the canary.
//
// A look tests two hypotheses exactly. That the canary's probability to fail is at most the stable side's and what is
// borne; and that at most 1% of its answers take longer than what is borne times the stable side's 99th percentile. What
// the stable side's figure really is, is unknown: it is taken for as bad as half the error probability allows, and the
// canary is tested against that with the other half (Berger and Boos, "P values maximized over a confidence set for the
// nuisance parameter", JASA 89, 1994). All looks in the length of a window, on all nodes, share 1-Confidence evenly
// (Bonferroni), so that looking often does not make false alarms likely.
func (t *Trial) Look(now time.Time, judges int) (reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.policy
	if now.Sub(t.looked) < p.Window/looksPer {
		return ""
	}
	t.looked = now
	stable, canary := t.sample(Stable, now), t.sample(Canary, now)
	if canary.Requests < p.MinRequests || stable.Requests < p.MinRequests {
		return ""
	}
	alpha := (1 - p.Confidence) / (looksPer * tests * float64(max(judges, 1)))
	if moreErrors(stable, canary, p.ErrorRate, alpha) {
		return fmt.Sprintf("%s of its %d requests in %s failed, against %s of the stable side's %d; up to %s more is borne",
			share(canary.Failed, canary.Requests), canary.Requests, p.Window, share(stable.Failed, stable.Requests), stable.Requests, share(int(p.ErrorRate*1e6), 1e6))
	}
	if slower(stable, canary, p.LatencyP99, alpha) {
		return fmt.Sprintf("the 99th percentile of its latency over %d answers in %s is %s, against %s of the stable side's %d; up to %gx is borne",
			canary.Requests-canary.Failed, p.Window, canary.P99.Round(time.Microsecond*100), stable.P99.Round(time.Microsecond*100), stable.Requests-stable.Failed, p.LatencyP99)
	}
	return ""
}

func share(k, n int) string { return fmt.Sprintf("%.3g%%", 100*float64(k)/float64(n)) }

// moreErrors tests whether the canary fails more often than is borne, wrongly with probability alpha at most.
func moreErrors(stable, canary Sample, margin, alpha float64) bool {
	borne := atMost(stable.Failed, stable.Requests, alpha/2) + margin
	return tail(canary.Failed, canary.Requests, borne) <= alpha/2
}

// slower tests whether the canary's 99th percentile is above factor times the stable side's, wrongly with probability
// alpha at most.
func slower(stable, canary Sample, factor, alpha float64) bool {
	n, answered := stable.Requests-stable.Failed, canary.Requests-canary.Failed
	rank, ok := quantileRank(n, 1-topShare, alpha/2)
	if factor <= 0 || !ok {
		return false
	}
	borne := time.Duration(factor * float64(stable.ranked(rank)))
	return tail(canary.slowerThan(borne), answered, topShare) <= alpha/2
}
