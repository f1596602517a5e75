package upstream

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// delayed is a delayed end and the other end of a pipe, in virtual time.
func delayed(t *testing.T, d time.Duration, story func(near net.Conn, far net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		near := DelayConn(a, d)
		story(near, b)
		_ = near.Close()
		_ = b.Close()
	})
}

func TestDelay(t *testing.T) {
	const d = 80 * time.Millisecond
	delayed(t, d, func(near, far net.Conn) {
		start := time.Now()
		for _, s := range []string{"one ", "two ", "three"} {
			if n, err := near.Write([]byte(s)); n != len(s) || err != nil {
				t.Errorf("Write: %d %v", n, err)
			}
		}
		if time.Since(start) != 0 {
			t.Errorf("Write took %v", time.Since(start))
		}
		buf := make([]byte, len("one two three"))
		if _, err := io.ReadFull(far, buf); err != nil || string(buf) != "one two three" {
			t.Errorf("got %q %v", buf, err)
		}
		if took := time.Since(start); took != d {
			t.Errorf("arrived after %v, want %v", took, d)
		}
		go func() { _, _ = far.Write([]byte("back")) }()
		start = time.Now()
		if _, err := io.ReadFull(near, buf[:4]); err != nil || time.Since(start) != 0 {
			t.Errorf("what comes back isn't delayed: %v %v", err, time.Since(start))
		}
	})
}

// TestDelayClose: what was written before Close still arrives, a Read is woken at once.
func TestDelayClose(t *testing.T) {
	delayed(t, time.Second, func(near, far net.Conn) {
		_, _ = near.Write([]byte("last words"))
		read := make(chan error)
		go func() {
			_, err := near.Read(make([]byte, 1))
			read <- err
		}()
		synctest.Wait()
		start := time.Now()
		if err := near.Close(); err != nil {
			t.Error(err)
		}
		if err := <-read; !errors.Is(err, net.ErrClosed) || time.Since(start) != 0 {
			t.Errorf("Read: %v after %v", err, time.Since(start))
		}
		if _, err := near.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write after Close: %v", err)
		}
		b, err := io.ReadAll(far)
		if string(b) != "last words" || err != nil || time.Since(start) != time.Second {
			t.Errorf("got %q %v after %v", b, err, time.Since(start))
		}
		if err := near.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second Close: %v", err)
		}
	})
}

// TestDelayCloseBound: a peer that takes nothing holds the goroutine no longer than the flush's bound.
func TestDelayCloseBound(t *testing.T) {
	delayed(t, time.Second, func(near, far net.Conn) {
		_, _ = near.Write([]byte("never read"))
		_ = near.Close()
		timer := time.NewTimer(time.Second + delayFlush + time.Millisecond)
		<-timer.C
		synctest.Wait()
		if n, err := far.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("got %d bytes and %v, want the end", n, err)
		}
	})
}

// TestDelayIsBounded: a Write that finds no room waits, and its deadline holds.
func TestDelayIsBounded(t *testing.T) {
	delayed(t, time.Hour, func(near, far net.Conn) {
		_ = near.SetDeadline(time.Now().Add(time.Minute))
		start := time.Now()
		n, err := near.Write(bytes.Repeat([]byte("x"), delayBuffer+1))
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Minute || n > delayBuffer || n < delayBuffer-delayMaxChunk {
			t.Errorf("%d bytes, %v after %v", n, err, time.Since(start))
		}
		_ = near.SetDeadline(time.Time{})
		unblocked := make(chan error)
		go func() {
			_, err := near.Write(bytes.Repeat([]byte("y"), delayMaxChunk+1))
			unblocked <- err
		}()
		synctest.Wait()
		_ = near.Close()
		if err := <-unblocked; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Close leaves a Write waiting: %v", err)
		}
		_ = far.Close()
		timer := time.NewTimer(time.Hour + time.Minute)
		<-timer.C
	})
}

// TestDelayError: the connection's own error reaches the next Write.
func TestDelayError(t *testing.T) {
	delayed(t, time.Second, func(near, far net.Conn) {
		_ = far.Close()
		_, _ = near.Write([]byte("x"))
		timer := time.NewTimer(2 * time.Second)
		<-timer.C
		synctest.Wait()
		if _, err := near.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
	})
}

func TestNoDelay(t *testing.T) {
	a, b := net.Pipe()
	defer func() { _ = a.Close(); _ = b.Close() }()
	if DelayConn(a, 0) != a || DelayConn(a, -1) != a {
		t.Error("no delay wraps all the same")
	}
}
