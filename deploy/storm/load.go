package storm

import (
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// result is how one request of a client went.
type result struct {
	at   time.Time // when it was sent
	took time.Duration
	good bool // answered with a 200 within the client's patience
	shed bool // refused by the gateway itself, before any work
}

// load sends requests at a steady rate, whatever comes of those before: clients do not wait for each other.
type load struct {
	url      string
	rate     float64
	patience time.Duration
	client   *http.Client

	mu      sync.Mutex
	results []result
}

func newLoad(url string, rate float64, patience time.Duration) *load {
	return &load{url: url, rate: rate, patience: patience, client: &http.Client{Transport: &http.Transport{
		DialContext: (&net.Dialer{Timeout: patience}).DialContext, MaxIdleConnsPerHost: 512, MaxIdleConns: 512, IdleConnTimeout: time.Minute,
	}}}
}

// run sends until ctx ends, and returns when every request has ended.
func (l *load) run(ctx context.Context) {
	defer l.client.CloseIdleConnections()
	var under sync.WaitGroup
	defer under.Wait()
	began, sent := time.Now(), 0
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for due := int(time.Since(began).Seconds() * l.rate); sent < due; sent++ {
			under.Go(l.send)
		}
	}
}

func (l *load) send() {
	ctx, cancel := context.WithTimeout(context.Background(), l.patience)
	defer cancel()
	r := result{at: time.Now()}
	if req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url, nil); err == nil {
		if resp, err := l.client.Do(req); err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			r.good = err == nil && resp.StatusCode == http.StatusOK
			r.shed = resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != ""
		}
	}
	r.took = time.Since(r.at)
	l.mu.Lock()
	l.results = append(l.results, r)
	l.mu.Unlock()
}

// seen is what clients saw between two moments.
type seen struct {
	requests, shed int
	goodput        float64 // good answers a second, by when they came
	p99            time.Duration
}

func (l *load) between(from, to time.Time) (s seen) {
	l.mu.Lock()
	defer l.mu.Unlock()
	good := 0
	var took []time.Duration
	for _, r := range l.results {
		if !r.at.Before(from) && r.at.Before(to) {
			s.requests++
			if r.shed {
				s.shed++
			}
		}
		if end := r.at.Add(r.took); r.good && !end.Before(from) && end.Before(to) {
			good++
			took = append(took, r.took)
		}
	}
	s.goodput = float64(good) / to.Sub(from).Seconds()
	if len(took) > 0 {
		slices.Sort(took)
		s.p99 = took[(len(took)*99+99)/100-1]
	}
	return s
}

// recovered is how long after a moment the goodput was back for good, in steps; false: it never was. A step that is short
// of answers which the next one has too many of is a machine's hiccup, and no relapse.
func (l *load) recovered(from, to time.Time, want float64) (time.Duration, bool) {
	const step = 500 * time.Millisecond
	back, ok := time.Duration(0), false
	for at := from; !at.Add(step).After(to); at = at.Add(step) {
		switch good := l.between(at, at.Add(step)).goodput >= want; {
		case good && !ok:
			back, ok = at.Add(step).Sub(from), true
		case !good && l.between(at, at.Add(2*step)).goodput < want:
			ok = false
		}
	}
	return back, ok
}
