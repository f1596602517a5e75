package certs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

// lockPoll is how often a lock that another process holds is tried.
const lockPoll = time.Second

// fileStorage is certmagic's file storage with locks of the operating system, which a crash releases. certmagic's own
// lock files outlive a crash, can be left empty, and need a goroutine each to stay fresh.
type fileStorage struct {
	*certmagic.FileStorage

	mu    sync.Mutex
	locks map[string]*lock
}

// lock is a named lock of this process, with the file that locks other processes out while it is held.
type lock struct {
	slot  chan struct{} // of capacity 1: full while held
	users int           // holders and waiters; the last one forgets the lock
	file  *os.File
}

func newFileStorage(path string) *fileStorage {
	return &fileStorage{FileStorage: &certmagic.FileStorage{Path: path}, locks: map[string]*lock{}}
}

// Lock implements certmagic.Locker: it blocks until the lock is held or ctx ends.
func (s *fileStorage) Lock(ctx context.Context, name string) error {
	l := s.use(name)
	select {
	case l.slot <- struct{}{}:
	case <-ctx.Done():
		s.unuse(name, l)
		return ctx.Err()
	}
	for {
		ok, err := s.lockFile(name, l)
		if ok {
			return nil
		}
		if err == nil {
			timer := time.NewTimer(lockPoll)
			select {
			case <-timer.C:
				continue
			case <-ctx.Done():
				timer.Stop()
				err = ctx.Err()
			}
		}
		<-l.slot
		s.unuse(name, l)
		return err
	}
}

// TryLock implements certmagic.TryLocker: it does not wait.
func (s *fileStorage) TryLock(_ context.Context, name string) (bool, error) {
	l := s.use(name)
	select {
	case l.slot <- struct{}{}:
	default:
		s.unuse(name, l)
		return false, nil
	}
	ok, err := s.lockFile(name, l)
	if !ok {
		<-l.slot
		s.unuse(name, l)
	}
	return ok, err
}

// Unlock implements certmagic.Locker.
func (s *fileStorage) Unlock(_ context.Context, name string) error {
	s.mu.Lock()
	l := s.locks[name]
	s.mu.Unlock()
	if l == nil || l.file == nil {
		return fmt.Errorf("unlock %q: it is not locked", name)
	}
	err := l.file.Close() // releases the lock too
	l.file = nil
	<-l.slot
	s.unuse(name, l)
	return err
}

func (s *fileStorage) use(name string) *lock {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.locks[name]
	if l == nil {
		l = &lock{slot: make(chan struct{}, 1)}
		s.locks[name] = l
	}
	l.users++
	return l
}

func (s *fileStorage) unuse(name string, l *lock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(s.locks, name)
	}
}

// lockFile locks the file of a name. false without an error: another process has it. The file stays when it is
// unlocked, as removing it would let two processes lock two files of one name.
func (s *fileStorage) lockFile(name string, l *lock) (bool, error) {
	dir := filepath.Join(s.Path, "locks")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, fmt.Errorf("lock %q: %w", name, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, certmagic.StorageKeys.Safe(name)+".flock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return false, fmt.Errorf("lock %q: %w", name, err)
	}
	ok, err := flock(f)
	if !ok {
		f.Close()
		return false, err
	}
	l.file = f
	return true, nil
}
