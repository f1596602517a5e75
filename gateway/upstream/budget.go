package upstream

import (
	"sync"
	"time"
)

const (
	budgetWindow  = 10  // seconds over which a pool's requests and retries are counted
	budgetMinRate = 3.0 // retries a second that are allowed whatever the traffic
	hedgeMinRate  = 1.0 // hedges a second that are allowed whatever the traffic
)

// budget bounds the retries of a pool to a share of its requests, so that retries can't multiply the load of origins
// that fail because of load. A retry is allowed when the retries of the last 10 seconds, it included, are at most that share
// of the requests of the last 10 seconds; else when the reserve of 3 a second has one left. Safe for concurrent use.
type budget struct {
	mu       sync.Mutex
	start    time.Time // second 0
	second   int64     // the newest second counted
	requests [budgetWindow]int
	retries  [budgetWindow]int
	sumReq   int
	sumRetry int
	minRate  float64 // a second, whatever the traffic; unused ones are saved for as long as the window
	reserve  float64
	refilled time.Time
}

func newBudget(now time.Time, minRate float64) *budget {
	return &budget{start: now, minRate: minRate, reserve: budgetWindow * minRate, refilled: now}
}

// request counts a client's request.
func (b *budget) request(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.advance(now)
	b.requests[b.second%budgetWindow]++
	b.sumReq++
}

// take asks for one retry, of a route whose retries may be that share (0 to 1) of the pool's requests.
func (b *budget) take(now time.Time, share float64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.advance(now)
	if float64(b.sumRetry+1) > share*float64(b.sumReq) {
		if b.reserve < 1 {
			return false
		}
		b.reserve--
	}
	b.retries[b.second%budgetWindow]++
	b.sumRetry++
	return true
}

// advance forgets the seconds that left the window. A clock that goes backwards changes nothing.
func (b *budget) advance(now time.Time) {
	if d := now.Sub(b.refilled); d > 0 {
		b.reserve = min(b.reserve+d.Seconds()*b.minRate, budgetWindow*b.minRate)
		b.refilled = now
	}
	second := int64(now.Sub(b.start) / time.Second)
	for steps := 0; b.second < second && steps < budgetWindow; steps++ {
		b.second++
		i := b.second % budgetWindow
		b.sumReq -= b.requests[i]
		b.sumRetry -= b.retries[i]
		b.requests[i], b.retries[i] = 0, 0
	}
	b.second = max(b.second, second)
}
