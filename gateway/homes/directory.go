package homes

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"landfall/configs"
)

// Options are what a Directory is made of.
type Options struct {
	Service string
	Regions map[string]int // the ring: weight by region
	Next    map[string]int // the ring that users move to; empty: none do
	// Handover is how long before and after a user's move its writes wait: longer than nodes' clocks differ and than most
	// writes take.
	Handover  time.Duration
	Lookup    *configs.HomeLookup // nil: the ring alone says
	Transport http.RoundTripper   // to the lookup service; nil: one of its own
	Metrics   *Metrics
	Logger    *slog.Logger
	Now       func() time.Time
}

// Why is what made a region a user's home: a closed list, for people and as the metric's label.
type Why string

// What decides.
const (
	ByRing   Why = "ring"   // the hash ring
	Moved    Why = "moved"  // the hash ring that users are moved to
	Pinned   Why = "pinned" // an operator
	LookedUp Why = "lookup" // the lookup service
)

// Home is where a user's data lives.
type Home struct {
	Region string
	Why    Why
	// Old is the region that the user moved from while the migration lasts, and that still has what has not followed yet;
	// empty: none.
	Old string
	// Then are the other regions, in the order in which every node turns to them while the home is away.
	Then []string
	// Wait is how long a write has to wait for the user's move to be over; 0: not at all. Next is its home then.
	Wait time.Duration
	Next string
}

// ErrUnknown tells that nothing is known of a user, since the lookup service fails.
var ErrUnknown = errors.New("the lookup service does not answer, so where the user's data is isn't known")

// Directory finds the homes of one service's users. Safe for concurrent use.
type Directory struct {
	o          Options
	ring, next Ring
	rings      string // fingerprint of the two; empty without a migration
	lookup     *lookup
	move       atomic.Pointer[Move]
	pins       atomic.Pointer[map[string]Pin]
	movers     []Stream
}

// Stream is how many users move from one region to another in a migration, as a share of all users.
type Stream struct {
	From, To string
	Share    float64
}

// New makes a directory. It needs to be closed.
func New(o Options) *Directory {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	d := &Directory{o: o, ring: NewRing(o.Regions), next: NewRing(o.Next)}
	if len(d.next.regions) > 0 {
		d.rings = fingerprint(d.ring, d.next)
		d.movers = streams(d.ring, d.next)
	}
	if o.Lookup != nil {
		d.lookup = newLookup(o)
	}
	d.pins.Store(&map[string]Pin{})
	return d
}

// Close ends the lookups under way in the background and frees their connections.
func (d *Directory) Close() {
	if d.lookup != nil {
		d.lookup.close()
	}
	d.o.Metrics.forget(d.o.Service)
}

// Take puts operators' moves and pins into force, in place of all earlier ones: of moves the one of this service and of
// these rings, of pins those of this service.
func (d *Directory) Take(moves []Move, pins []Pin) {
	var move *Move
	for _, m := range moves {
		if m.Service == d.o.Service && m.Rings == d.rings && d.rings != "" {
			move = &m
		}
	}
	d.move.Store(move) // once: with none in between, users who moved would be sent back for a moment
	own := map[string]Pin{}
	for _, p := range pins {
		if p.Service == d.o.Service {
			own[p.User] = p
		}
	}
	d.pins.Store(&own)
	d.Show()
}

// Share is how much of the key space has moved to the next ring by now.
func (d *Directory) Share() float64 {
	if m := d.move.Load(); m != nil {
		return m.Share(d.o.Now())
	}
	return 0
}

// Find tells where a user's data lives. Only a lookup waits, for a user that isn't in memory: at most the lookup's timeout.
// The error is ErrUnknown.
func (d *Directory) Find(ctx context.Context, user string) (Home, error) {
	key := KeyOf(user)
	if p, ok := (*d.pins.Load())[user]; ok && (p.Until.IsZero() || d.o.Now().Before(p.Until)) {
		return d.settled(p.Region, Pinned, key), nil
	}
	if d.lookup != nil {
		region, known, err := d.lookup.find(ctx, user)
		if err != nil {
			return Home{}, err
		}
		if known {
			return d.settled(region, LookedUp, key), nil
		}
	}
	return d.byRing(key), nil
}

func (d *Directory) settled(region string, why Why, key uint64) Home {
	h := Home{Region: region, Why: why, Then: d.ring.Order(key)}
	h.Then = slices.DeleteFunc(h.Then, func(r string) bool { return r == region })
	return h
}

// byRing is a key's home by the rings and how far the migration is.
func (d *Directory) byRing(key uint64) Home {
	order := d.ring.Order(key)
	h := Home{Why: ByRing}
	if len(order) == 0 {
		return h
	}
	h.Region, h.Then = order[0], order[1:]
	if d.rings == "" {
		return h
	}
	to := d.next.Home(key)
	if to == h.Region {
		return h
	}
	m, place, now := d.move.Load(), placeOf(key), d.o.Now()
	if m == nil {
		return h
	}
	old := h.Region
	if place < m.Share(now) {
		then := d.next.Order(key)
		h = Home{Region: to, Why: Moved, Old: old, Then: then[1:]}
	}
	if at, moves := m.moment(place); moves {
		if over := at.Add(d.o.Handover); now.After(at.Add(-d.o.Handover)) && now.Before(over) {
			h.Wait, h.Next = over.Sub(now), to
			if m.To < m.From {
				h.Next = old
			}
		}
	}
	return h
}

// Status is a service's homes at one moment, for people.
type Status struct {
	Service  string
	Ring     []string // regions
	Next     []string // of the ring that users move to; empty: none do
	Rings    string
	Share    float64 // of the movers that have moved
	Move     *Move   // nil: nobody moves
	Movers   []Stream
	Pins     int
	Handover time.Duration
	Known    int // users that the lookup service told of, in memory
}

// Show describes the directory, and brings its metrics up to the moment.
func (d *Directory) Show() Status {
	s := Status{Service: d.o.Service, Ring: d.ring.regions, Next: d.next.regions, Rings: d.rings, Share: d.Share(), Move: d.move.Load(),
		Movers: d.movers, Pins: len(*d.pins.Load()), Handover: d.o.Handover}
	if d.lookup != nil {
		s.Known = d.lookup.size()
	}
	d.o.Metrics.show(d.o.Service, s.Share, s.Pins)
	return s
}

// streams measures who moves between two rings, by a sample of keys.
func streams(from, to Ring) []Stream {
	const sample = 1 << 14
	counts := map[[2]string]int{}
	for i := range uint64(sample) {
		key := mix(i)
		if a, b := from.Home(key), to.Home(key); a != b {
			counts[[2]string{a, b}]++
		}
	}
	var out []Stream
	for pair, n := range counts {
		out = append(out, Stream{pair[0], pair[1], float64(n) / sample})
	}
	slices.SortFunc(out, func(a, b Stream) int {
		if a.Share != b.Share {
			if a.Share > b.Share {
				return -1
			}
			return 1
		}
		if a.From+a.To < b.From+b.To {
			return -1
		}
		return 1
	})
	return out
}
