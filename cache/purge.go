package cache

import "time"

// Purge names what to invalidate, always within one service: the first that is set of All, Key, Group, Prefix, and Path; else
// the whole host.
type Purge struct {
	Service string

	All    bool   // everything of the service
	Key    string // everything whose Surrogate-Key or Cache-Tag names it
	Group  string // everything of Origin whose Cache-Groups names it (RFC 9875)
	Host   string // any case, with or without port
	Prefix string // everything of the host whose escaped path begins with it
	Path   string // everything of the host with this escaped path and query: a URL in all variants, schemes and ports

	RawQuery string // with Path, without "?"
	Origin   string // with Group: scheme, host and port, as Policy.GroupsInvalidated tells

	// Soft marks stale instead of removing: what stale-while-revalidate and stale-if-error allow may still be served,
	// and the origin may confirm it. An object that is corrupt, but whose validator still matches, needs a hard purge.
	Soft bool
}

// Purge applies a purge and returns how many objects it takes; for a prefix, which only a walk can tell, behind is
// counted meanwhile. When it returns, no request that comes later is answered by what was asked of the origin before:
// fetches under way still answer those who wait, but what they bring is not stored, or after a soft purge as stale. It
// costs the same whatever it matches, and never concerns what is fetched later.
func (c *Cache) Purge(p Purge) (objects int, behind *Count) {
	now := c.now()
	defer c.wantSweep()
	host := KeyOf(Request{Host: p.Host}).Host
	target, text := cellName{p.Service, ofHost, host}, ""
	switch {
	case p.All:
		target = cellName{p.Service, ofService, ""}
	case p.Key != "":
		target = cellName{p.Service, ofKey, p.Key}
	case p.Group != "":
		target = groupCell(p.Service, p.Origin, p.Group)
	case p.Prefix == "/", p.Prefix == "" && p.Path == "":
	case p.Prefix != "":
		text = p.Prefix
	default:
		u := KeyOf(Request{Service: p.Service, Host: p.Host, Path: p.Path, RawQuery: p.RawQuery}).url()
		return c.store.purge(u, p.Soft, now), nil
	}
	if text != "" {
		behind = c.generations.purgePrefix(target, text, p.Soft, now)
	} else {
		objects = c.generations.purge(target, p.Soft, now)
	}
	c.generations.recorded(target, text, p.Soft, now)
	return objects, behind
}

// SetCutOff tells the cache whether it hears of purges at all. While it doesn't, it confirms each object with the origin
// before it serves it, and only an error of the origin, where stale-if-error allows, lets it serve without.
func (c *Cache) SetCutOff(cutOff bool) { c.cutOff.Store(cutOff) }

// placeOf points at the cells of a key's service and host.
func (c *Cache) placeOf(k Key) []*cell {
	cells := []*cell{
		c.generations.hold(cellName{k.Service, ofService, ""}), c.generations.hold(cellName{k.Service, ofHost, k.Host}),
	}
	if n, ok := k.searchCell(); ok {
		cells = append(cells, c.generations.hold(n))
	}
	return cells
}

// link points an object at its cells and counts it there.
func (c *Cache) link(o *object, k Key, keys, groups []string) {
	o.cells = make([]*cell, 0, 2+len(keys)+len(groups))
	o.cells = append(o.cells, c.placeOf(k)...)
	for _, key := range keys {
		o.cells = append(o.cells, c.generations.hold(cellName{k.Service, ofKey, key}))
	}
	for _, name := range groups {
		o.cells = append(o.cells, c.generations.hold(k.group(name)))
	}
	for _, held := range o.cells {
		c.generations.count(held, o.born.body)
	}
}

// spoiled tells whether a purge came between the begin of a fetch and the arrival of a request: the one must not answer
// the other then.
func (f *fill) spoiled(cells []*cell, arrived uint64) bool {
	if arrived <= f.born.body {
		return false
	}
	fate, _ := fateOf(cells, f.key.Path, f.born, 0)
	fate.by(&f.url, f.born)
	return fate.gen != 0
}

// purgedBefore brings an object that is about to be stored up to date, and tells whether it must not be.
func (f *fill) purgedBefore(o *object) bool {
	var url fate
	url.by(&f.url, o.born)
	if url.hard {
		o.set(isDead)
	}
	if url.softAt != 0 {
		o.softAt.CompareAndSwap(0, url.softAt)
	}
	return o.purged()
}

// purge applies a purge to a URL's objects and fetches, and returns the objects that it took.
func (s *store) purge(u urlKey, soft bool, now time.Time) (objects int) {
	if s.gens.peek(pathCell(u)) != nil || s.gens.record != nil {
		objects = s.gens.purge(pathCell(u), soft, now)
		s.gens.recorded(pathCell(u), "", soft, now)
	}
	hash := u.hash(s.seed)
	sh := s.shardOf(hash)
	sh.mu.Lock()
	gen := s.gens.next(u.cell(), soft, now)
	out := sh.purge(u, hash, gen, soft, now)
	sh.mu.Unlock()
	s.gens.recorded(u.cell(), "", soft, now)
	if !soft {
		for _, o := range out {
			s.budget.remove(o)
			s.leave(o)
		}
	}
	return objects + len(out)
}

// next gives a purge of a URL its generation. For what is on disk it is left in the URL's cell, before anybody can see that
// the number is given out: a scrub that did would take the purge for one that all on disk has been compared with.
func (g *generations) next(n cellName, soft bool, now time.Time) uint64 {
	if g.record == nil {
		return g.now.Add(1)
	}
	p := g.part(n)
	p.mu.Lock()
	defer p.mu.Unlock()
	gen := g.now.Add(1)
	p.cell(g, n).set(gen, soft, now)
	return gen
}

func (sh *shard) purge(u urlKey, hash, gen uint64, soft bool, now time.Time) (out []*object) {
	for f := range sh.fills[u] {
		sh.unshare(f)
		f.url.set(gen, soft, now)
	}
	for o := range sh.index.all(hash) {
		switch {
		case !o.isOf(u) || o.purged(): // the purged are the sweep's
		case !soft:
			o.set(isDead)
			out = append(out, o)
		case o.softAt.CompareAndSwap(0, now.UnixNano()):
			out = append(out, o)
		}
	}
	if !soft {
		for _, o := range out {
			sh.index.remove(o)
		}
	}
	return out
}

// PurgeEverything takes all objects of all services.
func (c *Cache) PurgeEverything() (objects int) {
	defer c.wantSweep()
	objects = c.generations.purgeAll(c.now())
	if c.tier != nil {
		objects = max(objects, c.tier.drop()) // what is in memory is on disk, too
	}
	return objects
}

// purgeAll purges every service that anything stored or under way is of.
func (g *generations) purgeAll(now time.Time) (objects int) {
	for i := range g.parts {
		p := &g.parts[i]
		p.mu.Lock()
		for _, c := range p.cells {
			if c.kind == ofService {
				c.set(g.now.Add(1), false, now)
				objects += int(c.live)
				c.live = 0
			}
		}
		p.mu.Unlock()
	}
	return objects
}
