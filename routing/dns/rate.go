package dns

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"
)

// rateSlots is the size of the table of networks, a power of two. Networks that share a slot share a rate; the hash is
// seeded, so nobody can choose whom to share with.
const rateSlots = 1 << 14

// verdict is what becomes of an answer.
type verdict uint8

const (
	pass verdict = iota
	slip         // answer truncated
	drop
)

// rateLimit bounds the answers to each network. A slot holds one number, the time at which the answers given so far
// would have been due at the full rate (the generic cell rate algorithm), so the table never grows and takes no lock.
type rateLimit struct {
	perSecond int
	slip      int
	seed      maphash.Seed
	interval  int64 // nanoseconds between answers at the full rate
	burst     int64 // nanoseconds that a slot may run ahead: one second's answers
	now       func() time.Time
	start     time.Time
	refused   atomic.Uint64
	slots     [rateSlots]atomic.Int64
}

func newRateLimit(perSecond, slip int, now func() time.Time) *rateLimit {
	return &rateLimit{
		perSecond: perSecond, slip: slip,
		seed: maphash.MakeSeed(), interval: max(int64(time.Second)/int64(perSecond), 1), burst: int64(time.Second),
		now: now, start: now(),
	}
}

// take charges one answer to a's network.
func (l *rateLimit) take(a netip.Addr) verdict {
	if a.IsLoopback() {
		return pass // can't be forged from elsewhere, and is where labs and benchmarks run
	}
	slot := &l.slots[l.hash(a)%rateSlots]
	now := int64(l.now().Sub(l.start))
	for {
		due := slot.Load()
		ahead := due - now
		if ahead > l.burst+l.interval { // the clock was set back
			ahead = 0
		}
		if ahead > l.burst {
			if l.slip > 0 && l.refused.Add(1)%uint64(l.slip) == 0 {
				return slip
			}
			return drop
		}
		if slot.CompareAndSwap(due, now+max(ahead, 0)+l.interval) {
			return pass
		}
	}
}

func (l *rateLimit) hash(a netip.Addr) uint64 {
	if a.Is4() {
		b := a.As4()
		return maphash.Bytes(l.seed, b[:3])
	}
	b := a.As16()
	return maphash.Bytes(l.seed, b[:7])
}
