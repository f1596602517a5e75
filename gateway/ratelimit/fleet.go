package ratelimit

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"sync"
	"time"
)

const (
	// Round is how often nodes tell each other of their demand.
	Round = time.Second
	// MaxMessage bounds a message, in bytes.
	MaxMessage = 128 << 10

	remember   = 3 * Round // how long a node's word counts
	crumbs     = 0.05      // of a limit's rate that all nodes together may leave untold
	maxEntries = 8192      // of a message
	version    = 1
)

// demand is what other nodes ask for a key.
type demand struct {
	rate  float64 // a second, together
	nodes int     // that told of it
}

// entry is one key's demand at a node.
type entry struct {
	key  uint64
	rate float64
}

// Fleet divides limits among the nodes of a fleet. Safe for concurrent use.
type Fleet struct {
	mu     sync.Mutex
	limits map[uint64]*Limit
	heard  map[string]report // by node
	own    map[uint64]map[uint64]float64
}

type report struct {
	at     time.Time
	limits map[uint64][]entry
}

// NewFleet begins with no limits.
func NewFleet() *Fleet {
	return &Fleet{limits: map[uint64]*Limit{}, heard: map[string]report{}, own: map[uint64]map[uint64]float64{}}
}

// NewLimit makes a limit that is shared by all nodes that have one of the same name. Drop forgets it.
func (f *Fleet) NewLimit(name string, t Terms, single bool) *Limit {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	l := New(t, single)
	l.id, l.shares = h.Sum64(), make([]shareSet, len(l.sets))
	l.others.Store(&map[uint64]demand{})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limits[l.id] = l
	return l
}

// Drop forgets a limit that NewLimit made.
func (f *Fleet) Drop(l *Limit) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.limits[l.id] == l {
		delete(f.limits, l.id)
		delete(f.own, l.id)
	}
}

// Empty tells that there is nothing to share.
func (f *Fleet) Empty() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.limits) == 0
}

// Step ends a round: it measures this node's demand, divides anew by what was told in the last rounds, and gives the
// message for the other nodes, and how many keys are shared with others now. To be called once a Round.
func (f *Fleet) Step(now time.Time) (message []byte, shared int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for node, r := range f.heard {
		if now.Sub(r.at) > remember {
			delete(f.heard, node)
		}
	}
	message = append(message, version)
	left := maxEntries
	for _, id := range sortedKeys(f.limits) {
		l := f.limits[id]
		told := l.measure(len(f.heard)+1, left)
		left -= len(told)
		own := make(map[uint64]float64, len(told))
		message = binary.BigEndian.AppendUint64(message, id)
		message = binary.AppendUvarint(message, uint64(len(told)))
		for _, e := range told {
			own[e.key] = e.rate
			message = binary.BigEndian.AppendUint64(message, e.key)
			message = binary.BigEndian.AppendUint32(message, math.Float32bits(float32(e.rate)))
		}
		f.own[id] = own
		shared += l.divide(own, f.othersOf(id), now)
	}
	return message, shared
}

