package cache

import (
	"context"
	"log/slog"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"landfall/cache/disk"
)

// DiskOptions configure the part of a cache that is on disk.
type DiskOptions struct {
	Path string // folder, used by one process only
	Size int64  // bytes of its files
	FS   disk.FS

	// OnState is told why the disk can't be used (which costs storing there, nothing else), and nil when it can again. It
	// must not block.
	OnState func(error)
}

const (
	indexShare = 8 // the index of the disk takes at most one in so many of the bytes of memory
	queueShare = 16

	// maxMarks is how many purges are kept for what is on disk before it is gone through; past four times as many, what is
	// on disk is dropped.
	maxMarks = maxIdle / 2

	closePatience = 5 * time.Second
)

// tier is the cache's part on disk. All that is stored in memory is written there too, and what a request doesn't find in
// memory is looked for there and brought back.
//
// What is on disk points to no cells. Purges stay in theirs until all that is on disk has been compared with them (scrub),
// and in the journal, so that they hold over a restart.
type tier struct {
	c       *Cache
	store   *disk.Store
	journal *journal
	onState func(error)
	scrubs  chan struct{}
	boot    uint64      // what was fetched before it was by an earlier process
	off     atomic.Bool // a purge could not be noted: nothing on disk is used until it is emptied

	dropping sync.WaitGroup

	mu       sync.Mutex
	loads    map[uint64]chan struct{} // by hash; closed when the load has ended
	reported disk.Stats
}

// openDisk opens the disk; without one the cache goes on in memory alone.
func (c *Cache) openDisk(o DiskOptions) {
	t := &tier{c: c, onState: o.OnState, scrubs: make(chan struct{}, 1), loads: make(map[uint64]chan struct{})}
	if t.onState == nil {
		t.onState = func(error) {}
	}
	if err := t.open(o); err != nil {
		c.logger.Error("the cache goes on without its disk", "error", err)
		c.metrics.diskDown.Set(1)
		t.onState(err)
		return
	}
	t.boot = max(t.store.MaxBorn(), t.journal.found.last) + 1
	c.generations.now.Store(t.boot)
	c.generations.keep.Store(t.journal.found.base)
	for _, e := range t.journal.found.entries {
		c.generations.restore(e)
	}
	t.journal.found.entries = nil
	c.tier = t
	c.generations.record = t.record
	if t.journal.found.broken && t.store.Stats().Records > 0 {
		c.logger.Warn("the purges of the cache on disk are not whole, so it is emptied")
		t.drop()
	}
	c.running.Go(t.run)
}

func (t *tier) open(o DiskOptions) (err error) {
	if t.journal, err = openJournal(o.Path); err != nil {
		return err
	}
	b := t.c.store.budget
	queue := b.max / queueShare
	t.store, err = disk.Open(disk.Options{
		Dir: o.Path, Size: o.Size, FS: o.FS, Now: t.c.now, MaxRecords: int(min(b.max/indexShare/disk.RecordMemory, math.MaxInt32)),
		QueueBytes: queue, MinBorn: t.journal.found.floor, OnState: t.onState, OnMemory: t.c.store.hold,
	})
	if err != nil {
		t.journal.close()
		return err
	}
	t.c.store.hold(queue) // what waits to be written may have left memory otherwise
	return nil
}

// close ends the disk.
func (t *tier) close() {
	t.store.Close(closePatience)
	t.report(disk.Stats{})
	t.journal.close()
	t.dropping.Wait()
	t.c.store.release()
}

// put queues an object to be written.
func (t *tier) put(o *object) {
	if t == nil || t.off.Load() {
		return
	}
	t.store.Put(o.diskRecord())
}

// remove forgets an object that isn't what the origin has any more.
func (t *tier) remove(o *object) {
	if t == nil {
		return
	}
	t.store.Remove(diskHash(o.key().url()), o.diskVariant())
}

// record makes a purge hold over a restart. What can't be is made up for by dropping all that is on disk, behind.
func (t *tier) record(e purgeEntry) {
	if t.off.Load() {
		return // all goes
	}
	if err := t.journal.append(e); err != nil {
		t.fail(err)
		return
	}
	marks := t.c.generations.idle.Load()
	switch {
	case marks > 4*maxMarks:
		t.drop()
	case marks > maxMarks || e.prefix && t.c.generations.crowded(e.cellName):
		t.wantScrub()
	}
}

// fail stops using the disk until it has been emptied.
func (t *tier) fail(err error) {
	if !t.off.CompareAndSwap(false, true) {
		return
	}
	t.c.logger.Error("a purge can't be noted for the cache on disk, so that is emptied", "error", err)
	t.onState(err)
	t.dropping.Go(func() {
		t.drop()
		t.off.Store(false)
		t.onState(nil)
	})
}

// drop empties the disk: no purge before now concerns it any more.
func (t *tier) drop() (records int) {
	gen := t.c.generations.now.Add(1)
	if err := t.journal.compact(0, gen); err != nil {
		t.c.logger.Warn("the cache on disk is emptied, and can't be told so for its next start", "error", err)
	}
	records = t.store.Clear()
	t.scrubbed(gen)
	return records
}

func (t *tier) wantScrub() {
	select {
	case t.scrubs <- struct{}{}:
	default:
	}
}

const (
	reportEvery = time.Second
	touchEvery  = time.Minute
)

