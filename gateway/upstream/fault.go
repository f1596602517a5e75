package upstream

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Fault is trouble made on purpose in an attempt, in place of an origin's own: breakers, ejection, retries and metrics can't
// tell the two apart.
type Fault struct {
	ID       string
	Delay    time.Duration // before the request is sent, or in place of that; at most the first-byte timeout passes
	Abort    int           // the status of an answer in place of the origin's; 0: none
	Reset    bool          // the connection breaks in place of an answer
	SlowBody int64         // bytes of the body a second; 0: as they come
}

var errFaultReset = errors.New("connection reset by a fault that an operator injected")

// inject makes the trouble that comes before the origin is asked. Without a response and an error it is asked.
func (f *Fault) inject(a *attempt, r *http.Request) (*http.Response, error) {
	a.stopPending() // what follows waits for no connection
	if f.Delay > 0 {
		if err := f.wait(a); err != nil {
			return nil, err
		}
	}
	switch {
	case f.Reset:
		a.connected.Store(true)
		a.stopWaiting()
		return nil, errFaultReset
	case f.Abort != 0:
		a.connected.Store(true)
		a.stopWaiting()
		text := fmt.Sprintf("fault %s: %d\n", f.ID, f.Abort)
		return &http.Response{
			StatusCode: f.Abort, Status: fmt.Sprint(f.Abort, " ", http.StatusText(f.Abort)), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
			Header: http.Header{"Cache-Control": {"no-store"}, "Content-Type": {"text/plain; charset=utf-8"}},
			Body:   io.NopCloser(strings.NewReader(text)), ContentLength: int64(len(text)),
		}, nil
	}
	return nil, nil
}

// wait delays an attempt. An origin that was slower than the first-byte timeout would be given up, and so is the fault.
func (f *Fault) wait(a *attempt) error {
	d, limit := f.Delay, a.policy.FirstByte
	tooLong := limit > 0 && d >= limit
	if tooLong {
		d = limit
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-a.ctx.Done():
		return a.ctx.Err()
	}
	if tooLong {
		a.connected.Store(true)
		a.cancel(&timeoutError{"no response headers", limit})
		return a.ctx.Err()
	}
	return nil
}

// slow is a response body that comes no faster than so many bytes a second. It belongs to its one reader.
type slow struct {
	io.ReadCloser
	a    *attempt
	rate int64
}

// slowStep is how long a slow body waits at a time: its bytes come in pieces, not one by one.
const slowStep = 50 * time.Millisecond

// Read waits before it reads, so that the first byte is late too.
func (s *slow) Read(p []byte) (int, error) {
	t := time.NewTimer(slowStep)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.a.ctx.Done():
		return 0, s.a.ctx.Err()
	}
	n := max(s.rate*int64(slowStep)/int64(time.Second), 1)
	return s.ReadCloser.Read(p[:min(int64(len(p)), n)])
}
