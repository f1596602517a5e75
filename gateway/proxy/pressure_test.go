package proxy

import (
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// tooMuch is more than what the sockets on the way may hold, and enough to be seen.
const tooMuch = 256 << 20

// settled waits until a count no longer grows.
func settled(t *testing.T, n *atomic.Int64) int64 {
	t.Helper()
	last, since := int64(-1), time.Now()
	eventually(t, "an end of the flow", func() bool {
		if now := n.Load(); now != last {
			last, since = now, time.Now()
		}
		return last > 0 && time.Since(since) > 300*time.Millisecond
	})
	return last
}

// flow is an endless body that counts what was taken of it.
type flow struct{ taken *atomic.Int64 }

func (f flow) Read(p []byte) (int, error) {
	if f.taken.Load() >= tooMuch {
		return 0, io.EOF
	}
	f.taken.Add(int64(len(p)))
	return len(p), nil
}

// A client that does not read holds the origin up, and an origin that does not read holds the client up: what is between
// them holds no more than the sockets do.
func TestBackPressure(t *testing.T) {
	release := make(chan struct{})
	var down atomic.Int64
	g := newRig(t, one("", origin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			<-release // and read nothing
			return
		}
		buf := make([]byte, 64<<10)
		for down.Load() < tooMuch {
			n, err := w.Write(buf)
			if down.Add(int64(n)); err != nil {
				return
			}
		}
	})), nil)
	for _, target := range []string{"/", "https:///"} {
		down.Store(0)
		resp := g.send(g.request("GET", target, nil))
		if n := settled(t, &down); n >= tooMuch/2 {
			t.Errorf("GET %s: the origin could send %d bytes to a client that reads none", target, n)
		}
		_ = resp.Body.Close()
	}
	for _, target := range []string{"/", "https:///"} {
		var up atomic.Int64
		done := make(chan struct{})
		go func() {
			defer close(done)
			if resp, err := g.client().Do(g.request("POST", target, flow{&up})); err == nil {
				_ = resp.Body.Close()
			}
		}()
		if n := settled(t, &up); n >= tooMuch/2 {
			t.Errorf("POST %s: the client could send %d bytes to an origin that reads none", target, n)
		}
		release <- struct{}{}
		receive(t, "the end of the upload", done)
	}
}
