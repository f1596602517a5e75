package ratelimit

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Limit is a token bucket a key by the generic cell rate algorithm (GCRA, ITU-T I.371): of each key only the time is
// kept at which its bucket will be full again. Keys live in a table of fixed size, by their hash: one that is full makes
// room by forgetting the key that would soonest be forgiven, so memory is bounded and a flood of keys can only soften the
// limit, never lock anybody out. Nothing is allocated for a request. Safe for concurrent use.
type Limit struct {
	id      uint64
	spacing atomic.Int64 // nanoseconds between two requests in the long run
	whole   atomic.Int64 // nanoseconds that an empty bucket takes to be full
	sets    []set

	// Of a shared limit.
	shares []shareSet // beside sets, under their locks; nil for one of this node alone
	others atomic.Pointer[map[uint64]demand]
}

const (
	tableSets = 1 << 12
	setWays   = 8 // keys of a set: together 32,768 at once
)

type set struct {
	mu   sync.Mutex
	keys [setWays]uint64 // 0: free
	full [setWays]int64  // when the bucket is full again, in nanoseconds since 1970
}

// shareSet is what a shared limit keeps of a set's keys beside their buckets.
type shareSet struct {
	spacing      [setWays]int64  // this node's
	hits, before [setWays]uint32 // asked for in this round and in the one before
}

// Terms are what a limit allows.
type Terms struct {
	Rate  float64 // a second, above 0
	Burst int     // at once, at least 1
}

func (t Terms) spacing() int64 {
	return max(int64(math.Round(float64(time.Second)/t.Rate)), 1)
}

func (t Terms) whole() int64 {
	return int64(min(float64(max(t.Burst, 1))*float64(t.spacing()), math.MaxInt64/4))
}

// New makes a limit of this node alone. single tells that it will have one key only.
func New(t Terms, single bool) *Limit {
	l := &Limit{}
	n := tableSets
	if single {
		n = 1
	}
	l.sets = make([]set, n)
	l.spacing.Store(t.spacing())
	l.whole.Store(t.whole())
	return l
}

// SetTerms changes what the limit allows. What keys have taken counts on: a bucket that was half empty stays half empty.
func (l *Limit) SetTerms(t Terms, now time.Time) {
	was := l.spacing.Swap(t.spacing())
	l.whole.Store(t.whole())
	if was == t.spacing() {
		return
	}
	at, factor := now.UnixNano(), float64(t.spacing())/float64(was)
	for i := range l.sets {
		s := &l.sets[i]
		s.mu.Lock()
		for k := range s.keys {
			if ahead := s.full[k] - at; ahead > 0 {
				s.full[k] = at + int64(min(float64(ahead)*factor, math.MaxInt64/4))
			}
			if l.shares != nil {
				l.shares[i].spacing[k] = int64(min(float64(l.shares[i].spacing[k])*factor, math.MaxInt64/4))
			}
		}
		s.mu.Unlock()
	}
}

// Take asks for one request of a key. When it is refused, wait is how long until one would not be.
func (l *Limit) Take(key uint64, now time.Time) (ok bool, wait time.Duration) {
	key = max(key, 1)
	t := now.UnixNano()
	i := key % uint64(len(l.sets))
	s := &l.sets[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := 0
	for k, held := range s.keys {
		if held == key {
			slot = k
			break
		}
		if s.full[k] < s.full[slot] {
			slot = k
		}
	}
	spacing := l.spacing.Load()
	fresh := s.keys[slot] != key
	if fresh {
		s.keys[slot], s.full[slot] = key, 0
	}
	if l.shares != nil {
		share := &l.shares[i]
		if fresh {
			share.hits[slot], share.before[slot], share.spacing[slot] = 0, 0, l.spacingOf(key, 0)
		}
		share.hits[slot]++
		spacing = share.spacing[slot]
	}
	full := max(s.full[slot], t)
	if ahead, depth := full-t, max(l.whole.Load()-spacing, 0); ahead > depth {
		return false, time.Duration(ahead - depth)
	}
	s.full[slot] = full + spacing
	return true, 0
}
