package upstream

import (
	"context"
	"errors"
	"math"
	"math/bits"
	"net/http"
	"sync/atomic"
	"time"

	"landfall/configs"
)

// What becomes of hedges, for the metric.
const (
	hedgeWon     = "won"     // the second attempt answered first
	hedgeLost    = "lost"    // the first did after all
	hedgeRefused = "refused" // the budget was spent
)

var errHedgeLost = errors.New("another attempt of the same request answered first")

// Hedge is when the slow requests of one route get a second attempt on another origin, and the route's latency as it was
// measured. One is made for each route. Safe for concurrent use.
type Hedge struct {
	quantile float64       // of the route's latency; 0: after says it
	after    time.Duration // fixed
	budget   float64       // share of the pool's requests
	measured latencies
}

// NewHedge reads a route's config; nil where it has none.
func NewHedge(c *configs.Hedge) *Hedge {
	if c == nil {
		return nil
	}
	quantile, after, _ := c.When()
	return &Hedge{quantile: quantile, after: after, budget: float64(c.Budget)}
}

// delay is how long the first attempt may take; false when too little was measured to tell.
func (h *Hedge) delay() (time.Duration, bool) {
	if h.quantile == 0 {
		return h.after, true
	}
	return h.measured.quantile(h.quantile)
}

// hedgeable tells whether a request may be sent twice at once: it is safe to, and has no body to share.
func hedgeable(r *http.Request) bool {
	return repeatable(r) && (r.Body == nil || r.Body == http.NoBody) && r.Header.Get("Upgrade") == ""
}

type result struct {
	resp   *http.Response
	info   Attempt
	err    error
	second bool
}

// hedged makes a request, and a second one beside it when it is slow. The first good answer is used and the other attempt
// cancelled, which its origin is not blamed for.
func (p *Pool) hedged(r *http.Request, pol RetryPolicy) (*http.Response, Attempt, error) {
	h, started := pol.Hedge, p.o.Now()
	results := make(chan result, 2)
	var runs [2]*exchange
	var cancels [2]context.CancelCauseFunc
	begin := func(i int, avoid *origin) {
		ctx, cancel := context.WithCancelCause(r.Context())
		cancels[i] = cancel
		runs[i] = p.newExchange(r.WithContext(ctx), pol, func() { cancel(context.Canceled) })
		if avoid != nil {
			runs[i].tried = append(runs[i].tried, avoid)
		}
		go func() {
			resp, info, err := runs[i].start()
			results <- result{resp, info, err, i == 1}
		}()
	}
	begin(0, nil)
	running := 1
	var timer <-chan time.Time
	if delay, ok := h.delay(); ok && len(p.members.Load().list) > 1 {
		t := time.NewTimer(delay)
		defer t.Stop()
		timer = t.C
	}
	var last result
	for {
		select {
		case <-timer:
			timer = nil
			if !p.hedges.take(p.o.Now(), h.budget) {
				p.metrics.hedges[hedgeRefused].Inc()
				continue
			}
			begin(1, runs[0].current.Load())
			running++
			continue
		case got := <-results:
			running--
			if last.resp != nil && (got.err != nil || got.info.Cause != "") {
				break // two failures: the earlier response is as good
			}
			discard(last)
			last = got
		}
		if running == 0 || last.err == nil && last.info.Cause == "" {
			break
		}
		timer = nil // the first failed: its retries are over, a hedge would be one more
	}
	h.measured.add(p.o.Now().Sub(started))
	p.settleHedge(runs, cancels, results, running, last.second)
	return last.resp, last.info, last.err
}

// settleHedge counts the outcome and ends the attempt that lost.
func (p *Pool) settleHedge(runs [2]*exchange, cancels [2]context.CancelCauseFunc, results <-chan result, running int, second bool) {
	if runs[1] == nil {
		return
	}
	outcome, loser := hedgeLost, 1
	if second {
		outcome, loser = hedgeWon, 0
	}
	p.metrics.hedges[outcome].Inc()
	if running > 0 {
		cancels[loser](errHedgeLost)
		go func() { discard(<-results) }() // it comes at once: its context has ended
	}
}

// discard lets go of a response that nobody reads.
func discard(r result) {
	if r.resp != nil {
		_ = r.resp.Body.Close()
	}
}

// latencies is a histogram of latencies that forgets: four buckets an octave, from 64 µs to over an hour. Adding takes no
// lock. The zero value is empty.
type latencies struct {
	buckets [latencyBuckets]atomic.Uint32
	added   atomic.Uint64
	cached  atomic.Int64 // the latest quantile, in nanoseconds
}

const (
	latencyBuckets = 112
	latencyLeast   = 16      // 2^16 ns
	latencyEnough  = 50      // requests before a quantile is believed
	latencyRecount = 32      // requests between two counts of the quantile
	latencyHalve   = 1 << 12 // requests after which all counts are halved
)

func (l *latencies) add(d time.Duration) {
	l.buckets[bucketOf(d)].Add(1)
	n := l.added.Add(1)
	if n%latencyHalve == 0 {
		for i := range l.buckets {
			l.buckets[i].Store(l.buckets[i].Load() / 2) // an addition may be lost
		}
	}
	if n%latencyRecount == 0 {
		l.cached.Store(0)
	}
}

func bucketOf(d time.Duration) int {
	n := uint64(max(d, 1<<latencyLeast))
	top := bits.Len64(n) - 1
	return min((top-latencyLeast)*4+int(n>>(top-2)&3), latencyBuckets-1)
}

// upper is the longest latency of a bucket.
func upper(i int) time.Duration {
	return time.Duration(math.Exp2(float64(latencyLeast+i/4)) * float64(5+i%4) / 4)
}

// quantile is the latency that the share q of requests stays below; false when too little was measured.
func (l *latencies) quantile(q float64) (time.Duration, bool) {
	if l.added.Load() < latencyEnough {
		return 0, false
	}
	if d := l.cached.Load(); d != 0 {
		return time.Duration(d), true
	}
	total := uint64(0)
	for i := range l.buckets {
		total += uint64(l.buckets[i].Load())
	}
	rank, seen := uint64(math.Ceil(q*float64(total))), uint64(0)
	for i := range l.buckets {
		if seen += uint64(l.buckets[i].Load()); seen >= rank && seen > 0 {
			d := upper(i)
			l.cached.Store(int64(d))
			return d, true
		}
	}
	return 0, false
}
