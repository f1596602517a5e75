package cache

import "sync"

// fillShare of the memory may be taken by fetches that are under way; the rest stays with what is stored. Past it, new
// ones pass by without being stored.
const fillShare = 0.75

// budget bounds the bytes of everything stored and being stored, and chooses what is evicted: SIEVE, a queue in order of
// arrival with one bit an object. A hit only sets the bit, so it takes no lock; the lock here is that of misses.
//
// The evicted are only unlinked here. The caller removes them from the shards after the lock is released.
type budget struct {
	max     int64
	maxFill int64
	metrics *Metrics

	mu      sync.Mutex
	used    int64 // stored and being stored
	filling int64 // being stored
	objects int64
	evicted int64
	head    *object // newest
	tail    *object // oldest
	hand    *object // where the next search for a victim begins; nil: the tail
}

// reserve takes n bytes for a fill, and evicts to make room. It fails when fills hold their share.
func (b *budget) reserve(n int64) (victims []*object, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.filling+n > b.maxFill {
		return nil, false
	}
	victims = b.makeRoom(n)
	b.charge(n)
	b.filling += n
	return victims, true
}

// release gives back n bytes of a fill.
func (b *budget) release(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.charge(-n)
	b.filling -= n
}

// commit turns n reserved bytes into an object's own; o.size is at most n.
func (b *budget) commit(o *object, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.charge(o.size - n)
	b.filling -= n
	b.link(o)
}

// swap puts fresh in the place of old, with which it shares the body, so that the body is never counted twice. When
// it fails, neither is in.
func (b *budget) swap(old, fresh *object) (victims []*object, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unlinkLocked(old)
	victims = b.makeRoom(fresh.size)
	if b.used+fresh.size > b.max {
		return victims, false // fills hold the rest
	}
	b.charge(fresh.size)
	b.link(fresh)
	return victims, true
}

// remove takes an object out, and tells whether it was in.
func (b *budget) remove(o *object) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.unlinkLocked(o)
}

// makeRoom evicts until n more bytes fit. What fills hold is below the maximum, so it ends.
func (b *budget) makeRoom(n int64) (victims []*object) {
	for b.used+n > b.max {
		victim := b.victim()
		if victim == nil {
			return victims
		}
		b.unlinkLocked(victim)
		victim.evicted.Store(true)
		victims = append(victims, victim)
		b.evicted++
		b.metrics.evictions.Inc()
	}
	return victims
}

// victim is the next object, from the hand towards the newest, that was not reused since the hand was last there. After
// one whole turn it is whatever comes next, however hot: hits that go on marking must not keep a miss waiting.
func (b *budget) victim() *object {
	o := b.hand
	if o == nil {
		o = b.tail
	}
	for turn := b.objects; o != nil && turn > 0 && o.visited.Swap(false); turn-- {
		if o = o.prev; o == nil {
			o = b.tail
		}
	}
	b.hand = o // unlinking moves it on
	return o
}

func (b *budget) charge(n int64) {
	b.used += n
	b.metrics.bytes.Add(float64(n))
}

func (b *budget) link(o *object) {
	o.linked = true
	o.next = b.head
	if b.head != nil {
		b.head.prev = o
	}
	b.head = o
	if b.tail == nil {
		b.tail = o
	}
	b.objects++
	b.metrics.objects.Inc()
}

func (b *budget) unlinkLocked(o *object) bool {
	if !o.linked {
		return false
	}
	o.linked = false
	if b.hand == o {
		b.hand = o.prev
	}
	if o.prev != nil {
		o.prev.next = o.next
	} else {
		b.head = o.next
	}
	if o.next != nil {
		o.next.prev = o.prev
	} else {
		b.tail = o.prev
	}
	o.prev, o.next = nil, nil
	b.charge(-o.size)
	b.objects--
	b.metrics.objects.Dec()
	return true
}
