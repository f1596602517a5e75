package server

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// gate is a handler that holds requests for /hold until it is opened.
type gate struct {
	entered chan struct{}
	open    chan struct{}
}

func newGate() *gate { return &gate{entered: make(chan struct{}, 16), open: make(chan struct{})} }

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/hold" {
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		g.entered <- struct{}{}
		select {
		case <-g.open:
		case <-r.Context().Done():
			return
		}
	}
	_, _ = io.WriteString(w, "done")
}

// stopInBackground begins a stop and returns once it closed the listeners.
func stopInBackground(h *harness, grace time.Duration) <-chan StopReport {
	h.t.Helper()
	done := make(chan StopReport, 1)
	go func() { done <- h.s.Stop(context.Background(), grace) }()
	eventually(h.t, "the server stops", h.s.stopping.Load)
	return done
}

// TestStopFinishes lets requests in flight over each protocol finish, and tells idle clients to go.
func TestStopFinishes(t *testing.T) {
	h := start(t, nil)
	g := newGate()
	plain, secure := h.http(g.ServeHTTP), h.https(g.ServeHTTP)

	idleH1 := dial(t, plain)
	idleBr := bufio.NewReader(idleH1)
	send(t, idleH1, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	readResponse(t, idleBr)
	idleH2 := h.dialWire(secure)

	h1 := dial(t, plain)
	send(t, h1, "GET /hold HTTP/1.1\r\nHost: a.test\r\n\r\n")
	cc := h.h2()
	h2body := make(chan string, 1)
	go func() {
		req, _ := http.NewRequest("GET", "https://"+secure+"/hold", nil)
		res, err := cc.RoundTrip(req)
		if err != nil {
			h2body <- err.Error()
			return
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		h2body <- string(b) + errText(err)
	}()
	<-g.entered
	<-g.entered

	done := stopInBackground(h, 20*time.Second)
	first := idleH2.await(func(f http2.Frame) bool { return f.Header().Type == http2.FrameGoAway })
	if f, ok := first.(*http2.GoAwayFrame); !ok || f.LastStreamID != 1<<31-1 || f.ErrCode != http2.ErrCodeNo {
		t.Fatalf("first GOAWAY: %v", first)
	}
	// A request that was on its way is still answered.
	idleH2.request(1, true, ":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a.test")
	if got := idleH2.status(1); got != "200" {
		t.Errorf("a request behind the first GOAWAY got %q", got)
	}
	last := idleH2.await(func(f http2.Frame) bool { return f.Header().Type == http2.FrameGoAway })
	if f, ok := last.(*http2.GoAwayFrame); !ok || f.LastStreamID != 1 {
		t.Fatalf("last GOAWAY: %v", last)
	}
	if _, err := idleBr.ReadByte(); err != io.EOF {
		t.Errorf("the idle HTTP/1.1 connection: %v, want its end", err)
	}
	close(g.open)
	if res, body := readResponse(t, bufio.NewReader(h1)); body != "done" || res.StatusCode != 200 {
		t.Errorf("HTTP/1.1: %d %q", res.StatusCode, body)
	}
	if got := <-h2body; got != "done" {
		t.Errorf("HTTP/2: %q", got)
	}
	if r := <-done; r.Finished != 3 || len(r.Cut) != 0 {
		t.Errorf("report %+v, want 3 finished, none cut", r)
	}
	if n := value(h.m.inFlight) + value(h.m.connections.WithLabelValues("http", "h1")) + value(h.m.connections.WithLabelValues("https", "h2")); n != 0 {
		t.Errorf("gauges stand at %v", n)
	}
	if _, err := net.Dial("tcp", plain); err == nil {
		t.Error("the listener is still open")
	}
}

func errText(err error) string {
	if err != nil {
		return " " + err.Error()
	}
	return ""
}

// TestStopAnswersRacing answers a request that reaches an idle HTTP/1.1 connection after the stop began.
func TestStopAnswersRacing(t *testing.T) {
	h := start(t, nil)
	g := newGate()
	nc := dial(t, h.http(g.ServeHTTP))
	br := bufio.NewReader(nc)
	send(t, nc, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	readResponse(t, br)
	done := stopInBackground(h, 10*time.Second)
	send(t, nc, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	if res, body := readResponse(t, br); body != "done" || !res.Close {
		t.Errorf("got %q, close %v; want an answer with Connection: close", body, res.Close)
	}
	<-done
}

// TestStopCuts names and cuts what is in flight when the grace is over.
func TestStopCuts(t *testing.T) {
	h := start(t, nil)
	g := newGate()
	addr := h.http(g.ServeHTTP)
	nc := dial(t, addr)
	send(t, nc, "GET /hold?secret=1 HTTP/1.1\r\nHost: a.test\r\n\r\n")
	<-g.entered
	held := h.s.InFlight()
	if len(held) != 1 || held[0].Remote != nc.LocalAddr().String() {
		t.Fatalf("in flight: %+v", held)
	}
	h.s.logHeld(1)
	wantContains(t, h.logs.String(), "waiting for requests", "path=/hold proto=HTTP/1.1 age=")
	r := h.s.Stop(context.Background(), 50*time.Millisecond)
	if len(r.Cut) != 1 || r.Finished != 0 {
		t.Fatalf("report %+v, want one cut", r)
	}
	if c := r.Cut[0]; c.Method != "GET" || c.Host != "a.test" || c.Path != "/hold" || c.Proto != "HTTP/1.1" || c.Age <= 0 {
		t.Errorf("cut %+v", c)
	}
	if value(h.m.cut) != 1 {
		t.Error("the cut was not counted")
	}
	wantContains(t, h.logs.String(), "a request was cut", "path=/hold ", "host=a.test")
	if strings.Contains(h.logs.String(), "secret") {
		t.Error("the log holds the query")
	}
}

// TestStopUpgraded counts an upgraded connection as in flight until it is closed, here by the cut.
func TestStopUpgraded(t *testing.T) {
	h := start(t, nil)
	ended := make(chan error, 1)
	addr := h.http(func(w http.ResponseWriter, r *http.Request) {
		nc, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		go func() {
			defer nc.Close()
			_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			_ = rw.Flush()
			_, err := io.Copy(nc, rw)
			ended <- err
		}()
	})
	nc := dial(t, addr)
	// What follows the head belongs to the new protocol, though it looks like a bad request.
	send(t, nc, "GET /up HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n\nnot HTTP\n\n")
	br := bufio.NewReader(nc)
	if res, err := http.ReadResponse(br, nil); err != nil || res.StatusCode != 101 {
		t.Fatal(res, err)
	}
	buf := make([]byte, 11)
	if _, err := io.ReadFull(br, buf); err != nil || string(buf) != "\nnot HTTP\n\n" {
		t.Fatalf("echo: %q, %v", buf, err)
	}
	send(t, nc, "more")
	if _, err := io.ReadFull(br, buf[:4]); err != nil || string(buf[:4]) != "more" {
		t.Fatalf("echo: %q, %v", buf[:4], err)
	}
	if held := h.s.InFlight(); len(held) != 1 || held[0].Proto != "upgraded" || held[0].Path != "/up" {
		t.Fatalf("in flight: %+v", held)
	}
	r := h.s.Stop(context.Background(), 50*time.Millisecond)
	if len(r.Cut) != 1 || r.Cut[0].Path != "/up" {
		t.Errorf("report %+v, want the upgraded connection cut", r)
	}
	<-ended
	if value(h.m.inFlight) != 0 {
		t.Error("still counted as in flight")
	}
}

// TestLeaving moves clients off while it goes on serving them, and takes it back.
func TestLeaving(t *testing.T) {
	h := start(t, nil)
	g := newGate()
	plain, secure := h.http(g.ServeHTTP), h.https(g.ServeHTTP)
	idle := h.dialWire(secure)
	busy := h.dialWire(secure)
	h.s.SetLeaving(true)

	res, _ := get(t, &http.Transport{}, "http://"+plain+"/")
	if !res.Close {
		t.Error("HTTP/1.1: no Connection: close")
	}
	goAway := func(f http2.Frame) bool { return f.Header().Type == http2.FrameGoAway }
	busy.request(1, true, ":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a.test")
	if busy.await(goAway) == nil {
		t.Error("HTTP/2: no GOAWAY behind a response")
	}
	if idle.await(goAway) == nil {
		t.Error("HTTP/2: no GOAWAY on an idle connection")
	}
	fresh := h.h2() // still accepted
	if _, body := get(t, fresh, "https://"+secure+"/"); body != "done" {
		t.Errorf("a new connection got %q", body)
	}
	h.s.SetLeaving(false)
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	if res, _ := get(t, tr, "http://"+plain+"/"); res.Close {
		t.Error("Connection: close though the node stays")
	}
}

// TestRunEnds covers the ways that Run returns.
func TestRunEnds(t *testing.T) {
	t.Run("context", func(t *testing.T) {
		s := New(Options{})
		if _, err := s.AddHTTP("127.0.0.1:0", http.HandlerFunc(ok)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Run("listener lost", func(t *testing.T) {
		s := New(Options{})
		if _, err := s.AddHTTP("127.0.0.1:0", http.HandlerFunc(ok)); err != nil {
			t.Fatal(err)
		}
		_ = s.listeners[0].SetDeadline(time.Unix(1, 0)) // any error that nobody asked for
		if err := s.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "the listener is lost") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("never ran", func(t *testing.T) {
		s := New(Options{})
		a, err := s.AddHTTP("127.0.0.1:0", http.HandlerFunc(ok))
		if err != nil {
			t.Fatal(err)
		}
		s.Stop(context.Background(), time.Second)
		if _, err := net.Dial("tcp", a.String()); err == nil {
			t.Error("the listener leaked")
		}
		if _, err := s.AddHTTP("127.0.0.1:0", http.HandlerFunc(ok)); err == nil {
			t.Error("a stopped server took a listener")
		}
		if err := s.Run(context.Background()); err != nil {
			t.Errorf("Run behind Stop: %v", err)
		}
	})
}

func TestPortInUse(t *testing.T) {
	h := start(t, nil)
	addr := h.http(ok)
	_, err := h.s.AddHTTP(addr, http.HandlerFunc(ok))
	if err == nil || !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("got %v", err)
	}
	wantContains(t, err.Error(), addr, "in use", "change listen.http")
}
