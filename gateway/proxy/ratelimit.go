package proxy

import (
	"math"
	"sync"
	"time"

	"landfall/configs"
)

// rateLimit is a token bucket a key by the generic cell rate algorithm (GCRA, ITU-T I.371): of each key only the time is
// kept at which its bucket will be full again. Keys live in a table of fixed size, by their hash: one that is full makes
// room by forgetting the key that would soonest be forgiven, so memory is bounded and a flood of keys can only soften the
// limit, never lock anybody out. Nothing is allocated for a request. Safe for concurrent use.
type rateLimit struct {
	spacing time.Duration // between two requests in the long run
	depth   time.Duration // how far ahead of time a burst may be
	sets    []rateSet
}

const (
	rateSets = 1 << 12
	rateWays = 8 // keys of a set: together 32,768 at once
)

type rateSet struct {
	mu   sync.Mutex
	keys [rateWays]uint64 // 0: free
	full [rateWays]int64  // when the bucket is full again, in nanoseconds since 1970
}

func newRateLimit(c *configs.RateLimit) *rateLimit {
	if c == nil {
		return nil
	}
	spacing := max(time.Duration(math.Round(float64(time.Second)/float64(c.Rate))), 1)
	sets := rateSets
	if c.By == "route" {
		sets = 1
	}
	return &rateLimit{spacing: spacing, depth: time.Duration(c.Burst-1) * spacing, sets: make([]rateSet, sets)}
}

// take asks for one request of a key. When it is refused, wait is how long until one would not be.
func (l *rateLimit) take(key uint64, now time.Time) (ok bool, wait time.Duration) {
	key = max(key, 1)
	t := now.UnixNano()
	s := &l.sets[key%uint64(len(l.sets))]
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := 0
	for i, k := range s.keys {
		if k == key {
			slot = i
			break
		}
		if s.full[i] < s.full[slot] {
			slot = i
		}
	}
	if s.keys[slot] != key {
		s.keys[slot], s.full[slot] = key, 0
	}
	full := max(s.full[slot], t)
	if ahead := time.Duration(full - t); ahead > l.depth {
		return false, ahead - l.depth
	}
	s.full[slot] = full + int64(l.spacing)
	return true, 0
}