// run keeps the metrics, the note that the process lives, and scrubs. It ends with the cache.
func (t *tier) run() {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	touched := t.c.now()
	t.journal.touch(touched)
	for {
		select {
		case <-t.scrubs:
			t.scrub()
		case <-tick.C:
			t.report(t.store.Stats())
			if now := t.c.now(); now.Sub(touched) >= touchEvery {
				touched = now
				t.journal.touch(now)
			}
		case <-t.c.closing:
			return
		}
	}
}

// report moves the metrics.
func (t *tier) report(to disk.Stats) {
	t.mu.Lock()
	from := t.reported
	if to == (disk.Stats{}) { // the end: what is on disk is no longer this process's, what was done stays counted
		to = from
		to.Bytes, to.Records, to.Down = 0, 0, false
	}
	t.reported = to
	t.mu.Unlock()
	t.c.metrics.diskMoved(from, to)
}

// scrub goes through all that is on disk and removes what purges took, so that they may be forgotten.
func (t *tier) scrub() {
	gen := t.c.generations.now.Load()
	if !t.store.Flush(t.c.closing) { // what is queued was compared with purges when it was stored
		return
	}
	whole := t.store.Walk(t.c.closing, func(_ disk.Ref, head []byte) (keep bool) {
		l, err := readRecord(head)
		return err == nil && t.c.generations.spoils(l.names(l.key()), l.path(), l.born).gen == 0
	})
	if whole {
		t.scrubbed(gen)
	}
}

// scrubbed forgets the purges up to gen, which nothing on disk is older than and still there. Fetches under way may be.
func (t *tier) scrubbed(gen uint64) {
	for _, f := range t.c.store.allFills() {
		gen = min(gen, f.born.body)
	}
	t.c.generations.keep.Store(gen)
	if err := t.journal.compact(gen, 0); err != nil {
		t.c.logger.Warn("the purges of the cache on disk could not be written anew", "error", err)
	}
	t.c.wantSweep()
}

// fromDisk brings what answers a request from the disk into memory, where the next lookup finds it. It tells whether
// there is something new to look at. others: variants for other requests are in memory.
func (x *exchange) fromDisk(others bool) bool {
	t := x.c.tier
	if t == nil || t.off.Load() {
		return false
	}
	hash := diskHash(x.key.url())
	if !t.store.Has(hash) {
		return false
	}
	t.mu.Lock()
	under := t.loads[hash]
	if under == nil {
		t.loads[hash] = make(chan struct{})
	}
	t.mu.Unlock()
	if under != nil {
		select {
		case <-under:
		case <-x.r.Context().Done():
		}
		return true
	}
	defer func() {
		t.mu.Lock()
		close(t.loads[hash])
		delete(t.loads, hash)
		t.mu.Unlock()
	}()
	return t.load(hash, &x.key, x.header, x.policy.Recoder != nil && !others)
}

// load brings the newest record that answers a request, or else, with siblings, one that can be recoded for it.
func (t *tier) load(hash uint64, k *Key, header http.Header, siblings bool) bool {
	var best *loaded
	var at disk.Ref
	err := t.store.Find(hash, func(r disk.Ref, head []byte) (more bool) {
		l, err := readRecord(head)
		if err != nil {
			t.store.Remove(r.Hash, r.Variant)
			return true
		}
		same, selected := l.answers(k, header)
		if !same || !selected && (!siblings || best != nil || !l.isSibling(k, header)) {
			return true
		}
		if t.c.generations.spoils(l.names(*k), k.Path, l.born).hard {
			t.store.Remove(r.Hash, r.Variant)
			return true
		}
		best, at = l, r
		return !selected
	})
	if err != nil {
		t.c.logger.LogAttrs(context.Background(), slog.LevelDebug, "the cache on disk could not be asked", slog.String("error", err.Error()))
	}
	if best == nil {
		return false
	}
	if at.BodySize() != best.length {
		t.store.Remove(at.Hash, at.Variant)
		return false
	}
	n := best.headSize(*k) + lengthBytes(best.length)
	if best.length > t.c.maxObject || !t.c.store.reserve(n) {
		return false
	}
	body, err := t.store.Body(at, fixedChunk)
	if err != nil {
		t.c.store.budget.release(n)
		return false
	}
	o := t.c.loadedObject(best, k.clone(), body)
	t.c.store.budget.commit(o, n)
	if !t.c.store.putLoaded(o, k.url(), header) {
		return false
	}
	t.c.metrics.diskHits.Inc()
	return true
}

// putLoaded puts an object from disk into its shard, unless a purge took it meanwhile or something newer is there.
func (s *store) putLoaded(o *object, u urlKey, header http.Header) bool {
	sh := s.shardOf(o.hash)
	sh.mu.Lock()
	k := o.key()
	var url fate
	if c := s.gens.peek(u.cell()); c != nil {
		url.by(&c.mark, o.born)
	}
	if url.softAt != 0 {
		o.softAt.CompareAndSwap(0, url.softAt)
	}
	fits := !url.hard && !o.purged() && !o.is(isEvicted) && sh.lookup(o.hash, &k, header).object == nil
	if fits {
		sh.index.add(o)
	}
	sh.mu.Unlock()
	if !fits {
		s.budget.remove(o)
		s.leave(o)
	}
	return fits
}
