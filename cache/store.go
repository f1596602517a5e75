package cache

import (
	"hash/maphash"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
)

const shardCount = 128

// store finds objects by key, and knows the fetches that are under way. It is cut into shards by URL, so that all that
// belongs to a URL is under one lock: what a purge drops and what a fetch that ends stores can't miss each other. Looking
// up takes no lock.
//
// Locks: a shard's lock is never held while the budget's is taken, nor the other way round.
type store struct {
	seed   maphash.Seed
	budget *budget
	gens   *generations
	shards [shardCount]shard
}

type shard struct {
	index   index
	mu      sync.Mutex                    // of changes to the index, and of the following
	flights map[flightKey]*fill           // fetches that others may join
	fills   map[urlKey]map[*fill]struct{} // all fetches that may store
	results results
	_       [64]byte // keeps neighbours off each other's cache lines
}

// flightKey tells fetches apart that can't share an answer, as far as is known before the answer.
type flightKey struct {
	key     Key
	variant string
}

// results counts requests by result. They are a shard's own, so that hits of different URLs don't share a cache line.
type results [7]atomic.Int64

func (r *results) of(result string) *atomic.Int64 {
	for i, name := range [...]string{Hit, Miss, Stale, Revalidated, Pass, Collapsed} {
		if name == result {
			return &r[i]
		}
	}
	return &r[6] // Failed
}

func newStore(seed maphash.Seed, b *budget, g *generations) *store {
	s := &store{seed: seed, budget: b, gens: g}
	for i := range s.shards {
		sh := &s.shards[i]
		sh.flights = make(map[flightKey]*fill)
		sh.fills = make(map[urlKey]map[*fill]struct{})
	}
	return s
}

func (s *store) shard(u urlKey) *shard { return s.shardOf(u.hash(s.seed)) }

func (s *store) shardOf(hash uint64) *shard { return &s.shards[hash%shardCount] }

// found is what a lookup knows: the object, or whether the URL has others for this key.
type found struct {
	object *object
	others bool
}

// reason is why a request with this result is forwarded (RFC 9211 section 2.2).
func (f found) reason() string {
	switch {
	case f.object != nil:
		return fwdStale
	case f.others:
		return fwdVaryMiss
	}
	return fwdURIMiss
}

// lookup is the matching variant with the latest Date, and of those the newest (RFC 9111 section 4); one that matches by its
// Vary comes before those without (section 4.1), as an origin may forget to send it. hash is that of the key's URL. Without the shard's lock it may overlook an object while the index grows.
func (sh *shard) lookup(hash uint64, key *Key, header http.Header) (f found) {
	best := false // f.object has a Vary
	for o := sh.index.first(hash); o != nil; o = o.chain.Load() {
		if o.hash != hash {
			continue
		}
		same, selected, varies := o.matches(key, header)
		if !same || o.purged() {
			continue
		}
		f.others = true
		if selected && (f.object == nil || varies && !best || varies == best && o.date().After(f.object.date())) {
			f.object, best = o, varies
		}
	}
	return f
}

// join enters a request into the fetch for its key: it returns the fetch that is under way, or registers the one that
// start makes and returns it as the request's own to lead, or returns an object that was stored since the request
// looked. Nothing at all: the cache is closed.
func (s *store) join(key Key, header http.Header, arrived uint64, seen *object, start func() *fill) (f *fill, leads bool, o *object) {
	u := key.url()
	sh := s.shard(u)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	hash := u.hash(s.seed)
	fk := flightKey{key, coding(header)}
	if newest := sh.index.find(hash, func(o *object) bool { return o.isOf(u) }); newest != nil {
		fk.variant = variantOf(newest.varyNames(), header)
	}
	if f := sh.flights[fk]; f != nil && !f.spoiled(f.place, arrived) && f.attach() {
		return f, false, nil
	}
	if o := sh.lookup(hash, &key, header).object; o != nil && o != seen {
		return nil, false, o
	}
	if f = start(); f == nil {
		return nil, false, nil
	}
	f.flight = flightKey{f.key, fk.variant}
	sh.flights[f.flight] = f
	s.enrollIn(sh, f)
	return f, true, nil
}

// enroll registers a fetch that nobody may join, so that purges reach it.
func (s *store) enroll(f *fill) {
	u := f.key.url()
	sh := s.shard(u)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s.enrollIn(sh, f)
}

// enrollIn also notes the generation at which a fetch begins, under the lock, so that a sweep sees each fetch that is
// older than it.
func (s *store) enrollIn(sh *shard, f *fill) {
	gen := s.gens.now.Load()
	f.born = born{gen, gen}
	u := f.key.url()
	fills := sh.fills[u]
	if fills == nil {
		fills = make(map[*fill]struct{})
		sh.fills[u] = fills
	}
	fills[f] = struct{}{}
}

// unshare keeps further requests from joining a fetch.
func (s *store) unshare(f *fill) {
	sh := s.shard(f.key.url())
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.unshare(f)
}

func (sh *shard) unshare(f *fill) {
	if sh.flights[f.flight] == f {
		delete(sh.flights, f.flight)
	}
}

