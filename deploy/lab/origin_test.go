package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

func originServer(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(originHandler("eu-west", "eu-west-origin-1"))
	t.Cleanup(s.Close)
	return s
}

func TestOriginPages(t *testing.T) {
	s := originServer(t)
	for _, c := range []struct {
		method, path, body, header, value string
		status                            int
		has                               string
	}{
		{"GET", "/", "", "Cache-Control", "no-cache", 200, "Hello from eu-west"},
		{"GET", "/", "", "Etag", `"home-eu-west"`, 200, "eu-west-origin-1"},
		{"GET", "/assets/app.css", "", "Cache-Control", "public, max-age=300", 200, ".item-199"},
		{"GET", "/healthz", "", "", "", 200, "ok"},
		{"GET", "/slow?ms=1", "", "Cache-Control", "no-store", 200, "took 1 ms"},
		{"POST", "/api/items", "four", "Cache-Control", "no-store", 200, `"bytes":4`},
		{"POST", "/api/items", strings.Repeat("x", 1<<20+1), "", "", 413, "too large"},
		{"GET", "/nothing", "", "", "", 404, ""},
	} {
		req, _ := http.NewRequestWithContext(t.Context(), c.method, s.URL+c.path, strings.NewReader(c.body))
		resp, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != c.status || !strings.Contains(string(body), c.has) || c.header != "" && resp.Header.Get(c.header) != c.value {
			t.Errorf("%s %s: %d %v %.200s", c.method, c.path, resp.StatusCode, resp.Header, body)
		}
		if strings.HasPrefix(c.path, "/api/") && c.status == 200 && !json.Valid(body) {
			t.Errorf("%s is not JSON: %s", c.path, body)
		}
	}
}

func TestOriginAnswersConditionalRequests(t *testing.T) {
	s := originServer(t)
	req, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/", nil)
	req.Header.Set("If-None-Match", `"home-eu-west"`)
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusNotModified {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestOriginStreamsAndEchoes(t *testing.T) {
	s := originServer(t)
	req, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/stream", nil)
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || line != "id: 0\n" || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("the stream begins with %q (%v, %v)", line, err, resp.Header)
	}
	ws, _, err := websocket.Dial(t.Context(), s.URL+"/echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if err := ws.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, msg, err := ws.Read(t.Context()); err != nil || string(msg) != "hello" {
		t.Errorf("the echo is %q (%v)", msg, err)
	}
}

func TestOriginsServeUntilTold(t *testing.T) {
	var listeners []net.Listener
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serveOrigins(ctx, "eu-west", listeners) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for i, l := range listeners {
		resp, err := client.Get(fmt.Sprintf("http://%s/", l.Addr()))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if want := fmt.Sprintf("eu-west-origin-%d", i+1); !strings.Contains(string(body), want) {
			t.Errorf("no %s in %s", want, body)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := RunOrigins(t.Context(), "eu-west", []string{"127.0.0.1:0", taken.Addr().String()}); err == nil || !strings.Contains(err.Error(), "can't listen on "+taken.Addr().String()) {
		t.Errorf("a port in use: %v", err)
	}
}
