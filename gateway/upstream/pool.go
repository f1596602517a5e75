package upstream

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"landfall/configs"
	"landfall/routing"
)

// PoolOptions is what a pool is made of. Only Origins is needed; the zero of all else has a sensible meaning.
type PoolOptions struct {
	Service string // for metrics and events
	Region  string // for metrics and events
	Origins []string
	Breaker configs.Breaker // zeros mean the config language's defaults
	Panic   float64         // share of the origins, 0 to 1: when more are down, all are used. 0: 0.5; 1 or more: never
	Metrics *Metrics        // nil: counted nowhere
	Logger  *slog.Logger    // nil: discarded
	Now     func() time.Time
	Rand    func() float64 // in [0, 1), safe for concurrent use; nil: math/rand/v2

	// OnEvent hears of breaker.open, breaker.half_open, breaker.closed (subject: the origin's URL), pool.panic and
	// pool.panic_over (subject: service/region), with a sentence of detail. It is called on a request's way with no lock
	// held, possibly by many goroutines at once, and must return soon. nil: nobody hears.
	OnEvent func(kind, subject, detail string)
	// Dial opens connections to origins; nil: net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// TLS is what TLS connections to origins start from, for another CA than the system's; nil: the system's roots.
	TLS *tls.Config
}

// Pool is the origins of a service in one region. Safe for concurrent use.
type Pool struct {
	// Immutable.
	o       PoolOptions
	origins []*origin
	byName  map[string]*origin
	metrics *poolMetrics
	budget  *budget

	panicking atomic.Bool
	closed    atomic.Bool
	stateMu   sync.Mutex // serialises changes of the origins' states, so that panicking fits them
}

// NewPool makes a pool. An origin whose URL can't be used (validation of the config refuses it) is left out with an
// error in the log. The pool has no goroutine of its own; Close frees its idle connections.
func NewPool(o PoolOptions) *Pool {
	o = o.normal()
	p := &Pool{
		o: o, byName: map[string]*origin{}, budget: newBudget(o.Now()), metrics: o.Metrics.of(o.Service, o.Region),
	}
	config := tlsConfig(o.TLS)
	for _, name := range o.Origins {
		if p.byName[name] != nil {
			continue
		}
		org, err := newOrigin(p, name, config)
		if err != nil {
			o.Logger.Error("an origin is left out of its pool", "service", o.Service, "region", o.Region, "error", err)
			continue
		}
		p.byName[name] = org
		p.origins = append(p.origins, org)
	}
	o.Metrics.add(p)
	return p
}

func (o PoolOptions) normal() PoolOptions {
	o.Breaker = normalBreaker(o.Breaker)
	if o.Panic <= 0 {
		o.Panic = 0.5
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	if o.OnEvent == nil {
		o.OnEvent = func(string, string, string) {}
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{KeepAlive: keepAlive}).DialContext
	}
	return o
}

// Close frees the idle connections. Requests in flight go on, and free theirs when they end.
func (p *Pool) Close() {
	if p.closed.Swap(true) {
		return
	}
	p.o.Metrics.remove(p)
	for _, o := range p.origins {
		o.transport.CloseIdleConnections()
	}
}

// SetState tells the pool what a health check found of an origin. An origin of which nothing was told is believed up. An
// origin that isn't in the pool is ignored.
func (p *Pool) SetState(name string, s routing.State) {
	o := p.byName[name]
	if o == nil {
		return
	}
	p.stateMu.Lock()
	o.state.Store(uint32(s))
	down := 0
	for _, o := range p.origins {
		if o.health() == routing.Down {
			down++
		}
	}
	panics := float64(down) > p.o.Panic*float64(len(p.origins))
	changed := p.panicking.Swap(panics) != panics
	p.stateMu.Unlock()
	if !changed {
		return
	}
	kind, detail := "pool.panic", fmt.Sprintf("%d of %d origins look down, more than %g%%: all are used", down, len(p.origins), p.o.Panic*100)
	if !panics {
		kind, detail = "pool.panic_over", fmt.Sprintf("%d of %d origins look down: only the others are used", down, len(p.origins))
	}
	subject := p.o.Service + "/" + p.o.Region
	p.o.Logger.Warn(kind, "pool", subject, "detail", detail)
	p.o.OnEvent(kind, subject, detail)
}

// Usable is what routing should know of the pool: Up when a request may succeed now, Unknown when nothing is known of
// any origin that isn't out of use, Draining when only draining ones are left, Down when every origin is down or has an
// open breaker. A half-open breaker counts as usable: without requests it could never close. Panic does not make a pool
// whose origins are all down usable: another region may have better ones; a request that comes all the same is tried.
func (p *Pool) Usable() routing.State {
	best := routing.Down
	for _, o := range p.origins {
		if o.breaker.state() != gobreaker.StateOpen {
			best = min(best, o.health())
		}
	}
	return best
}

// PoolStatus is a pool at one moment, for people.
type PoolStatus struct {
	Service string
	Region  string
	State   routing.State // see Usable
	Panic   bool          // too many origins look down, so all are used
	Origins []OriginStatus
}

// OriginStatus is an origin at one moment, for people.
type OriginStatus struct {
	URL         string
	State       routing.State // as the health check found it; up without one
	Checked     bool          // a health check told
	Breaker     string        // closed, half-open or open
	InFlight    int
	Requests    uint64    // attempts since the pool was made
	Failures    uint64    // of these, those that its breaker counts as failures
	LastFailure string    // cause of the latest failure, empty when there was none
	LastFailed  time.Time // when that was
}

// Status describes the pool, origins in the config's order.
func (p *Pool) Status() PoolStatus {
	s := PoolStatus{Service: p.o.Service, Region: p.o.Region, State: p.Usable(), Panic: p.panicking.Load()}
	for _, o := range p.origins {
		s.Origins = append(s.Origins, o.status())
	}
	return s
}