func sortedKeys(m map[uint64]*Limit) []uint64 {
	out := make([]uint64, 0, len(m))
	for id := range m {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// othersOf adds up what other nodes told of a limit.
func (f *Fleet) othersOf(id uint64) map[uint64]demand {
	sum := map[uint64]demand{}
	for _, r := range f.heard {
		for _, e := range r.limits[id] {
			d := sum[e.key]
			sum[e.key] = demand{d.rate + e.rate, d.nodes + 1}
		}
	}
	return sum
}

// Hear takes another node's message.
func (f *Fleet) Hear(node string, message []byte, now time.Time) error {
	limits, err := parse(message)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard[node] = report{now, limits}
	return nil
}

// parse reads a message. It refuses what Step could not have written.
func parse(message []byte) (map[uint64][]entry, error) {
	if len(message) > MaxMessage {
		return nil, fmt.Errorf("a message of rate limits has %d bytes; the most is %d", len(message), MaxMessage)
	}
	if len(message) == 0 || message[0] != version {
		return nil, errors.New("a message of rate limits of another version")
	}
	rest, total := message[1:], 0
	limits := map[uint64][]entry{}
	for len(rest) > 0 {
		if len(rest) < 9 {
			return nil, errors.New("a message of rate limits ends early")
		}
		id := binary.BigEndian.Uint64(rest)
		count, n := binary.Uvarint(rest[8:])
		if n <= 0 || count > maxEntries || total+int(count) > maxEntries || uint64(len(rest)-8-n) < 12*count {
			return nil, errors.New("a message of rate limits ends early")
		}
		if _, twice := limits[id]; twice {
			return nil, errors.New("a message of rate limits has a limit twice")
		}
		rest = rest[8+n:]
		total += int(count)
		list, seen := make([]entry, 0, count), make(map[uint64]bool, count)
		for range count {
			e := entry{binary.BigEndian.Uint64(rest), float64(math.Float32frombits(binary.BigEndian.Uint32(rest[8:])))}
			if !(e.rate > 0 && e.rate <= 1e10) || seen[e.key] {
				return nil, errors.New("a message of rate limits has a demand that can't be")
			}
			seen[e.key] = true
			list, rest = append(list, e), rest[12:]
		}
		limits[id] = list
	}
	return limits, nil
}

// measure ends a round of a limit and gives the keys that are worth telling, the busiest first, at most so many.
func (l *Limit) measure(nodes, most int) []entry {
	rate := float64(time.Second) / float64(l.spacing.Load())
	least := crumbs * rate / float64(nodes)
	var told []entry
	for i := range l.sets {
		s, share := &l.sets[i], &l.shares[i]
		s.mu.Lock()
		for k, key := range s.keys {
			if key == 0 {
				continue
			}
			// What was refused counts too, but nobody wants more than there is.
			d := min(float64(share.hits[k]+share.before[k])/(2*Round.Seconds()), rate)
			share.before[k], share.hits[k] = share.hits[k], 0
			if d > 0 && d >= least {
				told = append(told, entry{key, d})
			}
		}
		s.mu.Unlock()
	}
	slices.SortFunc(told, func(a, b entry) int { return cmp.Or(cmp.Compare(b.rate, a.rate), cmp.Compare(a.key, b.key)) })
	return told[:min(len(told), most)]
}

// divide gives each key this node's part of its rate, and tells how many are shared.
func (l *Limit) divide(own map[uint64]float64, others map[uint64]demand, now time.Time) (shared int) {
	l.others.Store(&others)
	at, whole := now.UnixNano(), l.whole.Load()
	for i := range l.sets {
		s, share := &l.sets[i], &l.shares[i]
		s.mu.Lock()
		for k, key := range s.keys {
			if key == 0 {
				continue
			}
			share.spacing[k] = l.spacingOf(key, own[key])
			s.full[k] = min(s.full[k], at+max(whole, share.spacing[k])) // what was taken of a smaller part must not bind for longer
			if others[key].nodes > 0 {
				shared++
			}
		}
		s.mu.Unlock()
	}
	return shared
}

// spacingOf is this node's spacing of a key for which it told a demand of own.
func (l *Limit) spacingOf(key uint64, own float64) int64 {
	base := float64(l.spacing.Load())
	rate := float64(time.Second) / base
	o := (*l.others.Load())[key]
	return int64(min(base*rate/allocate(own, o.rate, o.nodes, rate), math.MaxInt64/4))
}

// allocate is a node's part of a rate, when it told a demand of own and so many other nodes told of others together: what
// it asked for and an even part of what nobody asked for; or, when more is asked for than there is, as much of it as its
// demand is of all.
func allocate(own, others float64, nodes int, rate float64) float64 {
	total := own + others
	switch {
	case nodes == 0:
		return rate
	case own <= 0: // it has told of nothing, or of nothing yet
		return rate / float64(nodes+1)
	case total <= rate:
		return own + (rate-total)/float64(nodes+1)
	}
	return rate * own / total
}
