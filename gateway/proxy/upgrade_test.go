package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"landfall/routing"
)

// echo is an origin that sends every WebSocket message back, until "end".
func echo(t testing.TB) string {
	return origin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/plain" {
			w.WriteHeader(http.StatusUpgradeRequired)
			_, _ = io.WriteString(w, "no sockets here")
			return
		}
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"chat"}, InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 20)
		for {
			kind, data, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if string(data) == "end" {
				_ = c.Close(4000, "as asked")
				return
			}
			if c.Write(r.Context(), kind, data) != nil {
				return
			}
		}
	})
}

// talk runs a WebSocket conversation through a node.
func talk(t *testing.T, g *rig, base string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, base+"/ws", &websocket.DialOptions{HTTPClient: g.http1(), Host: "shop.test", Subprotocols: []string{"chat"}})
	if err != nil {
		t.Fatalf("%s: %v (%+v)", base, err, resp)
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 20)
	if c.Subprotocol() != "chat" {
		t.Errorf("subprotocol %q", c.Subprotocol())
	}
	for _, message := range []string{"hello", "", strings.Repeat("long ", 50_000), "bye"} {
		if err := c.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(ctx); err != nil || string(got) != message {
			t.Fatalf("echo of %d bytes: %d bytes, %v", len(message), len(got), err)
		}
	}
	_ = c.Write(ctx, websocket.MessageText, []byte("end"))
	if _, _, err := c.Read(ctx); websocket.CloseStatus(err) != 4000 {
		t.Errorf("the close frame did not arrive: %v", err)
	}
}

// http1 is a client that speaks HTTP/1.1 over TLS too, as browsers do for WebSocket.
func (g *rig) http1() *http.Client {
	tr := &http.Transport{TLSClientConfig: trust(g.h2)}
	g.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// RFC 6455 over RFC 9110 section 7.8.
func TestWebSocket(t *testing.T) {
	g := newRig(t, one("", echo(t)), nil)
	talk(t, g, g.h1.URL)
	talk(t, g, g.h2.URL)
	eventually(t, "both are in the access log", func() bool { return strings.Count(g.access.String(), `"status":101`) == 2 })
}

func TestUpgradeRefusedByOrigin(t *testing.T) {
	g := newRig(t, one("", echo(t)), nil)
	r := g.request("GET", "/plain", nil, "Connection: Upgrade", "Upgrade: websocket")
	resp, err := g.http1().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, body := read(t, resp); resp.StatusCode != http.StatusUpgradeRequired || body != "no sockets here" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	_ = resp.Body.Close()
}

// An upgrade to HTTP/2 would let the client past every phase: the request is served without it.
func TestNoUpgradeToHTTP2(t *testing.T) {
	u, got := recorder(t)
	g := newRig(t, one("", u), nil)
	c, err := net.Dial("tcp", g.h1.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%+v %v", resp, err)
	}
	if h := receive(t, "the request", got).Header; h.Get("Upgrade") != "" || h.Get("Http2-Settings") != "" {
		t.Errorf("%v", h)
	}
}

// What a client sends right behind its upgrade request is not lost.
func TestUpgradeKeepsWhatWasReadAhead(t *testing.T) {
	u := origin(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = rw.Flush()
		line, _ := rw.ReadString('\n')
		_, _ = rw.WriteString("you said " + line)
		_ = rw.Flush()
	})
	g := newRig(t, one("", u), nil)
	c, err := net.Dial("tcp", g.h1.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello\n")
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Upgrade") != "echo" {
		t.Fatalf("%+v %v", resp, err)
	}
	if rest, _ := io.ReadAll(in); string(rest) != "you said hello\n" {
		t.Errorf("%q", rest)
	}
}

// A silent upgraded connection ends after the route's idle time.
func TestUpgradeIdle(t *testing.T) {
	g := newRig(t, one("    routes: [{match: {path: /*}, timeout: {idle: 1s}}]", echo(t)), nil)
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	c, _, err := websocket.Dial(ctx, g.h1.URL+"/ws", &websocket.DialOptions{HTTPClient: g.http1(), Host: "shop.test"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	begun := time.Now()
	if _, _, err := c.Read(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("still open after %s: %v", time.Since(begun), err)
	}
}

// When this region's pool is down the upgrade goes through the peer channel, which is HTTP/2 and knows no Upgrade.
func TestWebSocketThroughAnotherRegion(t *testing.T) {
	p := newPair(t, two(refusing(t), echo(t)))
	p.eu.proxy.o.Pools["web"].SetState(p.eu.proxy.o.Config.Services["web"].Pools["eu"].Origins[0], routing.Down)
	talk(t, p.eu, p.eu.h1.URL)
	talk(t, p.eu, p.eu.h2.URL)
	r := p.eu.request("GET", "/plain", nil, "Connection: Upgrade", "Upgrade: websocket")
	resp, err := p.eu.http1().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, body := read(t, resp); resp.StatusCode != http.StatusUpgradeRequired || body != "no sockets here" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	_ = resp.Body.Close()
}

// The client's end of a tunnelled connection ends it at the origin, and the other way round (in talk).
func TestTunnelEndsWithItsClient(t *testing.T) {
	ended := make(chan struct{})
	u := origin(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		_, _, _ = c.Read(context.Background())
		close(ended)
	})
	p := newPair(t, two(refusing(t), u))
	p.eu.proxy.o.Pools["web"].SetState(p.eu.proxy.o.Config.Services["web"].Pools["eu"].Origins[0], routing.Down)
	c, _, err := websocket.Dial(t.Context(), p.eu.h1.URL+"/ws", &websocket.DialOptions{HTTPClient: p.eu.http1(), Host: "shop.test"})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.CloseNow()
	receive(t, "the origin's end", ended)
}
