//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package certs

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// flock locks f against other processes, without waiting.
func flock(f *os.File) (bool, error) {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, syscall.EINTR):
			return false, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}
