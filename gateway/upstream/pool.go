package upstream

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"landfall/configs"
	"landfall/routing"
)

// PoolOptions is what a pool is made of. Only Origins or File is needed; the zero of all else has a sensible meaning.
type PoolOptions struct {
	Service string          // for metrics and events
	Region  string          // for metrics and events
	Origins []string        // URLs; http+dns://, https+dns://, http+srv:// and https+srv:// are looked up, and again when their TTL is over
	File    string          // that lists more of them, and is followed; empty: none
	Weights map[string]int  // by origin; 1 for those that are not in it
	Balance string          // as the config language names it; empty: least_request
	Breaker configs.Breaker // zeros mean the config language's defaults
	Eject   configs.Eject   // the zero value means the config language's defaults
	// SlowStart is how long an origin that comes back takes to its full share. 0: it has it at once.
	SlowStart   time.Duration
	Concurrency int          // requests in flight to an origin before the less important are shed; 0: off, below 0: learned
	Panic       float64      // share of the origins, 0 to 1: when more are down, all are used. 0: 0.5; 1 or more: never
	Metrics     *Metrics     // nil: counted nowhere
	Logger      *slog.Logger // nil: discarded
	Now         func() time.Time
	Rand        func() float64 // in [0, 1), safe for concurrent use; nil: math/rand/v2

	// OnEvent hears of breaker.open, breaker.half_open, breaker.closed (subject: the origin's URL, or service/region for the
	// whole pool), origin.ejected and origin.returned (the origin's URL), pool.panic and pool.panic_over (service/region), with a sentence of detail. It is called on a request's way with no lock
	// held, possibly by many goroutines at once, and must return soon. nil: nobody hears.
	OnEvent       func(kind, subject, detail string)
	HTTP          string        // auto, 1.1, 2 or h2c; empty: auto
	ProxyProtocol string        // off, v1 or v2; empty: off
	ConnectionAge time.Duration // older connections take no new request; 0: any age
	// OnMembers hears that the pool has other origins than before, which Origins tells; not of the first ones. nil: nobody.
	OnMembers   func()
	nameServers []string // for tests; nil: the machine's
	fileEvery   time.Duration
	// Dial opens connections to origins; nil: net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// TLS is what TLS connections to origins start from, for another CA than the system's; nil: the system's roots.
	TLS *tls.Config
}

// OptionsFrom are the options that a config describes; what isn't in a config is the caller's to add.
func OptionsFrom(service, region string, pool configs.Pool, policy configs.PoolPolicy) PoolOptions {
	return PoolOptions{
		Service: service, Region: region, Origins: pool.Origins, File: pool.File, Weights: pool.Weights, Balance: policy.Balance,
		Breaker: policy.Breaker, Eject: policy.Eject, SlowStart: policy.SlowStart.D(), Concurrency: policy.Concurrency.Limit(),
		HTTP: policy.HTTP, ProxyProtocol: policy.ProxyProtocol, ConnectionAge: policy.ConnectionAge.D(),
	}
}

// Pool is the origins of a service in one region. Safe for concurrent use.
type Pool struct {
	// Immutable.
	o       PoolOptions
	balance balance
	metrics *poolMetrics
	budget  *budget
	hedges  *budget
	breaker *breaker    // of the pool as a whole
	tls     *tls.Config // what TLS connections start from

	discovery *discovery // nil when all origins are named by their address

	members   atomic.Pointer[members]
	turn      atomic.Uint64 // round robin
	returning atomic.Int64  // origins that have not their full share yet
	lookedAt  atomic.Int64  // nanoseconds since 1970, of the last look for outliers
	panicking atomic.Bool
	closed    atomic.Bool
	stateMu   sync.Mutex // serialises changes of the origins' states, so that panicking and the ejected share fit them
}

// NewPool makes a pool. An origin whose URL can't be used (validation of the config refuses it) is left out with an
// error in the log. A pool whose origins are
// looked up waits a moment for the first answers and has a goroutine for the next, which Close ends.
func NewPool(o PoolOptions) *Pool {
	o = o.normal()
	p := &Pool{
		o: o, balance: balanceOf(o.Balance), budget: newBudget(o.Now(), budgetMinRate), hedges: newBudget(o.Now(), hedgeMinRate),
		metrics: o.Metrics.of(o.Service, o.Region), tls: tlsConfig(o.TLS),
	}
	whole := o.Breaker
	whole.TripAt = o.Breaker.PoolTripAt
	p.breaker = newBreaker(whole, o.Now, func(from, to gobreaker.State) {
		kind, detail := breakerText(p.breaker, from, to)
		p.tell(kind, p.subject(), "of the whole pool: "+detail)
	})
	p.members.Store(newMembers(nil, p.balance))
	list := make([]Member, len(o.Origins))
	for i, url := range o.Origins {
		list[i] = Member{URL: url, Weight: o.Weights[url]}
	}
	p.discover(list)
	o.Metrics.add(p)
	return p
}

