package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, dir string, change ...func(*Options)) *Store {
	t.Helper()
	o := Options{Dir: dir, Size: 8 << 20}
	for _, f := range change {
		f(&o)
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(10 * time.Second) })
	return s
}

func record(n int, size int) Record {
	body := bytes.Repeat([]byte{byte(n), byte(n >> 8), 3}, size/3+1)[:size]
	return Record{Hash: uint64(n), Variant: 1, Born: uint64(n), Head: fmt.Appendf(nil, "head %d", n), Body: [][]byte{body[:size/2], body[size/2:]}}
}

// get reads the newest record of a hash; "" and nil: there is none.
func get(t testing.TB, s *Store, hash uint64) (head string, body []byte) {
	t.Helper()
	err := s.Find(hash, func(r Ref, h []byte) bool {
		b, err := s.Body(r, 100)
		if err == nil {
			head, body = string(h), bytes.Join(b, nil)
		}
		return err != nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return head, body
}

func has(t testing.TB, s *Store, n, size int) bool {
	t.Helper()
	head, body := get(t, s, uint64(n))
	if head == "" {
		return false
	}
	if want := record(n, size); head != string(want.Head) || !bytes.Equal(body, bytes.Join(want.Body, nil)) {
		t.Fatalf("record %d is %q with %d bytes", n, head, len(body))
	}
	return true
}

func flushed(t testing.TB, s *Store) {
	t.Helper()
	stop := make(chan struct{})
	defer time.AfterFunc(20*time.Second, func() { close(stop) }).Stop()
	if !s.Flush(stop) {
		t.Fatal("the queue is never empty")
	}
}

// killed is a folder as a process that was killed now would leave it.
func killed(t testing.TB, dir string) string {
	t.Helper()
	left := t.TempDir()
	if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return left
}

// What was written is there after a clean end, and after none.
func TestReopen(t *testing.T) {
	for _, clean := range []bool{true, false} {
		dir := t.TempDir()
		s := open(t, dir)
		for n := range 500 {
			s.Put(record(n, n*10))
		}
		again := record(7, 33)
		again.Head = []byte("newer")
		s.Put(again)
		s.Remove(8, 1)
		flushed(t, s)
		if clean {
			s.Close(time.Minute)
		} else {
			dir = killed(t, dir)
		}
		s = open(t, dir)
		for n := range 500 {
			switch n {
			case 7:
				if head, body := get(t, s, 7); head != "newer" || len(body) != 33 {
					t.Errorf("%q %d", head, len(body))
				}
			case 8:
				if has(t, s, 8, 80) {
					t.Error("a removed record is back")
				}
			default:
				if !has(t, s, n, n*10) {
					t.Errorf("record %d is gone", n)
				}
			}
		}
		if st := s.Stats(); st.Records != 499 || s.MaxBorn() != 499 {
			t.Errorf("%+v, born %d", st, s.MaxBorn())
		}
		s.Put(record(1000, 10))
		flushed(t, s)
		if !has(t, s, 1000, 10) {
			t.Error("nothing new is kept")
		}
	}
}

// The files are never more than the bound, and the oldest go first.
func TestBound(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, func(o *Options) { o.Size, o.QueueBytes = 2<<20, 64<<20 })
	for n := range 400 {
		s.Put(record(n, 20_000))
	}
	flushed(t, s)
	var size int64
	names, _ := OS{}.ReadDir(dir)
	for _, name := range names {
		if strings.HasSuffix(name, ".seg") {
			info, err := os.Stat(filepath.Join(dir, name))
			if err == nil {
				size += info.Size()
			}
		}
	}
	if size > 2<<20 || !has(t, s, 399, 20_000) || has(t, s, 0, 20_000) {
		t.Errorf("%d bytes", size)
	}
	if st := s.Stats(); st.Bytes > st.MaxBytes || st.Evicted == 0 || st.Records+st.Evicted != 400 {
		t.Errorf("%+v", st)
	}
	s.Close(time.Minute)
	small := open(t, dir, func(o *Options) { o.Size = MinSize })
	if st := small.Stats(); st.Bytes > MinSize || st.Records == 0 {
		t.Errorf("opened with a smaller bound: %+v", st)
	}
	few := open(t, t.TempDir(), func(o *Options) { o.MaxRecords = 100 })
	for n := range 20_000 {
		few.Put(record(n, 100))
	}
	flushed(t, few)
	if st := few.Stats(); st.Records > 100 {
		t.Errorf("%+v", st)
	}
}

// Whatever byte of the files is flipped, and wherever they are torn, nothing wrong is ever read: a record is whole or gone.
func TestFlippedAndTorn(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for n := range 40 {
		s.Put(record(n, 100+n))
	}
	flushed(t, s)
	s.Close(time.Minute)
	rnd := rand.New(rand.NewPCG(1, 2))
	lost := 0
	for round := range 300 {
		hurt := t.TempDir()
		names, _ := OS{}.ReadDir(dir)
		for _, name := range names {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case len(b) == 0:
			case round%3 == 0 && strings.HasSuffix(name, ".lst"):
				continue
			case round%2 == 0:
				b = b[:rnd.IntN(len(b)+1)]
			default:
				b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
			}
			if err := os.WriteFile(filepath.Join(hurt, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s := open(t, hurt)
		for n := range 40 {
			if !has(t, s, n, 100+n) {
				lost++
			}
		}
		s.Put(record(77, 50))
		flushed(t, s)
		if !has(t, s, 77, 50) {
			t.Fatal("a hurt store keeps nothing new")
		}
		s.Close(time.Minute)
	}
	if lost == 0 {
		t.Error("nothing was hurt")
	}
}

// faulty fails what it is told to.
type faulty struct {
	OS
	mu      sync.Mutex
	err     error         // of writing
	hang    chan struct{} // nil: reads return
	wrote   int
	writing func() // called before a write; nil: nothing is
}

func (f *faulty) set(err error, hang chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err, f.hang = err, hang
}

type faultyFile struct {
	File
	fs *faulty
}

func (f *faulty) Create(name string) (File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	file, err := f.OS.Create(name)
	return faultyFile{file, f}, err
}

func (f *faulty) Open(name string) (File, error) {
	file, err := f.OS.Open(name)
	return faultyFile{file, f}, err
}

func (f faultyFile) WriteAt(b []byte, at int64) (int, error) {
	f.fs.mu.Lock()
	err, writing := f.fs.err, f.fs.writing
	f.fs.wrote++
	f.fs.mu.Unlock()
	if writing != nil {
		writing()
	}
	if err != nil {
		n, _ := f.File.WriteAt(b[:len(b)/2], at) // torn
		return n, err
	}
	return f.File.WriteAt(b, at)
}

func (f faultyFile) ReadAt(b []byte, at int64) (int, error) {
	f.fs.mu.Lock()
	hang := f.fs.hang
	f.fs.mu.Unlock()
	if hang != nil {
		<-hang
		return 0, io.ErrUnexpectedEOF
	}
	return f.File.ReadAt(b, at)
}

// A full disk is told of once, keeps what was there, forgets what would be old, and is used again when there is room.
func TestFullDisk(t *testing.T) {
	fs := &faulty{}
	now := time.Now()
	var mu sync.Mutex
	var states []error
	dir := t.TempDir()
	s := open(t, dir, func(o *Options) {
		o.FS = fs
		o.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
		o.OnState = func(err error) { mu.Lock(); defer mu.Unlock(); states = append(states, err) }
	})
	s.Put(record(1, 100))
	s.Put(record(2, 100))
	flushed(t, s)
	fs.set(syscall.ENOSPC, nil)
	for n := 2; n < 10; n++ {
		s.Put(record(n, 100))
	}
	flushed(t, s)
	if !has(t, s, 1, 100) || has(t, s, 2, 100) || has(t, s, 3, 100) {
		t.Error("a full disk has the wrong records")
	}
	if st := s.Stats(); !st.Down || st.Dropped != 8 {
		t.Errorf("%+v", st)
	}
	fs.set(nil, nil)
	mu.Lock()
	now = now.Add(2 * retryAfter)
	mu.Unlock()
	s.Put(record(4, 100))
	flushed(t, s)
	if !has(t, s, 4, 100) || s.Stats().Down {
		t.Error("not used again")
	}
	mu.Lock()
	if len(states) != 2 || !errors.Is(states[0], syscall.ENOSPC) || states[1] != nil {
		t.Errorf("told %v", states)
	}
	mu.Unlock()
	s.Close(time.Minute)
	s = open(t, dir)
	if !has(t, s, 1, 100) || !has(t, s, 4, 100) {
		t.Error("gone after a restart")
	}
}

// A disk that hangs costs the first readers their patience, and the next ones nothing.
func TestHangingDisk(t *testing.T) {
	fs := &faulty{}
	s := open(t, t.TempDir(), func(o *Options) { o.FS, o.Patience = fs, 20*time.Millisecond })
	s.Put(record(1, 100))
	flushed(t, s)
	hang := make(chan struct{})
	fs.set(nil, hang)
	for range 3 {
		if err := s.Find(1, func(Ref, []byte) bool { t.Error("read"); return false }); !errors.Is(err, errSlow) {
			t.Errorf("%v", err)
		}
	}
	if st := s.Stats(); st.Failed != 3 || st.Corrupt != 0 {
		t.Errorf("%+v", st)
	}
	fs.set(nil, nil)
	close(hang)
	deadline := time.After(10 * time.Second)
	for s.stuck.Load() > 0 {
		select {
		case <-deadline:
			t.Fatal("stuck for ever")
		default:
		}
	}
	if !has(t, s, 1, 100) {
		t.Error("gone after the disk came back")
	}
}

// Two processes don't write into one folder.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := Open(Options{Dir: dir, Size: MinSize}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("%v", err)
	}
}

func TestClear(t *testing.T) {
	dir := t.TempDir()
	memory := int64(0)
	s := open(t, dir, func(o *Options) { o.OnMemory = func(n int64) { memory += n } })
	for n := range 100 {
		s.Put(record(n, 1000))
	}
	flushed(t, s)
	if n := s.Clear(); n != 100 || has(t, s, 5, 1000) || memory != 0 {
		t.Errorf("%d records were there, %d bytes still are", n, memory)
	}
	s.Put(record(5, 1000))
	flushed(t, s)
	s.Close(time.Minute)
	s = open(t, dir)
	if st := s.Stats(); st.Records != 1 || !has(t, s, 5, 1000) {
		t.Errorf("%+v", st)
	}
	if s.Put(Record{Hash: 1, Head: make([]byte, MaxHead+1)}) || s.Put(Record{Hash: 1, Body: [][]byte{make([]byte, s.segSize)}}) {
		t.Error("a record that is too large was taken")
	}
}

// Readers, writers, removals and clearing at once.
func TestConcurrent(t *testing.T) {
	s := open(t, t.TempDir(), func(o *Options) { o.Size = MinSize })
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 300 {
				n := (i*7 + w) % 50
				switch i % 10 {
				case 0:
					s.Remove(uint64(n), 1)
				case 1:
					if i%100 == 1 {
						s.Clear()
					}
				case 2, 3, 4, 5:
					s.Put(record(n, 5000))
				default:
					has(t, s, n, 5000)
				}
			}
		})
	}
	wg.Wait()
}

