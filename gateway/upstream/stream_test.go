package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"landfall/configs"
)

func newTLSServer(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func trust(s *httptest.Server) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return &tls.Config{RootCAs: roots, ServerName: "example.com"}
}

// TestWhatTheOriginSees: the request goes as it is, but for the address; over HTTP/2 where the origin speaks it.
func TestWhatTheOriginSees(t *testing.T) {
	echo := func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %s %s %v %s", r.Method, r.Host, r.URL, r.Header["Accept-Encoding"], r.Proto)
	}
	secure := newTLSServer(t, echo)
	for origin, proto := range map[string]string{good(t, echo): "HTTP/1.1", secure.URL: "HTTP/2.0"} {
		p := newTestPool(t, PoolOptions{Origins: []string{origin}, TLS: trust(secure)})
		r := request(t, "GET", nil)
		r.RequestURI = "/path?q=1"
		text, _, _, err := do(p, r, policy())
		if want := "GET shop.example /path?q=1 [] " + proto; text != want {
			t.Errorf("got %q %v, want %q", text, err, want)
		}
		if r.URL.Host != "shop.example" || r.RequestURI == "" {
			t.Error("the caller's request was changed")
		}
	}
}

func TestTrailers(t *testing.T) {
	h := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Sum", "42")
	}
	secure := newTLSServer(t, h)
	for _, origin := range []string{good(t, h), secure.URL} {
		p := newTestPool(t, PoolOptions{Origins: []string{origin}, TLS: trust(secure)})
		resp, _, err := p.RoundTrip(request(t, "GET", nil), policy())
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); string(b) != "body" || err != nil || resp.Trailer.Get("X-Sum") != "42" {
			t.Errorf("got %q %v, trailer %v", b, err, resp.Trailer)
		}
		_ = resp.Body.Close()
		wantIdle(t, p)
	}
}

// TestInformational: 1xx responses reach the caller's own trace (RFC 9110 section 15.2).
func TestInformational(t *testing.T) {
	p := newTestPool(t, PoolOptions{Origins: []string{good(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
	})}})
	r := request(t, "GET", nil)
	var got []string
	wrote := false
	ctx := httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			got = append(got, fmt.Sprint(code, h.Get("Link")))
			return nil
		},
		WroteRequest: func(httptrace.WroteRequestInfo) { wrote = true },
	})
	if _, code, _, err := do(p, r.WithContext(ctx), policy()); code != 200 || fmt.Sprint(got) != "[103</style.css>]" || !wrote {
		t.Errorf("got %d %v, hints %v, the caller's other hook ran: %v", code, err, got, wrote)
	}
}

// TestExpectContinue: a body that waits for the origin's word isn't read when that word is no.
func TestExpectContinue(t *testing.T) {
	for _, willing := range []bool{true, false} {
		p := newTestPool(t, PoolOptions{Origins: []string{good(t, func(w http.ResponseWriter, r *http.Request) {
			if !willing {
				w.WriteHeader(http.StatusExpectationFailed)
				return
			}
			_, _ = io.Copy(w, r.Body)
		})}})
		body := &closeNoted{Reader: strings.NewReader("body")}
		r := request(t, "PUT", body)
		r.ContentLength = 4
		r.Header.Set("Expect", "100-continue")
		text, code, _, err := do(p, r, policy())
		if willing && (text != "body" || code != 200) || !willing && code != 417 || err != nil || !body.closed.Load() {
			t.Errorf("willing %v: got %d %q %v, closed %v", willing, code, text, err, body.closed.Load())
		}
	}
}

// TestWebSocket carries an upgraded connection through a pool behind a tiny proxy.
func TestWebSocket(t *testing.T) {
	h := func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, bytes.ToUpper(b)) != nil {
				return
			}
		}
	}
	secure := newTLSServer(t, h)
	for _, origin := range []string{good(t, h), secure.URL} {
		p := newTestPool(t, PoolOptions{Origins: []string{origin}, TLS: trust(secure)})
		pol := policy()
		pol.Total = time.Second // not for upgraded connections; a slow machine may need more to make one
		for {
			resp, _, err := p.RoundTrip(request(t, "GET", nil), pol) // a connection for the upgrade to be made on
			if err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				break
			}
			if pol.Total *= 2; pol.Total > long {
				t.Fatal(err)
			}
		}
		good0 := p.members.Load().list[0].breaker.window.sum(time.Now()).good
		front := good(t, func(w http.ResponseWriter, r *http.Request) { tunnel(t, p, w, r, pol) })
		ctx, cancel := context.WithTimeout(context.Background(), long)
		defer cancel()
		c, _, err := websocket.Dial(ctx, front, nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := c.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
				t.Fatal(err)
			}
			if _, b, err := c.Read(ctx); string(b) != "HELLO" {
				t.Fatalf("got %q %v", b, err)
			}
		}
		if s := p.Status().Origins[0]; s.InFlight != 1 || p.members.Load().list[0].breaker.window.sum(time.Now()).good != good0+1 {
			t.Errorf("while upgraded: %+v, want one in flight that counts as a success", s)
		}
		_ = c.Close(websocket.StatusNormalClosure, "")
		waitFor(t, func() bool { return p.Status().Origins[0].InFlight == 0 })
	}
}

