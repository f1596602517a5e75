package cache

import (
	"slices"
	"time"
)

// peek is the cell of a name, if there is one.
func (g *generations) peek(n cellName) *cell {
	p := g.part(n)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cells[n]
}

// leave sets a purge of a given generation in a cell.
func (g *generations) leave(n cellName, gen uint64, soft bool, at int64) {
	p := g.part(n)
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.cell(g, n)
	if soft && gen > c.soft.Load() || !soft && gen > c.hard.Load() {
		c.set(gen, soft, time.Unix(0, at))
	}
}

// recorded tells the disk of a purge that was applied.
func (g *generations) recorded(n cellName, prefix string, soft bool, now time.Time) {
	if g.record != nil {
		g.record(purgeEntry{cellName: n, prefix: prefix != "", text: prefix, gen: g.now.Load(), soft: soft, at: now.UnixNano()})
	}
}

// restore sets a purge that an earlier process applied, for what it left on disk. It is called before anything is stored.
func (g *generations) restore(e purgeEntry) {
	if !e.prefix {
		g.leave(e.cellName, e.gen, e.soft, e.at)
		return
	}
	p := g.part(e.cellName)
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.cell(g, e.cellName)
	if c.prefixes == nil {
		c.prefixes = &prefixSet{byText: make(map[string]*Count)}
	}
	s := c.prefixes
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.byText[e.text]
	if r == nil && len(s.byText) >= maxPrefixes {
		c.set(e.gen, e.soft, time.Unix(0, e.at))
		return
	}
	if r == nil {
		r = &Count{}
		r.done.Store(true)
		s.byText[e.text] = r
	}
	r.gen = max(r.gen, e.gen)
	if e.soft && e.gen > r.soft.Load() || !e.soft && e.gen > r.hard.Load() {
		r.set(e.gen, e.soft, time.Unix(0, e.at))
	}
	if i, found := slices.BinarySearch(s.lengths, len(e.text)); !found {
		s.lengths = slices.Insert(s.lengths, i, len(e.text))
	}
	c.prefixed.Store(max(c.prefixed.Load(), e.gen))
}

// crowded tells whether a host has so many purged prefixes that more would soon become a purge of all of it.
func (g *generations) crowded(n cellName) bool {
	c := g.peek(n)
	if c == nil || c.prefixes == nil {
		return false
	}
	c.prefixes.mu.RLock()
	defer c.prefixes.mu.RUnlock()
	return len(c.prefixes.byText) > maxPrefixes/2
}
