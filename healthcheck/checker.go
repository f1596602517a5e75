package healthcheck

import (
	"cmp"
	"context"
	"crypto/tls"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"landfall/configs"
	"landfall/routing"
)

// Target is one origin of one service to be checked.
type Target struct {
	Service string
	Region  string
	Origin  string        // URL: http://host:port or https://host:port
	Check   configs.Check // zeros mean the config language's defaults
	TLS     *tls.Config   // what probes of https origins start from; nil: the system's roots. The same pointer means the same
	HTTP    string        // protocol to the origin, as pool.http names it; empty: auto
}

// Options is what a Checker is made of. Only Targets is needed.
type Options struct {
	Targets []Target
	// OnChange hears of each change of a target's state, with the reason in a sentence, and once of each new target, as
	// unknown, when its checking begins. Calls for one target come one after another, with no lock held. nil: nobody hears.
	OnChange  func(t Target, s routing.State, reason string)
	Now       func() time.Time
	Rand      func() float64    // in [0, 1), safe for concurrent use; nil: math/rand/v2
	Logger    *slog.Logger      // nil: discarded
	Metrics   *Metrics          // nil: counted nowhere
	Transport http.RoundTripper // of the probes; nil: one that keeps connections and trusts the system's roots
}

// Result is what is known of a target, for people.
type Result struct {
	Service  string
	Region   string
	Origin   string
	State    routing.State
	Detail   string        // what the latest probe found
	Since    time.Time     // when the state began
	Last     time.Time     // when the latest probe ended; zero: none yet
	Duration time.Duration // of the latest probe
}

// Checker probes targets while Run runs. Its other methods may be called at any time by any goroutine.
type Checker struct {
	o     Options
	owned *http.Transport // nil when the caller gave one

	mu      sync.Mutex
	probers map[probeKey]*prober
	byName  map[[2]string]*prober // by service and origin
	ctx     context.Context       // of Run; nil while it doesn't run
	wg      sync.WaitGroup        // probers that run; added to under mu while ctx is set
}

// probeKey is what makes two targets share a probe.
type probeKey struct {
	origin string
	check  configs.Check
	tls    *tls.Config
	http   string
}

// NewChecker makes a checker; nothing is probed before Run.
func NewChecker(o Options) *Checker {
	if o.OnChange == nil {
		o.OnChange = func(Target, routing.State, string) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	c := &Checker{o: o, probers: map[probeKey]*prober{}, byName: map[[2]string]*prober{}}
	if o.Transport == nil {
		c.owned = newTransport()
		c.o.Transport = c.owned
	}
	c.Update(o.Targets)
	return c
}

// staleTick is how often states are looked at for their age.
const staleTick = 500 * time.Millisecond

// Run probes the targets until ctx ends, and returns nil when the last probe has. It must run once only.
func (c *Checker) Run(ctx context.Context) error {
	c.mu.Lock()
	c.ctx = ctx
	var all []*prober
	for _, p := range c.probers {
		all = append(all, p)
		c.start(p)
	}
	c.mu.Unlock()
	for _, p := range all {
		p.announce()
	}
	tick := time.NewTicker(staleTick)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			c.expire()
		}
	}
	c.mu.Lock()
	c.ctx = nil
	c.mu.Unlock()
	c.wg.Wait()
	if c.owned != nil {
		c.owned.CloseIdleConnections()
	}
	return nil
}

// start runs a prober. c.mu must be held, c.ctx set.
func (c *Checker) start(p *prober) {
	ctx, cancel := context.WithCancel(c.ctx)
	p.cancel = cancel
	c.wg.Go(func() {
		defer cancel()
		p.run(ctx)
	})
}

// expire makes states unknown that no probe has measured for too long, so that a prober that hangs can't freeze them.
func (c *Checker) expire() {
	c.mu.Lock()
	all := make([]*prober, 0, len(c.probers))
	for _, p := range c.probers {
		all = append(all, p)
	}
	c.mu.Unlock()
	for _, p := range all {
		p.expire()
	}
}

// Update replaces the targets. One whose origin and check are unchanged keeps its state and its rhythm, even when it
// moves to another service. OnChange hears of targets that are new, as unknown or as what their shared probe knows.
func (c *Checker) Update(targets []Target) {
	c.mu.Lock()
	want := map[probeKey][]Target{}
	for _, t := range targets {
		t.Check = normalCheck(t.Check)
		k := probeKey{t.Origin, t.Check, t.TLS, t.HTTP}
		if !slices.Contains(want[k], t) {
			want[k] = append(want[k], t)
		}
	}
	c.byName = map[[2]string]*prober{}
	for k, p := range c.probers {
		if want[k] == nil {
			delete(c.probers, k)
			p.stop()
		}
	}
	var told []func()
	for k, ts := range want {
		p := c.probers[k]
		if p == nil {
			p = newProber(c, k)
			c.probers[k] = p
			if c.ctx != nil {
				c.start(p)
			}
		}
		fresh := p.subscribe(ts)
		if c.ctx != nil && len(fresh) > 0 {
			told = append(told, func() { p.announce(fresh...) })
		}
		for _, t := range ts {
			c.byName[[2]string{t.Service, t.Origin}] = p
		}
	}
	c.mu.Unlock()
	for _, tell := range told {
		tell()
	}
}

// State is a target's state, what its latest probe found, and since when the state holds. Unknown for one that isn't
// checked.
func (c *Checker) State(service, origin string) (s routing.State, detail string, since time.Time) {
	c.mu.Lock()
	p := c.byName[[2]string{service, origin}]
	c.mu.Unlock()
	if p == nil {
		return routing.Unknown, "not checked", time.Time{}
	}
	r := p.result()
	return r.State, r.Detail, r.Since
}

// Results are all targets, sorted by service, region and origin.
func (c *Checker) Results() []Result {
	c.mu.Lock()
	all := make([]*prober, 0, len(c.probers))
	for _, p := range c.probers {
		all = append(all, p)
	}
	c.mu.Unlock()
	var results []Result
	for _, p := range all {
		r := p.result()
		for _, t := range p.subscribers() {
			r.Service, r.Region, r.Origin = t.Service, t.Region, t.Origin
			results = append(results, r)
		}
	}
	slices.SortFunc(results, func(a, b Result) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Region, b.Region), cmp.Compare(a.Origin, b.Origin))
	})
	return results
}