// SetMembers changes what origins the pool has. Those that stay keep their connections, counts and breakers; a new one
// comes in with its slow start; requests under way on one that goes are finished.
func (p *Pool) SetMembers(wanted []Member) {
	p.stateMu.Lock()
	old := p.members.Load()
	list := make([]*origin, 0, len(wanted))
	for _, w := range wanted {
		o := old.byName[w.URL]
		if slices.ContainsFunc(list, func(o *origin) bool { return o.name == w.URL }) {
			continue
		}
		if o == nil {
			var err error
			secure := p.tls
			if w.ServerName != "" && secure.ServerName == "" {
				secure = secure.Clone()
				secure.ServerName = w.ServerName
			}
			if o, err = newOrigin(p, w.URL, secure); err != nil {
				p.o.Logger.Error("an origin is left out of its pool", "service", p.o.Service, "region", p.o.Region, "error", err)
				continue
			}
			if len(old.list) > 0 {
				o.comesBack(p.o.Now())
			}
		}
		o.weight.Store(int64(max(w.Weight, 1)))
		list = append(list, o)
	}
	now := newMembers(list, p.balance)
	p.members.Store(now)
	for _, o := range old.list {
		if now.byName[o.name] == nil {
			o.gone.Store(true)
			if o.rampSince.Swap(0) != 0 {
				p.returning.Add(-1)
			}
			o.transports.Load().closeIdle()
		}
	}
	told := p.panicCheck(now)
	p.stateMu.Unlock()
	told()
}

// subject names the pool in events.
func (p *Pool) subject() string { return p.o.Service + "/" + p.o.Region }

// tell writes an event, with no lock held.
func (p *Pool) tell(kind, subject, detail string) {
	p.o.Logger.Warn(kind, "service", p.o.Service, "region", p.o.Region, "subject", subject, "detail", detail)
	p.o.OnEvent(kind, subject, detail)
}

func (o PoolOptions) normal() PoolOptions {
	o.Breaker, o.Eject = normalBreaker(o.Breaker), normalEject(o.Eject)
	if o.Balance == "" {
		o.Balance = "least_request"
	}
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
	if o.fileEvery <= 0 {
		o.fileEvery = fileEvery
	}
	if o.OnEvent == nil {
		o.OnEvent = func(string, string, string) {}
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{KeepAlive: keepAlive}).DialContext
	}
	return o
}

// Close ends lookups and frees the idle connections. Requests in flight go on, and free theirs when they end.
func (p *Pool) Close() {
	if p.closed.Swap(true) {
		return
	}
	p.o.Metrics.remove(p)
	if p.discovery != nil {
		p.discovery.close()
	}
	for _, o := range p.members.Load().list {
		o.transports.Load().closeIdle()
	}
}

// SetState tells the pool what a health check found of an origin. An origin of which nothing was told is believed up. An
// origin that isn't in the pool is ignored.
func (p *Pool) SetState(name string, s routing.State) {
	p.stateMu.Lock()
	m := p.members.Load()
	told := func() {}
	if o := m.byName[name]; o != nil {
		if was := o.state.Swap(uint32(s)); was == uint32(routing.Down) && s == routing.Up {
			o.comesBack(p.o.Now())
		}
		told = p.panicCheck(m)
	}
	p.stateMu.Unlock()
	told()
}

// panicCheck decides on panic, with stateMu held, and gives what is to be told without it.
func (p *Pool) panicCheck(m *members) (told func()) {
	down := 0
	for _, o := range m.list {
		if o.health() == routing.Down {
			down++
		}
	}
	panics := float64(down) > p.o.Panic*float64(len(m.list))
	if p.panicking.Swap(panics) == panics {
		return func() {}
	}
	kind, detail := "pool.panic", fmt.Sprintf("%d of %d origins look down, more than %g%%: all are used", down, len(m.list), p.o.Panic*100)
	if !panics {
		kind, detail = "pool.panic_over", fmt.Sprintf("%d of %d origins look down: only the others are used", down, len(m.list))
	}
	return func() { p.tell(kind, p.subject(), detail) }
}

