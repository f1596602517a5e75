package cache

import "time"

const (
	// sweepRest is the least time between two sweeps; sweepShare is how many times as long as a sweep it lasts at least,
	// so that a storm of purges takes a tenth of a core and no more.
	sweepRest  = 100 * time.Millisecond
	sweepShare = 10

	// After sweepSlice of work a sweep pauses, lest purges and requests that arrive meanwhile wait for a core.
	sweepSlice = 500 * time.Microsecond
	sweepPause = time.Millisecond
)

func (c *Cache) wantSweep() {
	select {
	case c.sweeps <- struct{}{}:
	default:
	}
}

// sweep gives back what purged objects hold, behind the purges. It runs until the cache is closed.
func (c *Cache) sweep() {
	took := time.Duration(0)
	rest := time.NewTimer(0)
	defer rest.Stop()
	for {
		select {
		case <-c.sweeps:
		case <-c.closing:
			return
		}
		rest.Reset(max(sweepRest, sweepShare*took)) // more purges may come meanwhile
		select {
		case <-rest.C:
		case <-c.closing:
			return
		}
		began := c.now()
		c.sweepOnce()
		took = c.now().Sub(began)
	}
}

// sweepOnce walks over all objects, removes the dead, and finishes the counts of the prefix purges that were there when
// it began. Then it forgets the purges that nothing stored or under way is older than.
func (c *Cache) sweepOnce() {
	gen := c.generations.now.Load()
	began := c.now()
	for i := range c.store.shards {
		if c.now().Sub(began) > sweepSlice {
			select {
			case <-time.After(sweepPause):
			case <-c.closing:
				return
			}
			began = c.now()
		}
		for _, o := range c.store.shards[i].dead(gen) {
			c.store.remove(o)
			c.metrics.reclaimed.Inc()
		}
	}
	c.generations.counted(gen)
	for _, f := range c.store.allFills() {
		gen = min(gen, f.born.body)
	}
	c.generations.forget(gen)
}

// dead are the objects that purges have taken. It must see all, so the index may not grow meanwhile; hits take no lock and
// go on.
func (sh *shard) dead(gen uint64) (out []*object) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for o := range sh.index.everything() {
		if o.purged() {
			out = append(out, o)
			continue
		}
		for _, c := range o.cells {
			if c.kind == ofHost && c.prefixed.Load() > o.born.last {
				countPrefixes(c, o, false, gen)
			}
		}
	}
	return out
}

// countPrefixes enters an object into the counts of the prefix purges that took it.
func countPrefixes(c *cell, o *object, hard bool, upTo uint64) {
	c.prefixes.find(o.path(), func(r *Count) {
		if r.done.Load() || r.gen > upTo {
			return
		}
		if hard && r.hard.Load() > o.born.body || !hard && r.soft.Load() == r.gen && r.gen > o.born.last {
			r.objects.Add(1)
		}
	})
}

// counted ends the counts of the prefix purges that one whole sweep has seen.
func (g *generations) counted(upTo uint64) {
	for i := range g.parts {
		p := &g.parts[i]
		p.mu.Lock()
		for _, c := range p.cells {
			if c.prefixes != nil {
				c.prefixes.count(upTo)
			}
		}
		p.mu.Unlock()
	}
}

func (s *prefixSet) count(upTo uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, r := range s.byText {
		if r.gen <= upTo {
			r.done.Store(true)
		}
	}
}
