package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"landfall/configs"
)

// https3 opens an HTTPS listener and HTTP/3 beside it.
func (h *harness) https3(f http.HandlerFunc) string {
	h.t.Helper()
	cfg := &tls.Config{Certificates: []tls.Certificate{h.ca.issue(h.t, "localhost")}}
	a, err := h.s.AddHTTPS("127.0.0.1:0", cfg, f)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := h.s.AddHTTP3(a, cfg); err != nil {
		h.t.Fatal(err)
	}
	return a.String()
}

// h3 is a client with one HTTP/3 connection to a server.
func (h *harness) h3() *http3.Transport {
	tr := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: h.ca.pool, ServerName: "localhost"}}
	h.t.Cleanup(func() { _ = tr.Close() })
	return tr
}

// makeRequest makes one with a bound on its time.
func makeRequest(t testing.TB, method, url string, body io.Reader) *http.Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func do(t testing.TB, rt http.RoundTripper, req *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func TestH3Requests(t *testing.T) {
	rtts := make(chan netip.Addr, 4)
	h := start(t, func(o *Options) {
		o.OnRTT = func(client netip.Addr, rtt time.Duration) {
			if rtt > 0 {
				rtts <- client
			}
		}
	})
	addr := h.https3(func(w http.ResponseWriter, r *http.Request) {
		info, _ := Info(r.Context())
		if !info.TLS || info.Listener != ListenerHTTPS || info.RemoteAddr.Addr() != netip.MustParseAddr("127.0.0.1") || info.LocalAddr.Port() == 0 || r.TLS == nil {
			t.Errorf("info %+v, TLS %v", info, r.TLS)
		}
		switch r.URL.Path {
		case "/echo":
			w.Header().Set("Trailer", "X-Sum")
			_, _ = io.Copy(w, r.Body)
			w.Header().Set("X-Sum", r.Trailer.Get("X-Got"))
		case "/large":
			for range 64 {
				_, _ = w.Write(make([]byte, 128<<10))
			}
		default:
			if r.ContentLength != 0 {
				t.Errorf("a GET without a body has length %d", r.ContentLength)
			}
			ok(w, r)
		}
	})
	c, base := h.h3(), "https://"+addr
	req := makeRequest(t, "GET", base+"/a?b", nil)
	req.Host = "A.test"
	res, body := do(t, c, req)
	if res.StatusCode != 200 || res.ProtoMajor != 3 || body != "ok GET a.test /a?b" || res.Header.Get("Alt-Svc") != "" {
		t.Errorf("%s %d %q %v", res.Proto, res.StatusCode, body, res.Header)
	}
	if got := value(h.m.connections.WithLabelValues("https", "h3")); got != 1 {
		t.Errorf("connections by h3: %v", got)
	}
	req = makeRequest(t, "POST", base+"/echo", io.MultiReader(strings.NewReader(strings.Repeat("x", 300<<10)))) // hides its length
	req.Trailer = http.Header{"X-Got": {"all"}}
	if res, body = do(t, c, req); len(body) != 300<<10 || res.Trailer.Get("X-Sum") != "all" {
		t.Errorf("echo: %d bytes, trailer %v", len(body), res.Trailer)
	}
	if _, body = do(t, c, makeRequest(t, "GET", base+"/large", nil)); len(body) != 8<<20 {
		t.Errorf("large: %d bytes", len(body))
	}
	if _, body = do(t, c, makeRequest(t, "DELETE", base+"/echo", io.MultiReader(strings.NewReader("why")))); body != "why" {
		t.Errorf("a DELETE with a body: %q", body)
	}
	req = makeRequest(t, "POST", base+"/echo", strings.NewReader("later"))
	req.Header.Set("Expect", "100-continue")
	if _, body = do(t, c, req); body != "later" {
		t.Errorf("100-continue: %q", body)
	}
	_ = c.Close()
	if got := <-rtts; got != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("round trip of %v", got)
	}
	eventually(t, "the connection is gone", func() bool {
		return value(h.m.connections.WithLabelValues("https", "h3")) == 0 && value(h.m.inFlight) == 0 && h.s.clients.open() == 0
	})
}

func (t *clients) open() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.total
}