// tunnel is what gateway/proxy does with an upgrade, in small.
func tunnel(t *testing.T, p *Pool, w http.ResponseWriter, r *http.Request, pol RetryPolicy) {
	resp, _, err := p.RoundTrip(r, pol)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("no upgrade: %v", err)
		return
	}
	back := resp.Body.(io.ReadWriteCloser)
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	resp.Body = nil
	_ = resp.Write(client)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(back, buffered)
		_ = back.(interface{ CloseWrite() error }).CloseWrite()
	}()
	_, _ = io.Copy(client, back)
	_ = back.Close()
	_ = client.Close()
	<-done
}

// waitFor polls a condition.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.After(long)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("waited too long")
		}
	}
}

const upgrade = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"

// TestUpgradedEnds: an upgraded connection ends when it is silent for the idle timeout, and when the client's request
// ends.
func TestUpgradedEnds(t *testing.T) {
	origin := hostile(t, func(c net.Conn) { answer(upgrade)(c); _, _ = io.Copy(io.Discard, c) })
	for _, by := range []string{"silence", "client"} {
		p := newTestPool(t, PoolOptions{Origins: []string{origin}})
		ctx, cancel := context.WithCancel(context.Background())
		r := request(t, "GET", nil).WithContext(ctx)
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "raw")
		pol := policy()
		if by == "silence" {
			pol.Idle = 50 * time.Millisecond
		}
		resp, _, err := p.RoundTrip(r, pol)
		if err != nil {
			t.Fatal(err)
		}
		if by == "client" {
			cancel()
		}
		if _, err := resp.Body.Read(make([]byte, 1)); err == nil {
			t.Errorf("ended by %s: Read succeeds", by)
		}
		_ = resp.Body.Close()
		waitFor(t, func() bool { return p.Status().Origins[0].InFlight == 0 })
		cancel()
	}
}

// TestHalfOpenWatchdog: a response that never ends must not keep a breaker half-open for ever, and one whose headers
// never come must not either.
func TestHalfOpenWatchdog(t *testing.T) {
	release := make(chan struct{})
	var mode = make(chan string, 10)
	p := newTestPool(t, PoolOptions{
		Origins: []string{good(t, func(w http.ResponseWriter, r *http.Request) {
			switch <-mode {
			case "fail":
				w.WriteHeader(503)
			case "hang":
				<-release
			case "stream":
				_ = http.NewResponseController(w).Flush()
				<-release
			}
		})},
		Breaker: configs.Breaker{MinRequests: 1, Probes: 1, Open: configs.Duration(10 * time.Millisecond)},
	})
	defer close(release)
	pol := policy()
	pol.Attempts = 1
	mode <- "fail"
	_, _, _, _ = do(p, request(t, "GET", nil), pol)
	waitFor(t, func() bool { return p.Status().Origins[0].Breaker == "half-open" })
	mode <- "hang"
	ctx, cancel := context.WithCancel(context.Background())
	hung := make(chan struct{})
	go func() {
		defer close(hung)
		_, _, _, _ = do(p, request(t, "GET", nil).WithContext(ctx), pol)
	}()
	waitFor(t, func() bool { return p.members.Load().list[0].inFlight.Load() == 1 })
	mode <- "stream"
	var body io.Closer
	waitFor(t, func() bool { // the one that hangs holds the only slot until the watchdog gives it back
		resp, _, err := p.RoundTrip(request(t, "GET", nil), pol)
		if err == nil {
			body = resp.Body
		}
		return err == nil
	})
	waitFor(t, func() bool { return p.Status().Origins[0].Breaker == "closed" })
	cancel()
	<-hung
	_ = body.Close()
	wantIdle(t, p)
}

// TestPanicInCaller: a panic out of a hook of the caller's leaves no slot behind.
func TestPanicInCaller(t *testing.T) {
	p := newTestPool(t, PoolOptions{Origins: []string{good(t, hello)}})
	r := request(t, "GET", nil)
	ctx := httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GetConn: func(string) { panic("caller") }})
	func() {
		defer func() { _ = recover() }()
		_, _, _ = p.RoundTrip(r.WithContext(ctx), policy())
	}()
	wantNothingLearned(t, p)
}
