package healthcheck

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"landfall/routing"
)

// DoorPolicy is how front doors are asked.
type DoorPolicy struct {
	Interval   time.Duration // between two askings of one door, give or take 10%; longer where there are very many doors
	Timeout    time.Duration
	Rise, Fall int
	Distrust   float64 // see Policy.Distrust
}

// DoorSight is what this observer finds of a front door.
type DoorSight struct {
	Region, Service string
	State           routing.State // Up, Down or Unknown
	Since           time.Time     // when the state began
	Last            time.Time     // when the latest answer, or the lack of one, came
	Detail          string
}

// DoorOptions is what a Doors is made of. Passes is needed.
type DoorOptions struct {
	Passes  *Passes
	Now     func() time.Time
	Rand    func() float64 // in [0, 1), safe for concurrent use; nil: math/rand/v2
	Logger  *slog.Logger
	Metrics *DoorMetrics

	transport http.RoundTripper // tests
}

// Doors asks other regions' front doors what a client would meet there: one connection, one request, one answer, for each
// service. The work is the same in good and bad times: one rate, jittered, at most one asking of a door at a time, at most
// maxAsking at once, and never more than askRate a second however many doors there are.
type Doors struct {
	o     DoorOptions
	slots chan struct{}

	mu     sync.Mutex
	policy DoorPolicy
	doors  map[doorKey]*watched
	wake   chan struct{}
	wg     sync.WaitGroup
}

const (
	maxAsking = 32
	askRate   = 64 // a second
)

type doorKey struct{ region, service string }

// watched is a door that this node asks.
type watched struct {
	door   Door
	m      machine
	last   doorResult
	due    time.Time
	asking bool
	turn   int // of the nodes
}

// NewDoors makes one that watches nothing yet.
func NewDoors(o DoorOptions) *Doors {
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
		o.Metrics = NewDoorMetrics(nil)
	}
	if o.transport == nil {
		o.transport = newDoorTransport(o.Now)
	}
	return &Doors{o: o, slots: make(chan struct{}, maxAsking), doors: map[doorKey]*watched{}, wake: make(chan struct{}, 1)}
}

// Update replaces what is watched and how. A door that stays keeps its state and its rhythm. Those with nothing to ask
// (no node, no host, an interval of 0) are left out.
func (d *Doors) Update(p DoorPolicy, doors []Door) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.policy = p
	now := d.o.Now()
	want := map[doorKey]bool{}
	for _, door := range doors {
		if p.Interval <= 0 || door.Host == "" || !slices.ContainsFunc(door.Nodes, func(n DoorNode) bool { return len(n.Addrs) > 0 }) {
			continue
		}
		k := doorKey{door.Region, door.Service}
		want[k] = true
		w := d.doors[k]
		if w == nil {
			w = &watched{m: newMachine(p.Rise, p.Fall, 0, now), due: now.Add(time.Duration(d.o.Rand() * float64(p.Interval)))}
			d.doors[k] = w
		}
		w.door, w.m.rise, w.m.fall = door, p.Rise, p.Fall
	}
	for k, w := range d.doors {
		if !want[k] {
			delete(d.doors, k)
			d.o.Metrics.forget(w.door)
		}
	}
	for _, w := range d.doors {
		w.m.maxAge = staleAfter*d.interval() + p.Timeout
	}
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// interval is the time between two askings of one door. d.mu must be held.
func (d *Doors) interval() time.Duration {
	return max(d.policy.Interval, time.Duration(len(d.doors))*time.Second/askRate)
}

// Run asks until ctx ends, and returns nil when the last asking has.
func (d *Doors) Run(ctx context.Context) error {
	defer d.wg.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-d.wake:
		}
		timer.Reset(d.askDue(ctx))
	}
}

// askDue asks the doors whose time has come and tells how long until the next one's.
func (d *Doors) askDue(ctx context.Context) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.o.Now()
	next := now.Add(time.Minute)
	for _, w := range d.doors {
		if !now.Before(w.due) {
			w.due = now.Add(time.Duration(float64(d.interval()) * (0.9 + 0.2*d.o.Rand())))
			d.ask(ctx, w)
		}
		if w.due.Before(next) {
			next = w.due
		}
	}
	return max(next.Sub(now), time.Millisecond)
}

// ask begins to ask a door, unless it is being asked or too many are. d.mu must be held.
func (d *Doors) ask(ctx context.Context, w *watched) {
	if w.asking {
		return
	}
	select {
	case d.slots <- struct{}{}:
	default:
		return // its state grows old, and says so
	}
	door, timeout := w.door, d.policy.Timeout
	node := door.Nodes[w.turn%len(door.Nodes)]
	addr := w.turn / len(door.Nodes)
	w.turn++
	w.asking = true
	d.wg.Go(func() {
		defer func() { <-d.slots }()
		var r doorResult
		if len(node.Addrs) == 0 {
			r = doorResult{doorConnect, node.Name + " has no address", node.Name, d.o.Now()}
		} else {
			r = askDoor(ctx, d.o.transport, d.o.Passes, door, node.Name, node.Addrs[addr%len(node.Addrs)], timeout, d.o.Now)
		}
		if ctx.Err() == nil {
			d.record(w, r)
		}
	})
}

func (d *Doors) record(w *watched, r doorResult) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w.asking, w.last = false, r
	d.o.Metrics.probes.WithLabelValues(w.door.Region, r.result).Inc()
	changed := w.m.step(r.at, r.result == doorUp || r.result == doorUnknown)
	if d.doors[doorKey{w.door.Region, w.door.Service}] != w {
		return
	}
	d.o.Metrics.set(w.door, w.m.state)
	if changed {
		d.o.Logger.Info("front door changed", "region", w.door.Region, "service", w.door.Service, "state", w.m.state, "detail", r.detail)
	}
}

// Sights are what this observer finds, by region and service. When the front doors of more regions than it can believe are
// silent at once, it suspects its own line and withholds its word on those: suspect says so, and is empty otherwise.
func (d *Doors) Sights() (sights []DoorSight, suspect string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.o.Now()
	dumb, all := map[string]bool{}, map[string]bool{} // regions
	for k, w := range d.doors {
		if _, seen := dumb[k.region]; !seen {
			dumb[k.region] = true
		}
		all[k.region] = true
		dumb[k.region] = dumb[k.region] && w.m.state == routing.Down && w.last.silent()
	}
	down := 0
	for _, silent := range dumb {
		if silent {
			down++
		}
	}
	if down >= 2 && float64(down) > d.policy.Distrust*float64(len(all)) {
		suspect = fmt.Sprintf("the front doors of %d of %d other regions are silent at once: this observer suspects its own line and withholds its word on them", down, len(all))
	}
	for k, w := range d.doors {
		s := DoorSight{Region: k.region, Service: k.service, State: w.m.state, Since: w.m.since, Last: w.last.at, Detail: w.last.detail}
		switch {
		case w.m.stale(now):
			s.State, s.Since, s.Detail = routing.Unknown, w.m.last.Add(w.m.maxAge), "no asking ended for "+w.m.maxAge.String()
		case w.m.state == routing.Up && w.last.result == doorUnknown:
			s.State = routing.Unknown
		case suspect != "" && dumb[k.region]:
			s.State, s.Detail = routing.Unknown, "withheld: "+s.Detail
		}
		sights = append(sights, s)
	}
	slices.SortFunc(sights, func(a, b DoorSight) int {
		return strings.Compare(a.Region+"\x00"+a.Service, b.Region+"\x00"+b.Service)
	})
	return sights, suspect
}
