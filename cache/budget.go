package cache

import "sync"

// fillShare of the memory may be taken by fetches that are under way; the rest stays with what is stored. Past it, new
// ones pass by without being stored.
const fillShare = 0.75

// budget bounds the bytes of everything stored and being stored. What is evicted is the policy's choice. A hit only counts
// a use in the object, so it takes no lock; the lock here is that of misses.
//
// The evicted are only unlinked here. The caller removes them from the shards after the lock is released.
type budget struct {
	max     int64
	maxFill int64
	metrics *Metrics

	mu      sync.Mutex
	used    int64 // stored and being stored
	filling int64 // being stored
	held    int64 // of used, neither stored nor being stored
	objects int64
	evicted int64
	policy  s3fifo
}

func newBudget(maxBytes int64, m *Metrics) *budget {
	b := &budget{metrics: m, policy: newS3FIFO(maxBytes)}
	b.max = maxBytes - b.policy.bytes()
	b.maxFill = int64(float64(b.max) * fillShare)
	return b
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

// hold takes n bytes, or gives them back, for what is neither an object nor a fill.
func (b *budget) hold(n int64) (victims []*object) {
	b.mu.Lock()
	defer b.mu.Unlock()
	victims = b.makeRoom(n)
	b.charge(n)
	b.held += n
	return victims
}

// commit turns n reserved bytes into an object's own; o.size is at most n.
func (b *budget) commit(o *object, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.charge(o.size - n)
	b.filling -= n
	b.link(o, b.policy.admit(o))
}

// swap puts fresh in the place of old, with which it shares the body, so that the body is never counted twice. When
// it fails, neither is in.
func (b *budget) swap(old, fresh *object) (victims []*object, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	queue := old.queue
	if !b.unlinkLocked(old) {
		queue = queueSmall
	}
	victims = b.makeRoom(fresh.size)
	if b.used+fresh.size > b.max {
		return victims, false // fills hold the rest
	}
	b.charge(fresh.size)
	b.link(fresh, queue)
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
		victim := b.policy.victim()
		if victim == nil {
			return victims
		}
		b.unlinkLocked(victim)
		victim.set(isEvicted)
		victims = append(victims, victim)
		b.evicted++
		b.metrics.evictions.Inc()
	}
	return victims
}

func (b *budget) charge(n int64) {
	b.used += n
	b.metrics.bytes.Add(float64(n))
}

func (b *budget) link(o *object, queue uint8) {
	b.policy.push(o, queue)
	b.objects++
	b.metrics.objects.Inc()
}

func (b *budget) unlinkLocked(o *object) bool {
	if o.queue == queueNone {
		return false
	}
	b.policy.remove(o)
	b.charge(-o.size)
	b.objects--
	b.metrics.objects.Dec()
	return true
}
