package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options configure a Store.
type Options struct {
	Dir        string
	Size       int64  // bytes of files; at least MinSize
	MaxRecords int    // bounds the index in memory; 0: 1<<20
	QueueBytes int64  // of records that wait to be written; 0: 16 MiB
	MinBorn    uint64 // records with a smaller Born, that are there when the Store is opened, are forgotten
	FS         FS     // nil: OS
	Now        func() time.Time

	// Patience is how long a read may take. 0: 500ms.
	Patience time.Duration
	// OnState is told when writing begins to fail (err is why) and when it works again (nil). It must not block.
	OnState func(err error)
	// OnMemory is told by how many bytes the memory for the index changes. It must not call the Store.
	OnMemory func(bytes int64)
}

const (
	// MinSize is the least Options.Size.
	MinSize = 1 << 20

	segments   = 32        // so many make the whole: dropping the oldest loses one in so many
	maxSegment = 512 << 20 // and smaller ones do when the whole is large
	maxChain   = 64        // records of one hash
	maxReads   = 64        // at a time
	indexStep  = 4096      // records by which memory for the index is accounted

	// retryAfter is how long nothing is written after a failure.
	retryAfter = 10 * time.Second
)

// Store is a log of records on disk. Its methods may be called concurrently.
type Store struct {
	o       Options
	segSize int64
	lock    *os.File // other processes keep out
	reads   chan struct{}
	stuck   atomic.Int64 // reads that were given up and have not come back
	queue   *queue
	done    chan struct{} // closed when the writer has ended

	// Of the writer alone:
	owed    map[name]struct{} // records that are to be gone from a disk that failed
	owesAll bool              // they are too many

	mu        sync.Mutex
	index     *index
	segments  []*segment // oldest first
	trash     []*segment // to be deleted
	current   *segment   // being written; nil: the next record begins one
	nextID    uint32
	bytes     int64
	maxBorn   uint64
	epoch     uint64 // counts Clear
	accounted int    // steps of the index's memory
	stats     Stats
}

// Stats is the state of a store, and what it did since it was opened.
type Stats struct {
	Records, Bytes, MaxBytes int64
	Written, Dropped         int64 // Dropped: not written, as the queue was full or the disk failed
	Evicted                  int64 // with their segments
	Corrupt, Failed          int64 // reads whose checksum was wrong, and that failed otherwise or took too long
	Down                     bool  // writing fails
}

// Open reads what is in a folder and makes it if it isn't there. What belongs to no store it leaves alone.
func Open(o Options) (*Store, error) {
	if o.FS == nil {
		o.FS = OS{}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxRecords <= 0 {
		o.MaxRecords = 1 << 20
	}
	if o.QueueBytes <= 0 {
		o.QueueBytes = 16 << 20
	}
	if o.Patience <= 0 {
		o.Patience = 500 * time.Millisecond
	}
	if o.Size < MinSize {
		return nil, fmt.Errorf("%d bytes are too few for a cache on disk: give it at least %d", o.Size, int64(MinSize))
	}
	s := &Store{
		o: o, segSize: min(max(o.Size/segments, MinSize/4)/align*align, maxSegment), index: newIndex(), reads: make(chan struct{}, maxReads),
		queue: newQueue(o.QueueBytes), done: make(chan struct{}),
		owed: make(map[name]struct{}),
	}
	if err := o.FS.MkdirAll(o.Dir); err != nil {
		return nil, fmt.Errorf("make the folder of the cache: %w", err)
	}
	var err error
	if s.lock, err = lock(o.Dir); err != nil {
		return nil, fmt.Errorf("take the folder of the cache: %w", err)
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(err, s.lock.Close())
	}
	go s.write()
	return s, nil
}

// MaxRecordSize is the largest record that fits.
func (s *Store) MaxRecordSize() int64 { return s.segSize }

// MaxBorn is the largest Born of a record that was in the folder.
func (s *Store) MaxBorn() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.maxBorn
}

