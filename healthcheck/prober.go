package healthcheck

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"landfall/routing"
)

// prober probes one origin with one check, for all targets that share them.
type prober struct {
	// Immutable.
	c   *Checker
	key probeKey
	rt  http.RoundTripper
	own *http.Transport // rt, when it is this prober's alone; else nil

	cancel context.CancelFunc // ends run; nil before it began; guarded by c.mu

	tell sync.Mutex // held while OnChange is called, so that calls for a target keep their order
	mu   sync.Mutex // guards what follows; taken after tell
	m    machine
	subs []Target
	last outcome
	gone bool // no longer wanted: tells nobody any more
}

func newProber(c *Checker, k probeKey) *prober {
	maxAge := staleAfter*k.check.Interval.D() + k.check.Timeout.D()
	p := &prober{c: c, key: k, rt: c.o.Transport, m: newMachine(k.check.Rise, k.check.Fall, maxAge, c.o.Now())}
	if k.tls != nil || k.http != "" && k.http != "auto" || k.check.Type == "grpc" {
		p.own = newTransportFor(k)
		p.rt = p.own
	}
	return p
}

// The first probe goes out at once, but not with all the others of a node that starts.
const maxFirstWait = 100 * time.Millisecond

// While a target was never measured it is probed this many times as often, so that a node that starts knows sooner what
// is down; never more often than minInterval.
const (
	fastStart   = 4
	minInterval = 100 * time.Millisecond
)

// run probes until ctx ends.
func (p *prober) run(ctx context.Context) {
	wait := time.Duration(p.c.o.Rand() * float64(min(maxFirstWait, p.key.check.Interval.D())))
	timer := time.NewTimer(wait)
	defer timer.Stop()
	if p.own != nil {
		defer p.own.CloseIdleConnections()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		o := probe(ctx, p.rt, p.key.origin, p.key.check, p.c.o.Now)
		if ctx.Err() != nil {
			return // cut short by us: it says nothing of the origin
		}
		p.record(o)
		timer.Reset(p.pause(o.took))
	}
}

// pause is the wait for the next probe: an interval, give or take 10%, from the start of the last one.
func (p *prober) pause(took time.Duration) time.Duration {
	interval := p.key.check.Interval.D()
	p.mu.Lock()
	if p.m.state == routing.Unknown {
		interval = min(interval, max(interval/fastStart, minInterval))
	}
	p.mu.Unlock()
	jittered := time.Duration(float64(interval) * (0.9 + 0.2*p.c.o.Rand()))
	return max(jittered-took, time.Millisecond)
}

// record takes a probe's outcome.
func (p *prober) record(o outcome) {
	p.change(o.at, func() (bool, string) {
		p.last = o
		for _, s := range p.services() {
			p.c.o.Metrics.probes.WithLabelValues(s, o.result).Inc()
		}
		healthy := o.result == resultOK
		changed := p.m.step(o.at, healthy)
		reason := o.detail
		if !healthy && p.m.bad > 1 {
			reason = fmt.Sprintf("%s (%d times in a row)", o.detail, p.m.bad)
		}
		return changed, reason
	})
}

// expire looks at the state's age.
func (p *prober) expire() {
	now := p.c.o.Now()
	p.change(now, func() (bool, string) {
		return p.m.expire(now), fmt.Sprintf("no probe ended for %s", p.m.maxAge)
	})
}

// change runs f under the locks and tells the subscribers when it says that the state changed.
func (p *prober) change(now time.Time, f func() (changed bool, reason string)) {
	p.tell.Lock()
	defer p.tell.Unlock()
	p.mu.Lock()
	changed, reason := f()
	state, subs := p.m.state, p.subs
	changed = changed && !p.gone
	if changed {
		p.measure(subs)
	}
	p.mu.Unlock()
	if changed {
		p.c.o.Logger.Info("origin's health changed", "origin", p.key.origin, "state", state, "reason", reason, "at", now)
		p.inform(subs, state, reason)
	}
}

// announce tells the state as it is, of all subscribers or of those given.
func (p *prober) announce(of ...Target) {
	p.tell.Lock()
	defer p.tell.Unlock()
	p.mu.Lock()
	state, reason, subs, gone := p.m.state, p.last.detail, p.subs, p.gone
	if len(of) > 0 {
		subs = of
	}
	if !gone {
		p.measure(subs)
	}
	p.mu.Unlock()
	if gone {
		return
	}
	if reason == "" {
		reason = "not measured yet"
	}
	p.inform(subs, state, reason)
}

// inform calls OnChange. p.tell must be held, p.mu not.
func (p *prober) inform(subs []Target, s routing.State, reason string) {
	for _, t := range subs {
		p.c.o.OnChange(t, s, reason)
	}
}

// measure sets the metric of the state. p.mu must be held, so that a prober that is stopped leaves none behind.
func (p *prober) measure(subs []Target) {
	for _, t := range subs {
		p.c.o.Metrics.set(t, p.m.state)
	}
}

// subscribe replaces the targets and gives back those that are new. What is gone leaves no metric behind.
func (p *prober) subscribe(ts []Target) (fresh []Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.subs {
		if !slices.Contains(ts, t) {
			p.c.o.Metrics.set(t, routing.Unknown)
		}
	}
	for _, t := range ts {
		if !slices.Contains(p.subs, t) {
			fresh = append(fresh, t)
		}
	}
	p.subs = slices.Clone(ts)
	return fresh
}

// stop ends the prober without waiting for it. c.mu must be held.
func (p *prober) stop() {
	if p.cancel != nil {
		p.cancel()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	for _, t := range p.subs {
		p.c.o.Metrics.set(t, routing.Unknown)
	}
}

func (p *prober) subscribers() []Target {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.subs
}

// services are the distinct services of the subscribers. p.mu must be held.
func (p *prober) services() []string {
	var names []string
	for _, t := range p.subs {
		if !slices.Contains(names, t.Service) {
			names = append(names, t.Service)
		}
	}
	return names
}

// result is what is known now; a state too old to be believed is unknown even before anybody noticed.
func (p *prober) result() Result {
	now := p.c.o.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	r := Result{State: p.m.state, Detail: p.last.detail, Since: p.m.since, Last: p.last.at, Duration: p.last.took}
	if p.m.stale(now) {
		r.State, r.Since = routing.Unknown, p.m.last.Add(p.m.maxAge)
		r.Detail = fmt.Sprintf("no probe ended for %s; the last: %s", p.m.maxAge, r.Detail)
	}
	if r.Detail == "" {
		r.Detail = "not measured yet"
	}
	return r
}
