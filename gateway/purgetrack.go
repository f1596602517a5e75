package gateway

import (
	"fmt"
	"sync"
	"time"
)

const (
	// purgePatience is how long a hole in a writer's numbers may last before what was in it counts as lost: repair
	// brings what any live node has within a second or two.
	purgePatience = 15 * time.Second

	// tellTime is how much later than after purgeTTL a silent writer is still told of, at most.
	tellTime = time.Minute

	maxPurgeWriters = 4096
	maxPurgeAhead   = 4096 // numbers above a hole
)

// purgeTrack knows which of each writer's registers this node has applied. A writer's ring is bounded, so a node that
// was away may never hear of some; it then learns from the numbers that it missed them, and drops all it has.
type purgeTrack struct {
	lost func(why string)
	note func(writer string, w *purgeSeen) // keeps what was applied over a restart

	mu      sync.Mutex
	writers map[string]*purgeSeen
	told    time.Time     // the time, as others are told who was heard of lately
	text    string        // all of it as other nodes are told; empty: to be written
	changed chan struct{} // closed at the next change; nil: nobody waits
}

type purgeSeen struct {
	id    string              // of the writer
	low   uint64              // all up to this are applied, or made up for
	above map[uint64]struct{} // applied beyond
	hole  time.Time           // since when something is missing between; zero: nothing is
	last  time.Time
}

func newPurgeTrack(lost func(why string)) *purgeTrack {
	return &purgeTrack{lost: lost, note: func(string, *purgeSeen) {}, writers: map[string]*purgeSeen{}}
}

// take applies a writer's register unless that was done.
func (t *purgeTrack) take(writer string, seq, first uint64, now time.Time, apply func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.writers[writer]
	if w == nil {
		if len(t.writers) >= maxPurgeWriters {
			t.forgetOldest()
		}
		w = &purgeSeen{id: writerID(writer), above: map[uint64]struct{}{}}
		t.writers[writer] = w
	}
	w.last, t.told = now, now
	defer t.changes()
	if first > w.low+1 && t.missing(w, first) {
		t.lost(fmt.Sprintf("%s issued purges that this node never heard of", writer))
	}
	if first > 0 && first-1 > w.low {
		w.low = first - 1
	}
	if _, again := w.above[seq]; seq > w.low && !again {
		apply()
		w.above[seq] = struct{}{}
	}
	if len(w.above) > maxPurgeAhead {
		t.giveUp(writer, w)
	}
	w.settle(now)
	t.note(writer, w)
}

// missing tells whether a register below first was not applied.
func (t *purgeTrack) missing(w *purgeSeen, first uint64) bool {
	if first-1-w.low > uint64(len(w.above)) {
		return true
	}
	for seq := w.low + 1; seq < first; seq++ {
		if _, ok := w.above[seq]; !ok {
			return true
		}
	}
	return false
}

// settle moves low up over what is applied.
func (w *purgeSeen) settle(now time.Time) {
	for seq := range w.above {
		if seq <= w.low {
			delete(w.above, seq)
		}
	}
	for {
		if _, ok := w.above[w.low+1]; !ok {
			break
		}
		w.low++
		delete(w.above, w.low)
	}
	switch {
	case len(w.above) == 0:
		w.hole = time.Time{}
	case w.hole.IsZero():
		w.hole = now
	}
}

// tick gives up on holes that nobody filled, and from time to time on telling of writers that were not heard of for long.
func (t *purgeTrack) tick(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.told) >= tellTime {
		t.told = now
		t.changes()
	}
	for name, w := range t.writers {
		if !w.hole.IsZero() && now.Sub(w.hole) >= purgePatience {
			t.giveUp(name, w)
			w.settle(now)
			t.note(name, w)
		}
	}
}

func (t *purgeTrack) giveUp(writer string, w *purgeSeen) {
	t.lost(fmt.Sprintf("purges of %s are missing and no node has them", writer))
	t.changes()
	for seq := range w.above {
		w.low = max(w.low, seq)
	}
}

// forgetOldest makes room. If that writer is heard of again, it counts as one that was never heard before: all is
// dropped once, and nothing is missed.
func (t *purgeTrack) forgetOldest() {
	oldest := ""
	for name, w := range t.writers {
		if oldest == "" || w.last.Before(t.writers[oldest].last) {
			oldest = name
		}
	}
	delete(t.writers, oldest)
}
