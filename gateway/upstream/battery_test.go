package upstream

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"landfall/configs"
)

// wait lets real time pass where an origin is to be slow.
func wait(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

// TestBattery: what a client sees of an origin that does each of these, and that the same pool then serves from a good one,
// with nothing left in flight. TestMain sees that no goroutine and no connection is left.
func TestBattery(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	tests := map[string]struct {
		serve func(net.Conn)
		pol   RetryPolicy
		cause string // empty: the client has it whole
		body  string
	}{
		"resets mid-body":                    {serve: func(c net.Conn) { answer(ok + "Content-Length: 10\r\n\r\nhalf")(c); reset(c) }, cause: CauseReset},
		"two Content-Lengths that differ":    {serve: answer(ok + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"), cause: CauseReset},
		"two that agree":                     {serve: answer(ok + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), body: "hello"},
		"a Content-Length that is no number": {serve: answer(ok + "Content-Length: +5\r\n\r\nhello"), cause: CauseReset},
		"a negative Content-Length":          {serve: answer(ok + "Content-Length: -5\r\n\r\nhello"), cause: CauseReset},
		"a body that is too short":           {serve: answer(ok + "Content-Length: 50\r\n\r\nhello"), cause: CauseReset},
		"garbage after the response":         {serve: answer(ok + "Content-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"), body: "hello"},
		"HTTP/1.0 until it closes":           {serve: answer("HTTP/1.0 200 OK\r\n\r\nhello"), body: "hello"},
		"HTTP/1.0 with a length":             {serve: answer("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"), body: "hello"},
		"HTTP/0.9":                           {serve: answer("hello"), cause: CauseReset},
		"chunked and a Content-Length":       {serve: answer(ok + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), body: "hello"},
		"an unknown transfer coding":         {serve: answer(ok + "Transfer-Encoding: gzip\r\n\r\nhello"), cause: CauseReset},
		"endless headers": {serve: func(c net.Conn) {
			answer(ok)(c)
			for i := 0; ; i++ {
				if _, err := fmt.Fprintf(c, "X-%d: %s\r\n", i, strings.Repeat("x", 1000)); err != nil {
					return
				}
			}
		}, cause: CauseReset},
		"an endless chunk extension": {serve: func(c net.Conn) {
			answer(ok + "Transfer-Encoding: chunked\r\n\r\n5;")(c)
			for {
				if _, err := io.WriteString(c, strings.Repeat("x", 1000)); err != nil {
					return
				}
			}
		}, cause: CauseReset},
		"a byte at a time, within the idle timeout": {serve: func(c net.Conn) {
			answer(ok + "Content-Length: 5\r\n\r\n")(c)
			for _, b := range "hello" {
				wait(10 * time.Millisecond)
				_, _ = io.WriteString(c, string(b))
			}
		}, pol: RetryPolicy{Idle: 5 * time.Second}, body: "hello"},
		"a byte at a time for ever, within the total": {serve: func(c net.Conn) {
			answer(ok + "Content-Length: 100000\r\n\r\n")(c)
			for {
				wait(5 * time.Millisecond)
				if _, err := io.WriteString(c, "x"); err != nil {
					return
				}
			}
		}, pol: RetryPolicy{Total: 150 * time.Millisecond}, cause: CauseTimeout},
		"headers a byte at a time": {serve: func(c net.Conn) {
			answer("")(c)
			for {
				wait(5 * time.Millisecond)
				if _, err := io.WriteString(c, "H"); err != nil {
					return
				}
			}
		}, pol: RetryPolicy{FirstByte: 100 * time.Millisecond}, cause: CauseTimeout},
		"vanishes without a FIN": {serve: func(c net.Conn) { answer(ok + "Content-Length: 10\r\n\r\nhalf")(c); _, _ = io.Copy(io.Discard, c) },
			pol: RetryPolicy{Idle: 100 * time.Millisecond}, cause: CauseTimeout},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := newTestPool(t, PoolOptions{Origins: []string{hostile(t, tt.serve)}})
			got, _, _, err := do(p, request(t, "GET", nil), tt.pol)
			if tt.cause != "" {
				wantError(t, err, tt.cause, "")
			} else if got != tt.body || err != nil {
				t.Errorf("%q %v, want %q", got, err, tt.body)
			}
			wantIdle(t, p)
			p.SetMembers([]Member{{URL: good(t, hello)}})
			if got, _, _, err := do(p, request(t, "GET", nil), policy()); got != "hello" {
				t.Errorf("the pool did not recover: %q %v", got, err)
			}
			wantIdle(t, p)
		})
	}
}

// TestEarlyResponse: an origin that answers before it has the request's body is heard at once, and the client's side of
// the body ends.
func TestEarlyResponse(t *testing.T) {
	p := newTestPool(t, PoolOptions{Origins: []string{hostile(t, func(c net.Conn) {
		_, _ = bufio.NewReader(c).ReadString('\n')
		_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
		_, _ = io.Copy(io.Discard, c)
	})}})
	body, feed := io.Pipe()
	r := request(t, "POST", body)
	r.ContentLength = -1
	go func() {
		for {
			if _, err := feed.Write(make([]byte, 1000)); err != nil {
				return
			}
		}
	}()
	got, code, _, err := do(p, r, policy())
	if code != 413 || got != "big" || err != nil {
		t.Errorf("%d %q %v", code, got, err)
	}
	_ = body.CloseWithError(errors.New("done"))
	wantIdle(t, p)
}

// TestStaleKeepAlive: an origin that closes each connection after a response, without a word, costs no request.
func TestStaleKeepAlive(t *testing.T) {
	p := newTestPool(t, PoolOptions{Origins: []string{hostile(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		if _, err := http.ReadRequest(r); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
		}
	})}})
	for range 300 {
		if got, _, _, err := do(p, request(t, "GET", nil), policy()); got != "hello" {
			t.Fatal(err)
		}
	}
	if s := p.Status().Origins[0]; s.Failures != 0 {
		t.Errorf("%+v", s)
	}
}

