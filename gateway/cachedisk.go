package gateway

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"landfall/cache"
	"landfall/configs"
	"landfall/routing/mesh"
)

// openCache makes the cache. A disk that can't be used costs keeping there, and an event, never the start.
func (n *Node) openCache(c *configs.Config) error {
	o := cache.Options{
		MaxBytes: int64(c.Cache.Memory), MaxObject: int64(c.Cache.MaxObject), Now: n.o.Now, Metrics: n.metrics.cache, Logger: n.log,
	}
	if d := c.Cache.Disk; d != nil {
		path := filepath.Join(d.Path, n.id.name)
		o.Disk = &cache.DiskOptions{Path: path, Size: int64(d.Size), OnState: func(err error) {
			if err != nil {
				n.event("cache.disk_failed", path, "new objects are kept in memory alone: "+err.Error())
			} else {
				n.event("cache.disk_works", path, "objects are kept on disk again")
			}
		}}
	}
	n.cache = cache.New(o)
	n.closers = append(n.closers, n.cache.Close)
	n.recall()
	if records, _ := n.cache.Recalled(); records > 0 && c.Listen.Mesh != "" && len(c.Mesh.Join)+len(n.o.Join) > 0 {
		n.doubts.Store(true)
		n.cache.SetDoubt(true)
	}
	return nil
}

// recall takes over what an earlier process left on disk: which purges that one applied, so that those that came since are
// applied and no other is applied again. Purges are kept for those who miss them for a day; after half of that without a
// process here to hear of them, nothing is believed.
func (n *Node) recall() {
	records, away := n.cache.Recalled()
	for _, notes := range n.cache.NotedPurges() {
		n.purgeTrack.restore(notes, n.o.Now())
	}
	n.purgeTrack.note = func(writer string, w *purgeSeen) {
		notes := cache.PurgeNotes{Writer: writer, Low: w.low}
		for seq := range w.above {
			notes.Above = append(notes.Above, seq)
		}
		n.cache.NotePurges(notes)
	}
	switch {
	case records == 0:
	case away > purgeTTL/2:
		n.cache.PurgeEverything()
		n.event("cache.forgotten", n.id.name, fmt.Sprintf("no node of this name ran for longer than purges are kept for it, so the %d objects on its disk were dropped", records))
	default:
		n.event("cache.recalled", n.id.name, fmt.Sprintf("%d objects are on disk", records))
	}
}

// restore takes over what an earlier process applied of a writer's purges.
func (t *purgeTrack) restore(notes cache.PurgeNotes, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.writers) >= maxPurgeWriters {
		return // its purges are applied again, which is safe
	}
	w := &purgeSeen{id: writerID(notes.Writer), low: notes.Low, above: map[uint64]struct{}{}, last: at}
	for _, seq := range notes.Above {
		w.above[seq] = struct{}{}
	}
	w.settle(at)
	t.writers[notes.Writer], t.told = w, at
	t.changes()
}

// endDoubt believes what an earlier process left on disk, if another node is there: then its registers were merged, as this
// node is ready.
func (n *Node) endDoubt() {
	if n.meets() && n.doubts.CompareAndSwap(true, false) {
		n.cache.SetDoubt(false)
	}
}

func (n *Node) meets() bool {
	return slices.ContainsFunc(n.mesh.Members(), func(m mesh.Member) bool { return !m.Self && m.Reachable })
}

// followDoubt makes the cache confirm what an earlier process left on disk, if this one came up alone, until it has been
// with another node of its fleet for a while: that may know of purges which came meanwhile.
func (n *Node) followDoubt(now time.Time) {
	switch {
	case !n.doubts.Load():
	case !n.meets():
		n.metAt = time.Time{}
	case n.metAt.IsZero():
		n.metAt = now
	case now.Sub(n.metAt) >= settleTime:
		n.endDoubt()
	}
}
