package cache

import "time"

// PurgeNotes is which of a writer's numbered purges were applied: all up to Low, and those in Above. The cache on disk
// keeps it with the purges themselves, so that a restart neither misses one nor applies one again to what came later.
type PurgeNotes struct {
	Writer string
	Low    uint64
	Above  []uint64
}

// NotePurges keeps notes for the next start, if anything is kept on disk. A purge must have been applied before it is
// noted: one that isn't noted is applied again, which is safe.
func (c *Cache) NotePurges(n PurgeNotes) {
	t := c.tier
	if t == nil || t.off.Load() {
		return
	}
	if err := t.journal.append(n.entry()); err != nil {
		t.c.logger.Warn("that a purge was applied can't be noted; the next start applies it again", "error", err)
	}
}

// NotedPurges are the last notes of each writer that an earlier process kept.
func (c *Cache) NotedPurges() (notes []PurgeNotes) {
	if c.tier == nil {
		return nil
	}
	for _, n := range c.tier.journal.found.notes {
		notes = append(notes, n)
	}
	return notes
}

// Recalled tells whether there is anything from an earlier process on disk, and since when at most no process ran that
// could hear of purges.
func (c *Cache) Recalled() (records int64, away time.Duration) {
	if c.tier == nil {
		return 0, 0
	}
	return c.tier.store.Stats().Records, max(c.now().Sub(c.tier.journal.alive), 0)
}

// SetDoubt tells the cache whether it must doubt that it knows of the purges that came before this process: while it does,
// it confirms what an earlier process left on disk with the origin before it serves it.
func (c *Cache) SetDoubt(doubt bool) { c.doubt.Store(doubt) }

// unsure tells whether an object must be confirmed before it is served, however fresh.
func (c *Cache) unsure(o *object) bool {
	return c.cutOff.Load() || c.doubt.Load() && c.tier != nil && o.born.last < c.tier.boot
}

func (n PurgeNotes) entry() purgeEntry {
	var p packer
	p.number(uint64(len(n.Above)))
	for _, seq := range n.Above {
		p.number(seq)
	}
	return purgeEntry{cellName: cellName{kind: kindNotes, name: n.Writer}, gen: n.Low, text: string(p.b)}
}

func readNotes(e purgeEntry) PurgeNotes {
	n := PurgeNotes{Writer: e.name, Low: e.gen}
	c := cursor{s: e.text}
	for range c.count() {
		n.Above = append(n.Above, c.number())
	}
	return n
}