// load reads the folder.
func (s *Store) load() error {
	names, err := s.o.FS.ReadDir(s.o.Dir)
	if err != nil {
		return fmt.Errorf("read the folder of the cache: %w", err)
	}
	var ids []uint32
	for _, name := range names {
		if id, ok := segmentID(name, ".seg"); ok {
			ids = append(ids, id)
		} else if id, ok := segmentID(name, ".lst"); ok && !slices.Contains(names, segmentName(id)) {
			_ = s.o.FS.Remove(filepath.Join(s.o.Dir, name)) // of a segment that went as the process was killed
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		s.nextID = id + 1
		s.loadSegment(id)
	}
	for s.bytes > s.o.Size && len(s.segments) > 0 {
		s.dropOldest()
	}
	s.account()
	s.discard()
	return nil
}

// loadSegment reads one segment; one that can't be read is as if it were empty, and goes in its turn.
func (s *Store) loadSegment(id uint32) {
	f, err := s.o.FS.Open(filepath.Join(s.o.Dir, segmentName(id)))
	if err != nil {
		return
	}
	size, err := f.Size()
	if err != nil {
		_ = f.Close()
		return
	}
	g := &segment{id: id, file: f, size: size}
	list, ok := s.readList(id, size+1<<20)
	if !ok {
		list, g.size = scan(f, id, size)
	}
	s.segments = append(s.segments, g)
	s.bytes += g.size
	for _, l := range list {
		if int64(l.offset)*align+int64(l.size)*align > g.size {
			continue
		}
		s.apply(g, l)
	}
	if !ok {
		g.log = list
		_ = s.writeList(g) // so that the next start needn't read it
		g.log = nil
	}
}

// apply enters a record of a segment into the index. Callers hold the lock, or are alone.
func (s *Store) apply(g *segment, l listed) {
	s.maxBorn = max(s.maxBorn, l.born)
	if old, ok := s.index.find(l.hash, l.variant); ok {
		s.index.remove(old)
	}
	if l.size == 0 || l.born < s.o.MinBorn {
		return
	}
	if ids := s.index.chain(l.hash); len(ids) >= maxChain {
		s.index.remove(ids[len(ids)-1])
	}
	for s.index.count >= s.o.MaxRecords && len(s.segments) > 1 && s.segments[0] != g {
		s.dropOldest()
	}
	if s.index.count >= s.o.MaxRecords {
		return // a segment alone holds more
	}
	g.ids = append(g.ids, s.index.add(entry{hash: l.hash, variant: l.variant, segment: g.id, offset: l.offset, size: l.size, head: l.head}))
}

// dropOldest ends the oldest segment. Readers that are at it find it closed.
func (s *Store) dropOldest() {
	g := s.segments[0]
	s.segments = s.segments[1:]
	if s.current == g {
		s.current = nil
	}
	s.bytes -= g.size
	for _, id := range g.ids {
		if e := &s.index.entries[id]; e.live && e.segment == g.id {
			s.index.remove(id)
			s.stats.Evicted++
		}
	}
	s.trash = append(s.trash, g)
}

// discard deletes the files of segments that are gone. Only the writer does, and never with the lock: a disk that hangs
// must not hold up anybody else.
func (s *Store) discard() {
	s.mu.Lock()
	trash := s.trash
	s.trash = nil
	s.mu.Unlock()
	for _, g := range trash {
		_ = s.o.FS.Remove(filepath.Join(s.o.Dir, listName(g.id)))
		_ = s.o.FS.Remove(filepath.Join(s.o.Dir, segmentName(g.id)))
		_ = g.file.Close() // reads under way fail, and are misses
	}
}

// account tells of the memory that the index takes, in steps. Callers hold the lock, or are alone.
func (s *Store) account() {
	steps := (len(s.index.entries) + indexStep - 1) / indexStep
	if d := steps - s.accounted; d > 0 && s.o.OnMemory != nil {
		s.accounted = steps
		s.o.OnMemory(int64(d) * indexStep * RecordMemory)
	}
}

// Has tells whether there may be a record of a hash, without asking the disk.
func (s *Store) Has(hash uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.index.first[hash]
	return ok
}

// Remove forgets a record, for good: what is queued of it, or being written, too.
func (s *Store) Remove(hash, variant uint64) {
	s.queue.drop(hash, variant, false) // first, as a record goes from the queue to the index
	s.mu.Lock()
	id, ok := s.index.find(hash, variant)
	if ok {
		s.index.remove(id)
	}
	s.mu.Unlock()
	if ok {
		s.queue.drop(hash, variant, true)
	}
}

// Clear forgets everything and deletes the files.
func (s *Store) Clear() (records int) {
	s.queue.clear()
	s.mu.Lock()
	defer s.mu.Unlock()
	records = s.index.count
	s.epoch++
	s.index.first, s.index.entries, s.index.free, s.index.count = make(map[uint64]uint32), nil, none, 0
	s.trash = append(s.trash, s.segments...)
	s.queue.wake()
	s.segments, s.current, s.bytes = nil, nil, 0
	if s.accounted > 0 && s.o.OnMemory != nil {
		s.o.OnMemory(-int64(s.accounted) * indexStep * RecordMemory)
	}
	s.accounted = 0
	return records
}

// Stats counts.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Records, st.Bytes, st.MaxBytes = int64(s.index.count), s.bytes, s.o.Size
	st.Dropped += s.queue.refused.Load()
	return st
}

// Close writes what is queued, for at most patience, and closes the files.
func (s *Store) Close(patience time.Duration) {
	s.queue.close()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
		s.queue.clear()
		return // the disk hangs: its files end with the process
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range append(s.segments, s.trash...) {
		_ = g.file.Close()
	}
	s.segments = nil
	_ = s.lock.Close()
}
