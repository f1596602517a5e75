package proxy

//lint:file-ignore SA1019 net/http's Transport refuses the :protocol field of an extended CONNECT, so there is nothing to use instead

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"

	_ "landfall/gateway/server/xconnect" // as gateway/server has it
)

// socketOverH2 opens a WebSocket by extended CONNECT (RFC 8441), as browsers do.
func socketOverH2(t *testing.T, g *rig, path string) (*http.Response, io.WriteCloser) {
	t.Helper()
	tr := &http2.Transport{TLSClientConfig: trust(g.h2), DialTLSContext: func(ctx context.Context, network, _ string, c *tls.Config) (net.Conn, error) {
		return (&tls.Dialer{Config: c}).DialContext(ctx, network, g.h2.Listener.Addr().String())
	}}
	t.Cleanup(tr.CloseIdleConnections)
	body, feed := io.Pipe()
	ctx, cancel := context.WithTimeout(context.Background(), long)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "CONNECT", "https://shop.test"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{":protocol": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Protocol": {"chat"}}
	resp, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = feed.Close(); _ = resp.Body.Close() })
	return resp, feed
}

// A WebSocket over HTTP/2 from the client is one over HTTP/1.1 to the origin, here or in another region; its end is the
// stream's.
func TestWebSocketOverHTTP2(t *testing.T) {
	p := newPair(t, two(refusing(t), echo(t)))
	for name, g := range map[string]*rig{"here": p.us, "in another region": p.eu} {
		if name != "here" {
			g.down()
		}
		resp, feed := socketOverH2(t, g, "/ws")
		if resp.StatusCode != 200 || resp.Header.Get("Sec-WebSocket-Protocol") != "chat" || resp.Header.Get("Sec-WebSocket-Accept") != "" {
			t.Fatalf("%s: %d %v", name, resp.StatusCode, resp.Header)
		}
		for _, text := range []string{"hello", "again"} {
			message := append([]byte{0x81, byte(len(text)) | 0x80, 0, 0, 0, 0}, text...) // masked with nothing
			if _, err := feed.Write(message); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 2+len(text))
			if _, err := io.ReadFull(resp.Body, got); err != nil || string(got[2:]) != text || got[0] != 0x81 {
				t.Fatalf("%s: %q %v", name, got, err)
			}
		}
		_, _ = feed.Write([]byte{0x81, 0x83, 0, 0, 0, 0, 'e', 'n', 'd'})
		last := make([]byte, 4)
		if _, err := io.ReadFull(resp.Body, last); err != nil || last[0] != 0x88 || binary.BigEndian.Uint16(last[2:]) != 4000 {
			t.Errorf("%s: the end: %x %v", name, last, err)
		}
		_, _ = feed.Write([]byte{0x88, 0x82, 0, 0, 0, 0, last[2], last[3]})
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Errorf("%s: the stream's end: %v", name, err)
		}
		if resp, _ := socketOverH2(t, g, "/plain"); resp.StatusCode != http.StatusUpgradeRequired {
			t.Errorf("%s: a refusal of the origin: %d", name, resp.StatusCode)
		}
	}
}

// An origin that answers 101 without the proof that it read the handshake does not get the connection.
func TestWebSocketWithoutAccept(t *testing.T) {
	u := origin(t, func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	})
	g := newRig(t, one("", u), nil)
	if resp, _ := socketOverH2(t, g, "/ws"); resp.StatusCode != http.StatusBadGateway {
		t.Errorf("%d", resp.StatusCode)
	}
}

// A node that is about to cut what is left tells WebSockets to go first, by a Close frame between two others.
func TestWebSocketIsToldToGo(t *testing.T) {
	var mu sync.Mutex
	var say []func()
	g := newRig(t, one("", echo(t)), nil)
	g.beforeCut = func(f func()) func() {
		mu.Lock()
		defer mu.Unlock()
		say = append(say, f)
		return func() {}
	}
	c, _, err := websocket.Dial(t.Context(), g.h1.URL+"/ws", &websocket.DialOptions{HTTPClient: g.http1(), Host: "shop.test"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	resp, _ := socketOverH2(t, g, "/ws")
	eventually(t, "two that wait for the word", func() bool { mu.Lock(); defer mu.Unlock(); return len(say) == 2 })
	for _, f := range say {
		f()
	}
	_, _, err = c.Read(t.Context())
	var closed websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != websocket.StatusGoingAway {
		t.Errorf("over HTTP/1.1: %v", err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != string(goingAway()) {
		t.Errorf("over HTTP/2: %x %v", got, err)
	}
}
