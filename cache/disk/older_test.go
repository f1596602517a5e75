package disk

import (
	"sync"
	"syscall"
	"testing"
	"time"
)

// A record that is refused, or lost by a failing disk, leaves no older one of its variant behind: not now, and not after
// the process was killed.
func TestNoOlderRecord(t *testing.T) {
	now := time.Now()
	var mu sync.Mutex
	clock := func(o *Options) { o.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now } }
	for _, c := range []struct {
		name string
		hurt func(t *testing.T, s *Store, fs *faulty)
	}{
		{"too large", func(t *testing.T, s *Store, _ *faulty) {
			if s.Put(Record{Hash: 1, Variant: 1, Body: [][]byte{make([]byte, s.segSize)}}) {
				t.Error("it was taken")
			}
		}},
		{"the queue is full", func(t *testing.T, s *Store, _ *faulty) {
			if s.Put(record(1, 5000)) {
				t.Error("it was taken")
			}
		}},
		{"the queue is full, and the older one in it", func(t *testing.T, s *Store, fs *faulty) {
			begun, goOn := make(chan struct{}), make(chan struct{})
			fs.mu.Lock()
			fs.writing = sync.OnceFunc(func() { close(begun); <-goOn })
			fs.mu.Unlock()
			s.Put(record(9, 100))
			<-begun
			if !s.Put(record(1, 200)) || s.Put(record(1, 5000)) {
				t.Error("the queue took the wrong one")
			}
			close(goOn)
		}},
		{"the disk fails", func(t *testing.T, s *Store, fs *faulty) {
			fs.set(syscall.EIO, nil)
			s.Put(record(1, 300))
			s.Put(record(3, 300)) // nothing older to be owed
			flushed(t, s)
			fs.set(nil, nil)
			mu.Lock()
			now = now.Add(2 * retryAfter)
			mu.Unlock()
			s.Put(record(5, 100))
		}},
		{"the disk fails at a removal", func(t *testing.T, s *Store, fs *faulty) {
			fs.set(syscall.EIO, nil)
			s.Remove(1, 1)
			flushed(t, s)
			fs.set(nil, nil)
			s.Close(time.Minute) // no further record comes
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs, dir := &faulty{}, t.TempDir()
			s := open(t, dir, clock, func(o *Options) { o.FS, o.QueueBytes = fs, 4000 })
			s.Put(record(1, 100))
			s.Put(record(2, 100))
			flushed(t, s)
			c.hurt(t, s, fs)
			flushed(t, s)
			if has(t, s, 1, 100) {
				t.Error("the older one is found")
			}
			again := open(t, killed(t, dir))
			if head, _ := get(t, again, 1); head != "" {
				t.Error("the older one is found after a kill")
			}
			if !has(t, again, 2, 100) {
				t.Error("another record is gone")
			}
		})
	}
}

// What a failing disk owes is bounded: past that, it is emptied.
func TestOwedTooMuch(t *testing.T) {
	fs, dir := &faulty{}, t.TempDir()
	s := open(t, dir, func(o *Options) { o.FS = fs })
	s.Put(record(1, 100))
	flushed(t, s)
	fs.set(syscall.EIO, nil)
	s.Remove(1, 1)
	for n := range maxOwed + 1 {
		s.mu.Lock()
		s.index.add(entry{hash: uint64(10 + n), variant: 1})
		s.mu.Unlock()
		s.Remove(uint64(10+n), 1)
		if n%1000 == 0 {
			flushed(t, s)
		}
	}
	flushed(t, s)
	fs.set(nil, nil)
	s.Close(time.Minute)
	if again := open(t, killed(t, dir)); has(t, again, 1, 100) || again.Stats().Records != 0 {
		t.Errorf("%+v", again.Stats())
	}
}
