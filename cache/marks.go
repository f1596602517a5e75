package cache

import (
	"hash/maphash"
	"sync/atomic"
	"time"
)

const (
	markSlots = 1 << 14

	// markFor is how long an answer that could not be shared keeps the next requests from waiting for one another.
	markFor = 2 * time.Minute
	// markErrorFor is the same for a failing origin, which is expected to recover.
	markErrorFor = time.Second
)

// marks remembers, in constant memory and without locks, which keys were last answered by something that could not be
// shared (hit-for-miss). It holds hashes only: a collision costs two keys a collapse, never an answer, as nothing but
// waiting is decided by it.
type marks struct {
	seed  maphash.Seed
	start time.Time
	slots [markSlots]atomic.Uint64 // upper 32 bits: of the hash; lower: milliseconds after start, of which it wraps after 49 days
}

func (m *marks) slot(k Key) (slot *atomic.Uint64, tag uint64) {
	h := k.url().hash(m.seed)*0x9E3779B97F4A7C15 ^ maphash.String(m.seed, k.Scheme) ^ maphash.String(m.seed, k.Port)<<1 ^ maphash.String(m.seed, k.Extra)<<2
	return &m.slots[h%markSlots], h >> 32 << 32
}

func (m *marks) now(now time.Time) uint32 { return uint32(now.Sub(m.start) / time.Millisecond) }

func (m *marks) set(k Key, now time.Time, d time.Duration) {
	slot, tag := m.slot(k)
	slot.Store(tag | uint64(m.now(now)+uint32(d/time.Millisecond)))
}

func (m *marks) has(k Key, now time.Time) bool {
	slot, tag := m.slot(k)
	v := slot.Load()
	return v != 0 && v>>32<<32 == tag && int32(uint32(v)-m.now(now)) > 0
}

func (m *marks) clear(k Key) {
	slot, tag := m.slot(k)
	if v := slot.Load(); v != 0 && v>>32<<32 == tag {
		slot.CompareAndSwap(v, 0)
	}
}
