package rtt

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"landfall/routing"
)

const (
	// MaxAge is how long a figure is used: routes change.
	MaxAge = 24 * time.Hour
	// DefaultRows is the bound on rows when Options give none.
	DefaultRows = 1 << 20

	shards = 64
	// unit is the resolution of a figure; most is the largest one, about 6.5 s.
	unit = 100 * time.Microsecond
	most = 1<<16 - 1
	// tick is the resolution of a figure's time.
	tick = 10 * time.Minute
	// smoothing: a connection that was slower than what is known moves the figure by this share, since its minimum may
	// have been taken in a bad moment; a faster one moves it at once.
	smoothing = 8
	// maxPending bounds the changes that wait to be told; the oldest row's later change is told anyway.
	maxPending = 1 << 16
)

// figure is a region's round trip to a prefix: in units, with its time in ticks since the table's epoch. 0 units: none.
type figure struct{ units, at uint16 }

// Table is what is known. All methods are safe for concurrent use.
type Table struct {
	regions int
	self    int // index of the region that observes here, or -1
	perHalf int // rows of a shard
	shards  [shards]shard

	mu      sync.Mutex
	pending map[uint64]struct{} // keys whose own figure changed since the last Deltas
}

type shard struct {
	mu   sync.RWMutex
	rows map[uint64]int32 // into figures, in steps of the number of regions
	figs []figure
	keys []uint64 // of the rows, so that one can be chosen to go
}

// New makes a table for a fleet of regions, of which self (an index, or -1) observes here. rows bounds it; 0: DefaultRows.
func New(regions, self, rows int) *Table {
	if rows <= 0 {
		rows = DefaultRows
	}
	t := &Table{regions: regions, self: self, perHalf: max(rows/shards, 1), pending: map[uint64]struct{}{}}
	for i := range t.shards {
		t.shards[i].rows = map[uint64]int32{}
	}
	return t
}

// key is a prefix as a number: 56 bits of address, and which kind of prefix it is. It is never 0.
func key(a netip.Addr, wide bool) uint64 {
	a = a.Unmap()
	kind, bits := uint64(1), 24
	if a.Is6() {
		kind, bits = 3, 48
	}
	if wide {
		kind++
		bits -= 8
		if a.Is6() {
			bits = 32
		}
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return 0
	}
	b := p.Addr().As16()
	if a.Is4() {
		return uint64(binary.BigEndian.Uint32(b[12:]))<<8 | kind
	}
	return binary.BigEndian.Uint64(b[:8])&^0xff | kind
}

// kindAS marks the key of an autonomous system.
const kindAS = 5

// Network is the autonomous system that a client is in, as far as its country goes: many span the world. The zero value is
// not known.
type Network struct {
	AS      uint32
	Country routing.Country
}

func (n Network) key() uint64 {
	if n.AS == 0 {
		return 0
	}
	return (uint64(n.AS)<<10|uint64(n.Country))<<8 | kindAS
}

func ticks(now time.Time) uint16 { return uint16(now.Unix() / int64(tick/time.Second)) }

// fresh tells whether a figure may be used; times wrap after a year, which is far more than MaxAge.
func (f figure) fresh(now uint16) bool {
	return f.units > 0 && now-f.at <= uint16(MaxAge/tick)
}

func (t *Table) shardOf(k uint64) *shard { return &t.shards[(k*0x9e3779b97f4a7c15)>>58] }

// Observe takes the smallest round trip of one connection of a client in a network.
func (t *Table) Observe(client netip.Addr, in Network, rtt time.Duration, now time.Time) {
	if t.self < 0 || rtt <= 0 || !client.IsValid() || client.IsLoopback() { // a lab's clients are near to every region
		return
	}
	units := uint16(min((rtt+unit/2)/unit, most))
	units = max(units, 1)
	for i, k := range [...]uint64{key(client, false), key(client, true), in.key()} {
		wide := i > 0
		if k == 0 {
			continue
		}
		if t.set(k, t.self, ticks(now), func(old figure, fresh bool) uint16 { return fold(old, fresh, units, wide) }) {
			t.note(k)
		}
	}
}

// fold is a figure after another connection. A wider network's is a mean: its fastest client says little of the others.
func fold(old figure, fresh bool, units uint16, wide bool) uint16 {
	switch diff := int(units) - int(old.units); {
	case !fresh || diff < 0 && !wide:
		return units
	case diff < 0:
		return uint16(int(old.units) + (diff-smoothing+1)/smoothing)
	default:
		return uint16(int(old.units) + (diff+smoothing-1)/smoothing)
	}
}

// set changes one figure; change gets what there was. It tells whether the figure is worth telling: new, renewed, or
// moved by a twentieth.
func (t *Table) set(k uint64, region int, now uint16, change func(old figure, fresh bool) uint16) bool {
	s := t.shardOf(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.rows[k]
	if !ok {
		at = t.newRow(s, k)
	}
	f := &s.figs[int(at)+region]
	fresh := f.fresh(now)
	next := figure{change(*f, fresh), now}
	moved := int(next.units) - int(f.units)
	told := !fresh || now-f.at >= uint16(time.Hour/tick) || moved*20 > int(f.units) || -moved*20 > int(f.units)
	if !told {
		next.at = f.at // its age counts from when it was told
	}
	*f = next
	return told
}

// newRow makes room for k; in a full shard another row goes.
func (t *Table) newRow(s *shard, k uint64) int32 {
	if len(s.keys) < t.perHalf {
		at := int32(len(s.figs))
		s.figs = append(s.figs, make([]figure, t.regions)...)
		s.keys = append(s.keys, k)
		s.rows[k] = at
		return at
	}
	i := rand.IntN(len(s.keys))
	delete(s.rows, s.keys[i])
	at := int32(i * t.regions)
	clear(s.figs[at : int(at)+t.regions])
	s.keys[i], s.rows[k] = k, at
	return at
}

func (t *Table) note(k uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.pending) < maxPending {
		t.pending[k] = struct{}{}
	}
}

// Lookup fills dst, which has an entry for each region, with what was measured of a client's prefix; where nothing was, of
// the wider prefix around it; else of its autonomous system in its country. It returns nil when nothing is known; else dst.
func (t *Table) Lookup(dst []routing.RTT, client netip.Addr, in Network, now time.Time) []routing.RTT {
	if t == nil || !client.IsValid() || len(dst) < t.regions {
		return nil
	}
	clear(dst)
	at := ticks(now)
	known := in.AS != 0 && t.fill(dst, in.key(), at, routing.MeasuredAS)
	known = t.fill(dst, key(client, true), at, routing.MeasuredWide) || known
	if t.fill(dst, key(client, false), at, routing.Measured) || known {
		return dst[:t.regions]
	}
	return nil
}

func (t *Table) fill(dst []routing.RTT, k uint64, now uint16, source routing.Source) (known bool) {
	s := t.shardOf(k)
	s.mu.RLock()
	defer s.mu.RUnlock()
	at, ok := s.rows[k]
	if !ok {
		return false
	}
	for i, f := range s.figs[at : int(at)+t.regions] {
		if f.fresh(now) {
			dst[i] = routing.RTT{Micros: uint32(f.units) * uint32(unit/time.Microsecond), Source: source}
			known = true
		}
	}
	return known
}

// Len is how many rows there are.
func (t *Table) Len() int {
	n := 0
	for i := range t.shards {
		t.shards[i].mu.RLock()
		n += len(t.shards[i].keys)
		t.shards[i].mu.RUnlock()
	}
	return n
}
