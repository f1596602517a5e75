package upstream

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// TestDelayReads: what comes is late by just the delay, in order and to the end; a deadline and Close end a Read at once.
func TestDelayReads(t *testing.T) {
	const d = 80 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		a, far := net.Pipe()
		near := DelayReads(a, d)
		start := time.Now()
		go func() {
			_, _ = far.Write([]byte("one "))
			_, _ = far.Write([]byte("two"))
			_ = far.Close()
		}()
		if b, err := io.ReadAll(near); string(b) != "one two" || err != nil || time.Since(start) != d {
			t.Errorf("%q %v after %v", b, err, time.Since(start))
		}
		_ = near.Close()

		a, far = net.Pipe()
		near = DelayReads(a, d)
		start = time.Now()
		_ = near.SetReadDeadline(start.Add(time.Second))
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		_ = near.SetDeadline(time.Time{})
		read := make(chan error)
		go func() { _, err := near.Read(make([]byte, 1)); read <- err }()
		synctest.Wait()
		_ = near.Close()
		if err := <-read; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if err := near.SetReadDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		_ = far.Close()
		if DelayReads(far, 0) != far {
			t.Error("no delay wraps all the same")
		}
	})
}
