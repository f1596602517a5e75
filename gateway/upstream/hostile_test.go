package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"landfall/configs"
)

// TestHostileOrigins: what each kind of broken origin leads to, with one attempt, and that the slot is freed and the
// breaker told.
func TestHostileOrigins(t *testing.T) {
	for name, tt := range hostileCases() {
		t.Run(name, func(t *testing.T) {
			p := newTestPool(t, PoolOptions{Origins: []string{tt.origin(t)}})
			text, code, a, err := do(p, request(t, "GET", nil), tt.pol)
			switch {
			case tt.cause == "any" && err != nil:
			case tt.cause != "":
				wantError(t, err, tt.cause, tt.text)
			case err != nil || !strings.Contains(text, tt.text):
				t.Errorf("got %q, %v; want %q", text, err, tt.text)
			}
			if code != tt.code || a.Sent != tt.sent || a.Tries != 1 || a.Origin != p.members.Load().list[0].name {
				t.Errorf("got code %d, %+v; want %d, sent %v", code, a, tt.code, tt.sent)
			}
			if s := p.Status().Origins[0]; s.Failures != tt.fails || s.InFlight != 0 || s.Requests != 1 {
				t.Errorf("%+v, want %d failures", s, tt.fails)
			}
			if n := p.members.Load().list[0].breaker.window.sum(time.Now()); uint64(n.bad) != tt.fails || n.bad+n.good+n.neither != 1 {
				t.Errorf("the breaker counted %+v", n)
			}
			p.SetMembers([]Member{{URL: good(t, hello)}})
			if got, _, _, err := do(p, request(t, "GET", nil), policy()); got != "hello" {
				t.Errorf("the pool did not recover: %q %v", got, err)
			}
			wantIdle(t, p)
		})
	}
}

type hostileCase struct {
	origin func(*testing.T) string
	pol    RetryPolicy
	cause  string // empty: no error
	text   string // part of the error, or the body
	code   int
	sent   bool
	fails  uint64
}

func hostileCases() map[string]hostileCase {
	const ok = "HTTP/1.1 200 OK\r\n"
	hang := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	stall := func(s string) func(net.Conn) {
		return func(c net.Conn) { answer(s)(c); hang(c) }
	}
	return map[string]hostileCase{
		"refuses": {
			origin: func(t *testing.T) string { return refusing(t) },
			cause:  CauseConnect, text: "connection refused", fails: 1,
		},
		"accepts and hangs": {
			origin: func(t *testing.T) string { return hostile(t, hang) },
			pol:    RetryPolicy{FirstByte: 50 * time.Millisecond},
			cause:  CauseTimeout, text: "no response headers within 50ms", sent: true, fails: 1,
		},
		"closes before the response": {
			origin: func(t *testing.T) string { return hostile(t, answer("")) },
			cause:  CauseReset, text: "EOF", sent: true, fails: 1,
		},
		"resets mid-header": {
			origin: func(t *testing.T) string {
				return hostile(t, func(c net.Conn) { answer(ok + "Content-Le")(c); reset(c) })
			},
			cause: CauseReset, sent: true, fails: 1,
		},
		"stalls mid-header": {
			origin: func(t *testing.T) string { return hostile(t, stall(ok+"Content-Le")) },
			pol:    RetryPolicy{FirstByte: 50 * time.Millisecond},
			cause:  CauseTimeout, text: "no response headers", sent: true, fails: 1,
		},
		"sends 1xx for ever": {
			origin: func(t *testing.T) string {
				return hostile(t, func(c net.Conn) {
					answer("")(c)
					for _, err := io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n\r\n"); err == nil; {
						_, err = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n\r\n")
					}
				})
			},
			pol:   RetryPolicy{FirstByte: 200 * time.Millisecond},
			cause: "any", sent: true, fails: 1,
		},
		"speaks no HTTP": {
			origin: func(t *testing.T) string { return hostile(t, answer("220 mail ready\r\n")) },
			cause:  CauseReset, text: "malformed HTTP", sent: true, fails: 1,
		},
		"status 000": {
			origin: func(t *testing.T) string { return hostile(t, answer("HTTP/1.1 000 ?\r\nContent-Length: 0\r\n\r\n")) },
			cause:  CauseReset, text: "status 000", sent: true, fails: 1,
		},
		"upgrades unasked": {
			origin: func(t *testing.T) string { return hostile(t, answer(upgrade+"smuggled")) },
			cause:  CauseReset, text: "101 without an upgrade", sent: true, fails: 1,
		},
		"huge header": {
			origin: func(t *testing.T) string {
				return hostile(t, answer(ok+"X: "+strings.Repeat("x", 1<<20)+"\r\n\r\n"))
			},
			cause: CauseReset, text: "headers exceeded", sent: true, fails: 1,
		},
		"truncated body": {
			origin: func(t *testing.T) string { return hostile(t, answer(ok+"Content-Length: 10\r\n\r\nshort")) },
			cause:  CauseReset, text: "unexpected EOF", code: 200, sent: true, fails: 1,
		},
		"truncated chunks": {
			origin: func(t *testing.T) string {
				return hostile(t, answer(ok+"Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n"))
			},
			cause: CauseReset, text: "unexpected EOF", code: 200, sent: true, fails: 1,
		},
		"broken chunks": {
			origin: func(t *testing.T) string {
				return hostile(t, answer(ok+"Transfer-Encoding: chunked\r\n\r\nzz\r\nshort\r\n"))
			},
			cause: CauseReset, code: 200, sent: true, fails: 1,
		},
		"silence in the body": {
			origin: func(t *testing.T) string { return hostile(t, stall(ok+"Content-Length: 10\r\n\r\nshort")) },
			pol:    RetryPolicy{Idle: 50 * time.Millisecond},
			cause:  CauseTimeout, text: "no more of the response's body within 50ms", code: 200, sent: true, fails: 1,
		},
		"total before the headers": {
			origin: func(t *testing.T) string { return hostile(t, hang) },
			pol:    RetryPolicy{Total: 50 * time.Millisecond},
			cause:  CauseTimeout, text: "were not done within 50ms", sent: true, fails: 1,
		},
		"total in the body says nothing of the origin": {
			origin: func(t *testing.T) string { return hostile(t, stall(ok+"Content-Length: 10\r\n\r\nshort")) },
			pol:    RetryPolicy{Total: 200 * time.Millisecond},
			cause:  CauseTimeout, text: "were not done within 200ms", code: 200, sent: true,
		},
		"500":  {origin: func(t *testing.T) string { return good(t, status(500)) }, text: "no", code: 500, sent: true, fails: 1},
		"503":  {origin: func(t *testing.T) string { return good(t, status(503)) }, text: "no", code: 503, sent: true, fails: 1},
		"501":  {origin: func(t *testing.T) string { return good(t, status(501)) }, text: "no", code: 501, sent: true},
		"404":  {origin: func(t *testing.T) string { return good(t, status(404)) }, text: "no", code: 404, sent: true},
		"fine": {origin: func(t *testing.T) string { return good(t, hello) }, text: "hello", code: 200, sent: true},
	}
}