func TestH3Refusals(t *testing.T) {
	h := start(t, func(o *Options) { o.Limits.Body = 1000 })
	base, c := "https://"+h.https3(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}
	}), h.h3()
	hidden := func(n int) io.Reader { return io.MultiReader(strings.NewReader(strings.Repeat("x", n))) }
	for name, c3 := range map[string]struct {
		method string
		body   io.Reader
		adjust func(*http.Request)
		want   int
	}{
		"good":            {"GET", nil, func(*http.Request) {}, 200},
		"bad host":        {"GET", nil, func(r *http.Request) { r.Host = "a_b!.test" }, 400},
		"trace":           {"TRACE", nil, func(*http.Request) {}, 405},
		"large body":      {"POST", strings.NewReader(strings.Repeat("x", 1001)), func(*http.Request) {}, 413},
		"large, unknown":  {"POST", hidden(1001), func(*http.Request) {}, 413},
		"small, unknown":  {"POST", hidden(1000), func(*http.Request) {}, 200},
		"too many fields": {"GET", nil, func(r *http.Request) { r.Header["A"] = strings.Split(strings.Repeat("a,", 40), ",") }, 431},
		"large fields":    {"GET", nil, func(r *http.Request) { r.Header["A"] = []string{strings.Repeat("d", 9<<10)} }, 431},
	} {
		req := makeRequest(t, c3.method, base+"/", c3.body)
		c3.adjust(req)
		if res, _ := do(t, c, req); res.StatusCode != c3.want {
			t.Errorf("%s: %d, want %d", name, res.StatusCode, c3.want)
		}
	}
}

// TestH3AltSvc tells clients of HTTP/3 by the other protocols, unless the node leaves or the handler knows better.
func TestH3AltSvc(t *testing.T) {
	h := start(t, nil)
	addr := h.https3(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/other" {
			w.Header().Set("Alt-Svc", `h2="us.test:443"`)
		}
	})
	_, port, _ := net.SplitHostPort(addr)
	want := `h3=":` + port + `"; ma=86400`
	tell := func(url string) string {
		res, _ := get(t, h.h2(), url)
		return res.Header.Get("Alt-Svc")
	}
	if got := tell("https://" + addr + "/"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := tell("https://" + addr + "/other"); got != `h2="us.test:443"` {
		t.Errorf("a better region: %q", got)
	}
	if got := tell("https://" + h.https(ok) + "/"); got != "" {
		t.Errorf("a listener without HTTP/3: %q", got)
	}
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+addr+"/", nil)
	r.Header.Set("Alt-Used", "eu.test")
	res, err := h.h2().RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if got := res.Header.Get("Alt-Svc"); got != "" {
		t.Errorf("a client that another region sent here: %q", got)
	}
	h.s.SetLeaving(true)
	if got := tell("https://" + addr + "/"); got != "" {
		t.Errorf("a leaving node: %q", got)
	}
}