// forget ends a fetch that stores nothing.
func (s *store) forget(f *fill) {
	sh := s.shard(f.key.url())
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.forget(f)
}

func (sh *shard) forget(f *fill) {
	sh.unshare(f)
	u := f.key.url()
	fills := sh.fills[u]
	delete(fills, f)
	if len(fills) == 0 {
		delete(sh.fills, u)
	}
}

// put ends a fetch with an object, which the budget already holds. It replaces what the fetch's request would have
// selected. A fetch that began before a hard purge stores nothing; after a soft one, what it stores is stale.
func (s *store) put(f *fill, o *object) (stored bool) {
	u := f.key.url()
	sh := s.shard(u)
	sh.mu.Lock()
	out, stored := sh.put(u, f, o, s.gens.floor.Load())
	sh.mu.Unlock()
	for _, old := range out {
		s.budget.remove(old)
		s.leave(old)
	}
	return stored
}

func (sh *shard) put(u urlKey, f *fill, o *object, floor uint64) (out []*object, stored bool) {
	sh.forget(f)
	if f.purgedBefore(o) || o.born.body < floor || o.is(isEvicted) {
		return []*object{o}, false
	}
	newer := sh.lookup(o.hash, &f.key, f.header).object
	if newer != nil && (newer.born.body > o.born.body || f.recoded && newer.received > f.from.received) {
		return []*object{o}, false
	}
	variants := 0
	for old := range sh.index.all(o.hash) {
		if !old.isOf(u) {
			continue
		}
		if same, selected, _ := old.matches(&f.key, f.header); same && selected {
			out = append(out, old)
		} else {
			variants++
		}
	}
	for _, old := range out {
		sh.index.remove(old)
	}
	if variants >= maxVariants {
		out = append(out, sh.displace(o.hash, u))
	}
	sh.index.add(o)
	return out, true
}

// displace takes out the oldest variant of a URL that was not reused since the last time, so that a client that makes up
// variants doesn't drive out those in use.
func (sh *shard) displace(hash uint64, u urlKey) (victim *object) {
	var variants []*object // newest first
	for o := range sh.index.all(hash) {
		if o.isOf(u) {
			variants = append(variants, o)
		}
	}
	victim = variants[len(variants)-1]
	for _, o := range slices.Backward(variants) {
		if o.uses.Swap(0) == 0 {
			victim = o
			break
		}
	}
	sh.index.remove(victim)
	return victim
}

// replace puts a freshened object in the place of the one it was made from. It fails when that is no longer stored or
// was purged meanwhile.
func (s *store) replace(f *fill, old, fresh *object) bool {
	victims, ok := s.budget.swap(old, fresh)
	s.drop(victims)
	if !ok {
		s.drop([]*object{old})
		s.leave(fresh)
		return false
	}
	u := f.key.url()
	sh := s.shard(u)
	sh.mu.Lock()
	done := sh.replace(f, old, fresh)
	sh.mu.Unlock()
	s.leave(old)
	if !done {
		s.budget.remove(fresh)
		s.leave(fresh)
	}
	return done
}

func (sh *shard) replace(f *fill, old, fresh *object) bool {
	sh.forget(f)
	if !sh.index.remove(old) || f.purgedBefore(fresh) || fresh.is(isEvicted) {
		return false
	}
	sh.index.add(fresh)
	return true
}

// remove takes an object out of shard and budget, and tells whether it was in.
func (s *store) remove(o *object) bool {
	s.drop([]*object{o})
	return s.budget.remove(o)
}

// drop takes objects out of their shards that the budget no longer holds.
func (s *store) drop(victims []*object) {
	for _, o := range victims {
		sh := s.shardOf(o.hash)
		sh.mu.Lock()
		sh.index.remove(o)
		sh.mu.Unlock()
		s.leave(o)
	}
}

// leave takes an object out of the counts of its cells, once.
func (s *store) leave(o *object) {
	if !o.set(isGone) {
		return
	}
	for _, c := range o.cells {
		if o.is(isDead) && c.kind == ofHost && c.prefixed.Load() > 0 {
			countPrefixes(c, o, true, s.gens.now.Load())
		}
		s.gens.uncount(c, o.born.body)
	}
}

// allFills are the fetches under way.
func (s *store) allFills() (all []*fill) {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for _, fills := range sh.fills {
			all = slices.AppendSeq(all, maps.Keys(fills))
		}
		sh.mu.Unlock()
	}
	return all
}

// clear drops all objects.
func (s *store) clear() {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		all := slices.Collect(sh.index.everything())
		for _, o := range all {
			sh.index.remove(o)
		}
		sh.mu.Unlock()
		for _, o := range all {
			s.budget.remove(o)
			s.leave(o)
		}
	}
}

// reserve takes bytes for a fetch and drops what had to make room.
func (s *store) reserve(n int64) bool {
	victims, ok := s.budget.reserve(n)
	s.drop(victims)
	return ok
}

// hold takes bytes for something else.
func (s *store) hold(n int64) { s.drop(s.budget.hold(n)) }

// release gives back all that was taken by hold.
func (s *store) release() {
	s.budget.mu.Lock()
	held := s.budget.held
	s.budget.mu.Unlock()
	s.hold(-held)
}