// TestFlapping: an origin that fails and recovers all the time costs no idempotent request while another is there.
func TestFlapping(t *testing.T) {
	var n atomic.Int64
	flapping := good(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1)/10%2 == 0 {
			panic(http.ErrAbortHandler)
		}
		hello(w, r)
	})
	p := newTestPool(t, PoolOptions{
		Origins: []string{flapping, good(t, hello), good(t, hello)}, Breaker: configs.Breaker{Open: configs.Duration(20 * time.Millisecond)},
		Eject: configs.Eject{ConsecutiveErrors: 5, MinRequests: 20, For: configs.Duration(20 * time.Millisecond), Max: 0.5},
	})
	pol := policy()
	pol.Budget = 1
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				if got, _, a, err := do(p, request(t, "GET", nil), pol); got != "hello" {
					t.Error(got, a, err)
				}
			}
		})
	}
	wg.Wait()
	wantIdle(t, p)
}

// TestSlowPools: half of a pool, and all of it, take longer than a route allows.
func TestSlowPools(t *testing.T) {
	slow := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	pol := policy()
	pol.FirstByte, pol.Budget = 30*time.Millisecond, 1
	half := newTestPool(t, PoolOptions{Origins: []string{good(t, slow), good(t, hello), good(t, slow), good(t, hello)}})
	pol.Attempts = 3
	for range 40 {
		if got, _, a, err := do(half, request(t, "GET", nil), pol); got != "hello" {
			t.Error(got, a, err)
		}
	}
	all := newTestPool(t, PoolOptions{Origins: []string{good(t, slow), good(t, slow)}, Breaker: configs.Breaker{MinRequests: 5, Open: configs.Duration(time.Hour)}})
	causes := map[string]int{}
	for range 30 {
		_, _, _, err := do(all, request(t, "GET", nil), pol)
		var e *Error
		if !errors.As(err, &e) {
			t.Fatal(err)
		}
		causes[e.Cause]++
	}
	if causes[CauseTimeout] == 0 || causes[CauseBreakerOpen] == 0 || len(causes) != 2 {
		t.Errorf("%v: first timeouts, then refusals at once", causes)
	}
	var well atomic.Bool
	sick := func(w http.ResponseWriter, r *http.Request) {
		if !well.Load() {
			slow(w, r)
			return
		}
		hello(w, r)
	}
	back := newTestPool(t, PoolOptions{Origins: []string{good(t, sick), good(t, sick)}, Breaker: configs.Breaker{MinRequests: 5, Open: configs.Duration(20 * time.Millisecond)}})
	for range 20 {
		if got, _, _, err := do(back, request(t, "GET", nil), pol); err == nil {
			t.Error("all of the pool was slow, and one answered:", got)
		}
	}
	well.Store(true)
	pol.FirstByte = 10 * time.Second
	waitFor(t, func() bool { got, _, _, _ := do(back, request(t, "GET", nil), pol); return got == "hello" })
	wantIdle(t, back)
	wantIdle(t, half)
	wantIdle(t, all)
}