// TestConnectTimeout: a dial that hangs ends with the route's own connect timeout.
func TestConnectTimeout(t *testing.T) {
	p := newTestPool(t, PoolOptions{Origins: names(1), Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	_, _, a, err := do(p, request(t, "POST", strings.NewReader("x")), RetryPolicy{Connect: 30 * time.Millisecond})
	if e := wantError(t, err, CauseConnect, "no connection within 30ms"); e.Sent || a.Sent {
		t.Error("nothing was sent")
	}
}

// TestTLSOrigins: a handshake that hangs, a certificate that isn't trusted, and a listener without TLS are all connect.
func TestTLSOrigins(t *testing.T) {
	https := func(u string) string { return strings.Replace(u, "http:", "https:", 1) }
	for name, tt := range map[string]struct{ origin, text string }{
		"hangs":      {https(hostile(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })), "no TLS connection within"},
		"plain HTTP": {https(good(t, hello)), "TLS: "},
		"no trust":   {newTLSServer(t, hello).URL, "certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTestPool(t, PoolOptions{Origins: []string{tt.origin}})
			pol := RetryPolicy{Connect: long}
			if name == "hangs" {
				pol.Connect = 50 * time.Millisecond
			}
			_, _, _, err := do(p, request(t, "GET", nil), pol)
			if e := wantError(t, err, CauseConnect, tt.text); e.Sent {
				t.Error("nothing was sent")
			}
		})
	}
}

