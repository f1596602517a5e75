package healthcheck

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"landfall/configs"
)

// hostile listens and lets serve do what it likes with each connection.
func hostile(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				serve(c)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return "http://" + l.Addr().String()
}

func readRequest(c net.Conn) { _, _ = http.ReadRequest(bufio.NewReader(c)) }

func TestProbeHostileOrigins(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	answer := func(s string) func(net.Conn) {
		return func(c net.Conn) { readRequest(c); _, _ = io.WriteString(c, s) }
	}
	tests := map[string]struct {
		origin string
		result string
		detail string
	}{
		"refuses":          {"http://" + closed.Addr().String(), resultConnect, "connection refused"},
		"closes at once":   {hostile(t, func(net.Conn) {}), resultReset, "GET /up failed"},
		"hangs":            {hostile(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), resultTimeout, "no answer within 200ms"},
		"speaks no HTTP":   {hostile(t, answer("220 mail ready\r\n")), resultReset, "malformed HTTP"},
		"huge header":      {hostile(t, answer("HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 1<<20)+"\r\n\r\n")), resultReset, "exceeded 65536 bytes"},
		"body never ends":  {hostile(t, answer("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"+strings.Repeat("x", 1<<20))), resultOK, "answered 200"},
		"redirects":        {hostile(t, answer("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")), resultStatus, "answered 302, expected 200-299"},
		"TLS on a plain":   {strings.Replace(hostile(t, answer("HTTP/1.1 200 OK\r\n\r\n")), "http:", "https:", 1), resultConnect, "tls: "},
		"no URL":           {"ftp://nowhere", resultConnect, "is not of the form"},
		"odd early status": {hostile(t, answer("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")), resultOK, "answered 200"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rt := newTransport()
			defer rt.CloseIdleConnections()
			c := normalCheck(configs.Check{Path: "/up", Timeout: configs.Duration(200 * time.Millisecond)})
			if tt.result != resultTimeout {
				c.Timeout = configs.Duration(20 * time.Second)
			}
			o := probe(context.Background(), rt, tt.origin, c, time.Now)
			if o.result != tt.result || !strings.Contains(o.detail, tt.detail) {
				t.Errorf("got %s (%s), want %s (%s)", o.result, o.detail, tt.result, tt.detail)
			}
		})
	}
}

// TestProbeHTTP2 checks what is sent, that a connection is used again, and that the server's going away costs no probe.
func TestProbeHTTP2(t *testing.T) {
	var mu sync.Mutex
	addrs := map[string]bool{}
	serve := func() *httptest.Server {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			addrs[r.RemoteAddr] = true
			mu.Unlock()
			if r.Proto != "HTTP/2.0" || r.Host != "check.example" || r.URL.Path != "/up" || r.UserAgent() != probeUserAgent {
				t.Errorf("got %s %s for host %s by %q", r.Proto, r.URL, r.Host, r.UserAgent())
			}
		}))
		s.EnableHTTP2 = true
		s.StartTLS()
		return s
	}
	s := serve()
	defer s.Close()
	rt := newTransport()
	defer rt.CloseIdleConnections()
	rt.TLSClientConfig = &tls.Config{RootCAs: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com"}
	c := normalCheck(configs.Check{Path: "/up", Host: "check.example", Timeout: configs.Duration(20 * time.Second)})
	for range 3 {
		if o := probe(t.Context(), rt, s.URL, c, time.Now); o.result != resultOK {
			t.Fatal(o.detail)
		}
	}
	if len(addrs) != 1 {
		t.Errorf("3 probes took %d connections", len(addrs))
	}
	s.CloseClientConnections()
	if o := probe(t.Context(), rt, s.URL, c, time.Now); o.result != resultOK {
		t.Errorf("after the server closed its connections: %s", o.detail)
	}
}

func TestSpan(t *testing.T) {
	if got := span(configs.StatusRange{From: 200, To: 200}); got != "200" {
		t.Error(got)
	}
}

func TestNormalCheck(t *testing.T) {
	got := normalCheck(configs.Check{})
	want := configs.Check{
		Path: "/", Expect: configs.StatusRange{From: 200, To: 299}, Interval: configs.Duration(2 * time.Second),
		Timeout: configs.Duration(time.Second), Rise: 2, Fall: 3,
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if check != normalCheck(check) {
		t.Error("a full check is changed")
	}
}

func BenchmarkMachine(b *testing.B) {
	b.ReportAllocs()
	m := newMachine(2, 3, time.Hour, epoch)
	for i := 0; b.Loop(); i++ {
		m.step(epoch.Add(time.Duration(i)), i%7 != 0)
	}
}

func BenchmarkReachable(b *testing.B) {
	b.ReportAllocs()
	obs := []Observation{{Observer: "a1", ObserverRegion: "a", Unreachable: []string{"x1"}}, {Observer: "b1", ObserverRegion: "b"}, {Observer: "c1", ObserverRegion: "c", Unreachable: []string{"y", "x1"}}}
	for b.Loop() {
		NewBallot(obs, "majority").Reachable("x1", "x")
	}
}
