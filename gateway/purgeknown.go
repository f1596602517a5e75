package gateway

import (
	"context"
	"encoding/base64"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What a node knows of purges, for other nodes' caches to compare with: of each writer the number up to which all of its
// registers are applied here, and those beyond that are, too. A node that is asked for an object by another node must have
// applied what that one has, or an object from before a purge would pass for one from after it.

const (
	// maxKnown bounds it. It has room for 600 writers, which is as many nodes, or boots of nodes, that purged in a day.
	maxKnown = 12 << 10
	// reachPatience is how long a node waits for purges that another node has and it has not: they are on their way.
	reachPatience = 250 * time.Millisecond
)

// known is what this node knows; false: more than fits.
func (t *purgeTrack) known() (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.text == "" {
		t.text = t.write()
	}
	return t.text, len(t.text) <= maxKnown
}

// write lists the writers that were heard of lately: a node that missed what is older has dropped all that it had.
func (t *purgeTrack) write() string {
	var list []string
	for _, w := range t.writers {
		if t.told.Sub(w.last) > purgeTTL {
			continue
		}
		b := []byte(w.id)
		b = strconv.AppendUint(append(b, ':'), w.low, 36)
		above := make([]uint64, 0, len(w.above))
		for seq := range w.above {
			above = append(above, seq)
		}
		slices.Sort(above)
		for _, seq := range above {
			b = strconv.AppendUint(append(b, '+'), seq, 36)
		}
		list = append(list, string(b))
	}
	slices.Sort(list)
	return "1;" + strings.Join(list, ",")
}

// writerID is a writer's name, short.
func writerID(name string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// covers tells whether this node has applied all that another knows, and if not, what is closed when it has more.
func (t *purgeTrack) covers(known string) (ok bool, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if known == t.text && known != "" {
		return true, nil
	}
	body, ok := strings.CutPrefix(known, "1;")
	if !ok || len(known) > maxKnown {
		return false, nil
	}
	byID := make(map[string]*purgeSeen, len(t.writers))
	for _, w := range t.writers {
		byID[w.id] = w
	}
	for item := range strings.SplitSeq(body, ",") {
		if item != "" && !coveredBy(byID, item) {
			if t.changed == nil {
				t.changed = make(chan struct{})
			}
			return false, t.changed
		}
	}
	return true, nil
}

func coveredBy(byID map[string]*purgeSeen, item string) bool {
	id, numbers, ok := strings.Cut(item, ":")
	if !ok {
		return false
	}
	w := byID[id]
	first := true
	for text := range strings.SplitSeq(numbers, "+") {
		seq, err := strconv.ParseUint(text, 36, 64)
		if err != nil {
			return false
		}
		switch {
		case seq == 0:
		case w == nil:
			return false
		case seq <= w.low:
		case first && !w.filled(seq): // the first number speaks for all up to it
			return false
		case !w.has(seq):
			return false
		}
		first = false
	}
	return true
}

func (w *purgeSeen) has(seq uint64) bool { _, ok := w.above[seq]; return ok }

// filled tells whether all between low and seq is applied.
func (w *purgeSeen) filled(seq uint64) bool {
	if seq-w.low > uint64(len(w.above)) {
		return false
	}
	for n := w.low + 1; n <= seq; n++ {
		if !w.has(n) {
			return false
		}
	}
	return true
}

// changes drops what was written of the state. Callers hold mu.
func (t *purgeTrack) changes() {
	t.text = ""
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

// Known implements proxy.Knowledge.
func (t *purgeTrack) Known() (string, bool) { return t.known() }

// Reached implements proxy.Knowledge.
func (t *purgeTrack) Reached(ctx context.Context, known string) bool {
	ok, changed := t.covers(known)
	if ok || changed == nil {
		return ok
	}
	timer := time.NewTimer(reachPatience)
	defer timer.Stop()
	for !ok && changed != nil {
		select {
		case <-changed:
			ok, changed = t.covers(known)
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return ok
}
