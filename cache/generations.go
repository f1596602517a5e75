package cache

import (
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A purge is applied by generation: it takes the next number of one counter and leaves it where those will look that it
// concerns, in the cell of a service, a host, a surrogate key or a cache group. Each fetch notes the counter when it
// begins, so that what was asked before the purge is older than it, however late it is stored, and no clock is asked.
// That costs the same whatever the purge matches. What it made unreachable is reclaimed behind (see sweep).

const (
	partCount = 64

	// maxPrefixes bounds the prefixes of one host that were purged and not swept yet; one more purges the whole host.
	maxPrefixes = 4096
	// maxIdle bounds the cells that only fetches under way may still need; past it these fetches are not stored.
	maxIdle = 1 << 16

	cellBytes = 160 // what an object is charged with for a key of its own, besides the key
)

type cellKind uint8

const (
	ofService cellKind = iota
	ofHost
	ofKey
	ofGroup
	ofSearch // what is stored for a path under its No-Vary-Search
	ofURL    // only what is on disk looks there: in memory, a purge of a URL marks the objects themselves
)

type cellName struct {
	service string
	kind    cellKind
	name    string
}

// mark is the generations of the last purges of one target.
type mark struct {
	hard, soft atomic.Uint64 // 0: never
	softAt     atomic.Int64  // when the soft one came, in Unix nanoseconds
}

func (m *mark) latest() uint64 { return max(m.hard.Load(), m.soft.Load()) }

// set records a purge. Callers hold the lock of the mark's owner.
func (m *mark) set(gen uint64, soft bool, now time.Time) {
	if soft {
		m.softAt.Store(now.UnixNano())
		m.soft.Store(gen)
	} else {
		m.hard.Store(gen)
	}
}

// cell is where the purges of one target are left. Objects and fetches point to their cells, so that a hit looks nothing
// up.
type cell struct {
	cellName
	mark
	prefixed atomic.Uint64 // ofHost: the generation of the last prefix purge

	// Guarded by the part's lock.
	refs     int   // objects and fetches that point here
	live     int64 // objects that no hard purge of this cell has taken
	prefixes *prefixSet
}

// prefixSet is the purged prefixes of a host.
type prefixSet struct {
	mu      sync.RWMutex
	byText  map[string]*Count
	lengths []int // distinct, ascending
}

// Count is how many objects a prefix purge took, which is found out behind it.
type Count struct {
	mark
	gen     uint64
	objects atomic.Int64
	done    atomic.Bool
}

// Load is the count so far, and whether it is final.
func (c *Count) Load() (objects int, done bool) { return int(c.objects.Load()), c.done.Load() }

// generations holds the cells. Its lock order is: a shard's, a part's, a prefix set's.
type generations struct {
	seed  maphash.Seed
	now   atomic.Uint64 // the last generation given out
	floor atomic.Uint64 // fetches that began before it are not stored
	idle  atomic.Int64  // cells without references
	keep  atomic.Uint64 // purges since are not forgotten: something on disk may be older
	parts [partCount]cellPart

	record func(purgeEntry) // nil: nothing is on disk
}

type cellPart struct {
	mu    sync.Mutex
	cells map[cellName]*cell
}

func newGenerations(seed maphash.Seed) *generations {
	g := &generations{seed: seed}
	g.keep.Store(math.MaxUint64)
	for i := range g.parts {
		g.parts[i].cells = make(map[cellName]*cell)
	}
	return g
}

func (g *generations) part(n cellName) *cellPart {
	h := maphash.String(g.seed, n.name) ^ maphash.String(g.seed, n.service)*3 ^ uint64(n.kind)
	return &g.parts[h%partCount]
}

// cell finds or makes the cell of a name. Callers hold the part's lock.
func (p *cellPart) cell(g *generations, n cellName) *cell {
	c := p.cells[n]
	if c == nil {
		n.service, n.name = interned(n.service), strings.Clone(n.name) // not cut out of a header block, which they would keep
		c = &cell{cellName: n}
		p.cells[n] = c
		g.idle.Add(1)
	}
	return c
}

// hold points at the cell of a name.
func (g *generations) hold(n cellName) *cell {
	p := g.part(n)
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.cell(g, n)
	if c.refs++; c.refs == 1 {
		g.idle.Add(-1)
	}
	return c
}

// release is the end of a hold.
func (g *generations) release(c *cell) {
	p := g.part(c.cellName)
	p.mu.Lock()
	defer p.mu.Unlock()
	g.drop(p, c)
}

func (g *generations) drop(p *cellPart, c *cell) {
	if c.refs--; c.refs > 0 {
		return
	}
	g.idle.Add(1)
	if c.latest() == 0 && c.prefixed.Load() == 0 {
		delete(p.cells, c.cellName)
		g.idle.Add(-1)
	}
}

// count enters an object into the count of its cell; uncount takes it out, and lets the cell go.
func (g *generations) count(c *cell, bodyGen uint64) {
	p := g.part(c.cellName)
	p.mu.Lock()
	defer p.mu.Unlock()
	if bodyGen >= c.hard.Load() {
		c.live++
	}
}

func (g *generations) uncount(c *cell, bodyGen uint64) {
	p := g.part(c.cellName)
	p.mu.Lock()
	defer p.mu.Unlock()
	if bodyGen >= c.hard.Load() {
		c.live--
	}
	g.drop(p, c)
}

// purge leaves a purge in a cell and returns how many objects it takes.
func (g *generations) purge(n cellName, soft bool, now time.Time) int {
	p := g.part(n)
	p.mu.Lock()
	c := p.cell(g, n)
	c.set(g.now.Add(1), soft, now)
	objects := c.live
	if !soft {
		c.live = 0
	}
	p.mu.Unlock()
	if g.record == nil && g.idle.Load() > maxIdle {
		g.raise(g.now.Load())
	}
	return int(objects)
}

// purgePrefix leaves a purge of a path's beginnings with the host. Past the bound it is one of the host: more goes than
// was asked for, and nothing stays that should not.
func (g *generations) purgePrefix(n cellName, prefix string, soft bool, now time.Time) *Count {
	p := g.part(n)
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.cell(g, n)
	if c.prefixes == nil {
		c.prefixes = &prefixSet{byText: make(map[string]*Count)}
	}
	s := c.prefixes
	s.mu.Lock()
	defer s.mu.Unlock()
	gen := g.now.Add(1)
	r := &Count{gen: gen}
	if s.byText[prefix] == nil && len(s.byText) >= maxPrefixes {
		c.set(gen, soft, now)
		r.objects.Store(c.live)
		if !soft {
			c.live = 0
		}
		r.done.Store(true)
		return r
	}
	if old := s.byText[prefix]; old != nil { // the newer one takes what the older has not
		old.done.Store(true)
		r.hard.Store(old.hard.Load())
		r.soft.Store(old.soft.Load())
		r.softAt.Store(old.softAt.Load())
	}
	r.set(gen, soft, now)
	s.byText[prefix] = r
	if i, found := slices.BinarySearch(s.lengths, len(prefix)); !found {
		s.lengths = slices.Insert(s.lengths, i, len(prefix))
	}
	c.prefixed.Store(gen)
	return r
}

// raise makes all fetches that began before gen unstorable, and forgets what only they could have needed.
func (g *generations) raise(gen uint64) {
	g.floor.Store(gen)
	g.forget(gen)
}

// forget drops what concerns only what began before gen, when nothing of the kind is left.
func (g *generations) forget(gen uint64) {
	gen = min(gen, g.keep.Load())
	for i := range g.parts {
		p := &g.parts[i]
		p.mu.Lock()
		for name, c := range p.cells {
			if c.prefixes != nil {
				c.prefixes.forget(gen)
			}
			if c.refs == 0 && c.latest() <= gen && c.prefixed.Load() <= gen {
				delete(p.cells, name)
				g.idle.Add(-1)
			}
		}
		p.mu.Unlock()
	}
}

func (s *prefixSet) forget(gen uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lengths = s.lengths[:0]
	for text, r := range s.byText {
		if r.gen <= gen {
			r.done.Store(true)
			delete(s.byText, text)
		} else if i, found := slices.BinarySearch(s.lengths, len(text)); !found {
			s.lengths = slices.Insert(s.lengths, i, len(text))
		}
	}
}

// find calls see with the purged prefixes of a path.
func (s *prefixSet) find(path string, see func(*Count)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, n := range s.lengths {
		if n > len(path) {
			return
		}
		if r := s.byText[path[:n]]; r != nil {
			see(r)
		}
	}
}

// born is the generations that purges compare with: of the fetch that brought the body, which hard purges go by, and of
// the latest that confirmed it, which soft purges go by.
type born struct{ body, last uint64 }

// fate is what purges made of a response.
type fate struct {
	hard   bool
	gen    uint64 // of the latest purge that took it; 0: none did
	softAt int64  // the first soft purge's time, in Unix nanoseconds; 0: none
}

func (f *fate) by(m *mark, b born) {
	if hard := m.hard.Load(); hard > b.body {
		f.hard, f.gen = true, max(f.gen, hard)
	}
	if soft := m.soft.Load(); soft > b.last {
		f.gen = max(f.gen, soft)
		if at := m.softAt.Load(); f.softAt == 0 || at < f.softAt {
			f.softAt = at
		}
	}
}

// fateOf asks all cells of a response. seen: the prefix purges up to this generation are known not to concern it.
func fateOf(cells []*cell, path string, b born, seen uint64) (f fate, prefixed uint64) {
	for _, c := range cells {
		f.by(&c.mark, b)
		if c.kind != ofHost {
			continue
		}
		if prefixed = c.prefixed.Load(); prefixed > max(seen, min(b.body, b.last)) {
			c.prefixes.find(path, func(r *Count) { f.by(&r.mark, b) })
		}
	}
	return f, prefixed
}
