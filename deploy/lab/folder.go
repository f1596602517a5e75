package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

const (
	dirPrefix = "landfall-lab-"
	pidFile   = "lab.pid"
)

// makeDir makes the lab's folder. One of its own making is locked for as long as the lab's process lives, whatever ends
// it, so that a later lab can tell what a crash left behind from what is in use.
func (l *Lab) makeDir() error {
	if l.fleet.Dir = l.o.Dir; l.o.Dir != "" {
		if err := os.MkdirAll(l.o.Dir, 0o700); err != nil {
			return fmt.Errorf("make the lab's folder (--dir): %w", err)
		}
		return nil
	}
	removeStale(os.TempDir())
	dir, err := os.MkdirTemp("", dirPrefix)
	if err != nil {
		return fmt.Errorf("make the lab's folder: %w", err)
	}
	l.fleet.Dir, l.tempDir = dir, true
	f, err := os.OpenFile(filepath.Join(dir, pidFile), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("mark the lab's folder as in use: %w", err)
	}
	l.dirLock = f
	if err := lock(f); err != nil {
		return fmt.Errorf("mark the lab's folder as in use: %w", err)
	}
	if _, err := f.WriteString(strconv.Itoa(os.Getpid()) + "\n"); err != nil {
		return fmt.Errorf("mark the lab's folder as in use: %w", err)
	}
	return nil
}

// removeDir removes a folder that the lab made.
func (l *Lab) removeDir() {
	if l.tempDir {
		_ = os.RemoveAll(l.fleet.Dir)
	}
	if l.dirLock != nil {
		_ = l.dirLock.Close()
	}
}

// lock takes the lock of a file without waiting. The kernel releases it when the process ends; children don't inherit it.
func lock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }

// removeStale removes folders of labs that crashed. A folder is one if its name has our prefix, it is a real folder (no
// link), and it holds a pid file whose lock nobody holds and whose process is gone. What is in doubt stays.
func removeStale(tmp string) {
	dirs, err := filepath.Glob(filepath.Join(tmp, dirPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		if stale(dir) {
			_ = os.RemoveAll(dir) // another user's stays, as it must
		}
	}
}

func stale(dir string) bool {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() {
		return false
	}
	path := filepath.Join(dir, pidFile)
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() || info.Size() > 32 {
		return false
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	if lock(f) != nil {
		return false
	}
	var pid int
	if _, err := fmt.Fscanf(f, "%d\n", &pid); err != nil || pid <= 0 {
		return false
	}
	return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}
