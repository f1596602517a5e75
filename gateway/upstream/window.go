package upstream

import (
	"sync/atomic"
	"time"
)

// windowBuckets is how finely a window rolls.
const windowBuckets = 10

// window counts outcomes over a rolling time, without a lock. It may lose a count when a bucket is reused at the moment
// that another core adds to it: what it decides is statistical. The zero value must be given its period.
type window struct {
	period  int64 // of a bucket, in nanoseconds
	buckets [windowBuckets]bucket
}

type bucket struct {
	slot               atomic.Int64 // the period since 1970 that the counts are of
	good, bad, neither atomic.Uint32
	nanos              atomic.Int64 // of the good ones
}

// counts are the sums of a window.
type counts struct {
	good, bad, neither uint32
	nanos              int64
}

func (w *window) at(now time.Time) *bucket {
	slot := now.UnixNano() / w.period
	b := &w.buckets[uint64(slot)%windowBuckets]
	if old := b.slot.Load(); old != slot && b.slot.CompareAndSwap(old, slot) {
		b.good.Store(0)
		b.bad.Store(0)
		b.neither.Store(0)
		b.nanos.Store(0)
	}
	return b
}

// sum adds up what lies within the window.
func (w *window) sum(now time.Time) (c counts) {
	slot := now.UnixNano() / w.period
	for i := range w.buckets {
		b := &w.buckets[i]
		if age := slot - b.slot.Load(); age < 0 || age >= windowBuckets {
			continue
		}
		c.good += b.good.Load()
		c.bad += b.bad.Load()
		c.neither += b.neither.Load()
		c.nanos += b.nanos.Load()
	}
	return c
}

// clear forgets everything.
func (w *window) clear() {
	for i := range w.buckets {
		w.buckets[i].slot.Store(-windowBuckets)
	}
}