// TestClientCancels: whoever leaves, at whatever moment, nothing counts against the origin.
func TestClientCancels(t *testing.T) {
	t.Run("before the headers", func(t *testing.T) {
		arrived := make(chan struct{})
		p := newTestPool(t, PoolOptions{Origins: []string{hostile(t, func(c net.Conn) {
			close(arrived)
			_, _ = io.Copy(io.Discard, c)
		})}})
		ctx, cancel := context.WithCancelCause(context.Background())
		why := errors.New("the client left")
		go func() { <-arrived; cancel(why) }()
		_, _, a, err := do(p, request(t, "GET", nil).WithContext(ctx), policy())
		if e := wantError(t, err, CauseCanceled, why.Error()); !e.Canceled() || !errors.Is(err, why) || a.Tries != 1 {
			t.Errorf("%+v %+v", e, a)
		}
		wantNothingLearned(t, p)
	})
	t.Run("in the body", func(t *testing.T) {
		p := newTestPool(t, PoolOptions{Origins: []string{hostile(t, func(c net.Conn) {
			answer("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort")(c)
			_, _ = io.Copy(io.Discard, c)
		})}})
		ctx, cancel := context.WithCancel(context.Background())
		resp, _, err := p.RoundTrip(request(t, "GET", nil).WithContext(ctx), policy())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadFull(resp.Body, make([]byte, 5))
		cancel()
		_, err = resp.Body.Read(make([]byte, 5))
		wantError(t, err, CauseCanceled, "context canceled")
		_ = resp.Body.Close()
		wantNothingLearned(t, p)
	})
	t.Run("closing the body early", func(t *testing.T) {
		p := newTestPool(t, PoolOptions{Origins: []string{good(t, hello)}})
		resp, _, err := p.RoundTrip(request(t, "GET", nil), policy())
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		wantIdle(t, p)
		if n := p.members.Load().list[0].breaker.window.sum(time.Now()); n.good != 1 || n.bad != 0 {
			t.Errorf("the breaker counted %+v", n)
		}
	})
	t.Run("a deadline of its own", func(t *testing.T) {
		p := newTestPool(t, PoolOptions{Origins: []string{hostile(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })}})
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
		defer cancel()
		_, _, _, err := do(p, request(t, "GET", nil).WithContext(ctx), policy())
		wantError(t, err, CauseTimeout, "")
		wantNothingLearned(t, p)
	})
}

func wantNothingLearned(t *testing.T, p *Pool) {
	t.Helper()
	wantIdle(t, p)
	for _, o := range p.members.Load().list {
		if n := o.breaker.window.sum(time.Now()); n.bad+n.good != 0 || n.neither != 1 {
			t.Errorf("the breaker of %s counted %+v", o.name, n)
		}
	}
}

// TestOriginTakesNoBody: an origin that stops reading the request's body is left after the idle timeout.
func TestOriginTakesNoBody(t *testing.T) {
	release := make(chan struct{})
	p := newTestPool(t, PoolOptions{Origins: []string{hostile(t, func(net.Conn) { <-release })}})
	defer close(release)
	body := io.LimitReader(zeros{}, 1<<30)
	pol := policy()
	pol.Idle = 100 * time.Millisecond
	_, _, a, err := do(p, request(t, "PUT", body), pol)
	wantError(t, err, CauseTimeout, "took no more of the request's body within 100ms")
	if a.Tries != 1 {
		t.Errorf("%d attempts for a body that can't be sent again", a.Tries)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// FuzzOrigin feeds whatever bytes as an origin's response: nothing panics, the slot is always freed, the breaker is told
// exactly once, and a body that is complete is no longer than what came.
func FuzzOrigin(f *testing.F) {
	for _, s := range []string{
		"", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.0 200 OK\r\n\r\nhi", "HTTP/1.1 101 X\r\n\r\nraw",
		"HTTP/1.1 103 E\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\nhi\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 304 NM\r\nContent-Length: 7\r\n\r\n", "HTTP/1.1 999 ?\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, response []byte) {
		p := NewPool(PoolOptions{
			Origins: names(1), Breaker: configs.Breaker{MinRequests: 100},
			Dial: func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go func() {
					defer func() { _ = theirs.Close() }()
					if _, err := http.ReadRequest(bufio.NewReader(theirs)); err == nil {
						_, _ = theirs.Write(response)
					}
				}()
				return ours, nil
			},
		})
		defer p.Close()
		resp, _, err := p.RoundTrip(request(t, "GET", nil), RetryPolicy{FirstByte: long})
		if (resp == nil) == (err == nil) {
			t.Fatalf("response %v and error %v", resp, err)
		}
		if err == nil {
			if resp.StatusCode < 100 || resp.StatusCode > 999 {
				t.Errorf("status %d", resp.StatusCode)
			}
			body, err := io.ReadAll(resp.Body)
			if err == nil && len(body) > len(response) {
				t.Errorf("%d bytes of body from %d bytes", len(body), len(response))
			}
			_ = resp.Body.Close()
		}
		wantIdle(t, p)
		if n := p.members.Load().list[0].breaker.window.sum(time.Now()); n.good+n.bad+n.neither != 1 {
			t.Errorf("the breaker counted %+v", n)
		}
	})
}