// TestH3Stop lets requests in flight finish, tells clients to go, and closes a connection whose client stays.
func TestH3Stop(t *testing.T) {
	h := start(t, nil)
	g := newGate()
	addr := h.https3(g.ServeHTTP)
	c := h.h3()
	body := make(chan string, 1)
	go func() {
		res, err := c.RoundTrip(makeRequest(t, "GET", "https://"+addr+"/hold", nil))
		if err != nil {
			body <- err.Error()
			return
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		body <- string(b) + errText(err)
	}()
	<-g.entered
	if held := h.s.InFlight(); len(held) != 1 || held[0].Proto != "HTTP/3.0" || held[0].Path != "/hold" {
		t.Errorf("in flight: %+v", held)
	}
	idle, err := quic.DialAddr(t.Context(), addr, &tls.Config{RootCAs: h.ca.pool, ServerName: "localhost", NextProtos: []string{"h3"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "two connections", func() bool { return value(h.m.connections.WithLabelValues("https", "h3")) == 2 })
	done := stopInBackground(h, 20*time.Second)
	<-idle.Context().Done() // a client that does nothing is closed while the other's request goes on
	var app *quic.ApplicationError
	if err := context.Cause(idle.Context()); !errors.As(err, &app) || app.ErrorCode != quic.ApplicationErrorCode(http3.ErrCodeNoError) {
		t.Errorf("the idle connection was closed by %v", err)
	}
	select {
	case r := <-done:
		t.Fatalf("stopped with a request in flight: %+v", r)
	default:
	}
	close(g.open)
	if got := <-body; got != "done" {
		t.Errorf("the request in flight got %q", got)
	}
	if r := <-done; r.Finished != 1 || len(r.Cut) != 0 {
		t.Errorf("%+v", r)
	}
}

func TestH3StopCuts(t *testing.T) {
	h := start(t, nil)
	g := newGate()
	addr, c := h.https3(g.ServeHTTP), h.h3()
	res, err := c.RoundTrip(makeRequest(t, "GET", "https://"+addr+"/hold", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if r := h.s.Stop(context.Background(), 10*time.Millisecond); len(r.Cut) != 1 {
		t.Errorf("%+v", r)
	}
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("a cut response looks whole")
	}
}

// TestH3Leaving tells a client to go behind its next response, and a client repeats what came too late elsewhere.
func TestH3Leaving(t *testing.T) {
	h := start(t, nil)
	addr := h.https3(ok)
	c := h.h3()
	do(t, c, makeRequest(t, "GET", "https://"+addr+"/", nil))
	h.s.SetLeaving(true)
	for range 3 { // the second finds the connection going, and takes a new one
		if res, _ := do(t, c, makeRequest(t, "GET", "https://"+addr+"/", nil)); res.StatusCode != 200 {
			t.Errorf("%d", res.StatusCode)
		}
	}
	eventually(t, "more than one connection was used", func() bool { return counter(h.m.accepted, "https") > 1 })
}

// TestH3Bounds holds connections to the limits, and closes idle ones and streams that stall.
func TestH3Bounds(t *testing.T) {
	h := start(t, func(o *Options) {
		o.Limits.ConnectionsPerClient = 1
		o.Limits.IdleTimeout = configs.Duration(300 * time.Millisecond)
	})
	errs := make(chan error, 1)
	addr := h.https3(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		errs <- err
	})
	c := h.h3()
	silent, w := io.Pipe()
	defer w.Close()
	go func() {
		if res, err := c.RoundTrip(makeRequest(t, "POST", "https://"+addr+"/", silent)); err == nil {
			res.Body.Close()
		}
	}()
	eventually(t, "a connection", func() bool { return value(h.m.connections.WithLabelValues("https", "h3")) == 1 })
	if res, err := h.h3().RoundTrip(makeRequest(t, "GET", "https://"+addr+"/", nil)); err == nil {
		res.Body.Close()
		t.Error("a second connection was let in")
	}
	if counter(h.m.refusedConns, "per_client") == 0 {
		t.Error("the refusal was not counted")
	}
	if err := <-errs; err == nil || counter(h.m.stalled, "read") != 1 {
		t.Errorf("read: %v, stalled %v", err, counter(h.m.stalled, "read"))
	}
	eventually(t, "the idle connection is closed", func() bool { return h.s.clients.open() == 0 })
}

// TestH3HandshakeFails counts what comes of clients that don't speak HTTP/3, and takes nothing without an https listener.
func TestH3HandshakeFails(t *testing.T) {
	h := start(t, nil)
	addr := h.https3(ok)
	_, err := quic.DialAddr(t.Context(), addr, &tls.Config{RootCAs: h.ca.pool, ServerName: "localhost", NextProtos: []string{"doq"}}, nil)
	if err == nil {
		t.Fatal("a client of another protocol was let in")
	}
	eventually(t, "it is counted", func() bool { return counter(h.m.handshakeFailures, "protocol") == 1 && h.s.clients.open() == 0 })
	if err := h.s.AddHTTP3(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, &tls.Config{}); err == nil {
		t.Error("HTTP/3 without an https listener")
	}
}

func BenchmarkH3(b *testing.B) {
	h := start(b, nil)
	addr, c := h.https3(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(bytes.Repeat([]byte("x"), 1024)) }), h.h3()
	b.ReportAllocs()
	for b.Loop() {
		do(b, c, makeRequest(b, "GET", "https://"+addr+"/", nil))
	}
}