// FuzzSegment: whatever is in the files, opening them tells only of records whose checksum holds.
func FuzzSegment(f *testing.F) {
	dir := f.TempDir()
	s, err := Open(Options{Dir: dir, Size: MinSize})
	if err != nil {
		f.Fatal(err)
	}
	s.Put(record(1, 20))
	s.Put(record(2, 0))
	s.Remove(1, 1)
	s.Close(time.Minute)
	seg, _ := os.ReadFile(filepath.Join(dir, segmentName(0)))
	list, _ := os.ReadFile(filepath.Join(dir, listName(0)))
	f.Add(seg, list)
	f.Add(seg, []byte{})
	f.Fuzz(func(t *testing.T, seg, list []byte) {
		found, end := scan(bytes.NewReader(seg), 0, int64(len(seg)))
		if end > int64(len(seg)) {
			t.Fatalf("read to %d of %d", end, len(seg))
		}
		for _, l := range found {
			if int64(l.offset)*align+int64(l.size)*align > end {
				t.Fatalf("%+v is beyond %d", l, end)
			}
		}
		parseList(list)
	})
}

// BenchmarkOpenMillion is the time from a start to a whole index of a million records, after a clean end and after none.
func BenchmarkOpenMillion(b *testing.B) {
	dir := b.TempDir()
	s := open(b, dir, func(o *Options) { o.Size, o.QueueBytes, o.MaxRecords = 4<<30, 64<<20, 2<<20 })
	const million = 1_000_000
	for n := range million {
		for !s.Put(record(n, 100)) {
			flushed(b, s)
		}
	}
	flushed(b, s)
	s.Close(time.Minute)
	for _, killed := range []bool{false, true} {
		b.Run(fmt.Sprintf("killed=%v", killed), func(b *testing.B) {
			for b.Loop() {
				if killed {
					lists, _ := filepath.Glob(filepath.Join(dir, "*.lst"))
					for _, name := range lists {
						_ = os.Remove(name)
					}
				}
				s, err := Open(Options{Dir: dir, Size: 4 << 30, MaxRecords: 2 << 20})
				if err != nil {
					b.Fatal(err)
				}
				if st := s.Stats(); st.Records != million {
					b.Fatal(st)
				}
				s.Close(time.Minute)
			}
			b.ReportMetric(million, "records")
		})
	}
}