// Origins are the URLs of the pool's origins.
func (p *Pool) Origins() []string {
	list := p.members.Load().list
	names := make([]string, len(list))
	for i, o := range list {
		names[i] = o.name
	}
	return names
}

// TLS is what TLS connections to an origin start from when it was looked up under another name than its URL's; nil: what
// the options say. It stays the same for as long as the origin is in the pool.
func (p *Pool) TLS(name string) *tls.Config {
	if o := p.members.Load().byName[name]; o != nil && o.tls != p.tls {
		return o.tls
	}
	return nil
}

// Orders are what operators say of a pool's origins, by URL. Absent ones are left to themselves.
type Orders struct {
	Drained  map[string]bool // used only when no other origin takes the request
	Breakers map[string]Hold
	Pool     *Hold // of the pool's own breaker; nil: it is left to itself
}

// Hold is an operator's word on a breaker, whatever the requests show.
type Hold struct {
	Open bool   // else closed
	Why  string // for the event, such as who and what for
}

// SetOrders puts operators' orders into force, in place of all earlier ones.
func (p *Pool) SetOrders(orders Orders) {
	for _, o := range p.members.Load().list {
		o.drained.Store(orders.Drained[o.name])
		var hold *Hold
		if h, ok := orders.Breakers[o.name]; ok {
			hold = &h
		}
		p.hold(o.breaker, o.name, "", hold)
	}
	p.hold(p.breaker, p.subject(), "of the whole pool: ", orders.Pool)
}

// hold puts an operator's word on a breaker into force, and tells when it is another than before.
func (p *Pool) hold(b *breaker, subject, prefix string, h *Hold) {
	how, detail := int32(forcedNot), "an operator leaves it to itself again"
	if h != nil {
		detail = "by an operator"
		if h.Why != "" {
			detail = h.Why
		}
		if how = forcedClosed; h.Open {
			how = forcedOpen
		}
	}
	if b.force(how) {
		p.tell("breaker."+eventState(b.state()), subject, prefix+detail)
	}
}

// eventState is a breaker's state as the kinds of events have it.
func eventState(s gobreaker.State) string { return strings.ReplaceAll(s.String(), "-", "_") }

// Usable is what routing should know of the pool: Up when a request may succeed now, Unknown when nothing is known of
// any origin that isn't out of use, Draining when only draining ones are left, Down when every origin is down or has an
// open breaker, or the pool's own breaker is open. A half-open breaker counts as usable: without requests it could never close. Panic does not make a pool
// whose origins are all down usable: another region may have better ones; a request that comes all the same is tried.
func (p *Pool) Usable() routing.State {
	best := routing.Down
	if p.breaker.state() == gobreaker.StateOpen {
		return best
	}
	for _, o := range p.members.Load().list {
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
	Breaker string        // of the pool as a whole: closed, half-open or open
	Forced  bool          // an operator opened or closed it
	Balance string        // how an origin is chosen
	Origins []OriginStatus
}

// OriginStatus is an origin at one moment, for people.
type OriginStatus struct {
	URL         string
	State       routing.State // as the health check found it; up without one
	Checked     bool          // a health check told
	Breaker     string        // closed, half-open or open
	Forced      bool          // an operator opened or closed the breaker
	Ejected     bool          // left out for a while because of its requests
	Drained     bool          // by an operator
	InFlight    int
	Limit       int       // of requests in flight, given or learned; 0: none
	Weight      int       // its share beside the others
	Share       float64   // of its weight, 0.1 to 1, while it comes back
	Requests    uint64    // attempts since the pool was made
	Failures    uint64    // of these, those that its breaker counts as failures
	LastFailure string    // cause of the latest failure, empty when there was none
	LastFailed  time.Time // when that was
}

// Status describes the pool, origins in the config's order.
func (p *Pool) Status() PoolStatus {
	s := PoolStatus{Service: p.o.Service, Region: p.o.Region, State: p.Usable(), Panic: p.panicking.Load(), Breaker: p.breaker.state().String(), Forced: p.breaker.forced.Load() != forcedNot, Balance: p.o.Balance}
	for _, o := range p.members.Load().list {
		s.Origins = append(s.Origins, o.status())
	}
	return s
}
