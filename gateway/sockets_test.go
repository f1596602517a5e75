package gateway

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// aSocket is a WebSocket as a client sees it, frame by frame.
type aSocket struct {
	io.WriteCloser
	in *bufio.Reader
}

func dialSocket(addr string) (*aSocket, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &aSocket{c, bufio.NewReader(c)}
	_ = c.SetDeadline(time.Now().Add(3 * long))
	_, err = io.WriteString(c, "GET /echo HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	if err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(s.in, nil)
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		err = errors.New(resp.Status)
	}
	return s, err
}

// send sends a short frame, masked with nothing.
func (s *aSocket) send(code byte, text string) error {
	_, err := s.Write(append([]byte{0x80 | code, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...))
	return err
}

// next reads a short frame.
func (s *aSocket) next() (code byte, text string, err error) {
	var head [2]byte
	if _, err := io.ReadFull(s.in, head[:]); err != nil {
		return 0, "", err
	}
	body := make([]byte, head[1]&0x7f)
	_, err = io.ReadFull(s.in, body)
	return head[0] & 0xf, string(body), err
}

// socketCount is fewer than the thousand that are promised where many tests share a machine:
// go test ./gateway -run SocketsAreTold -sockets 1000
var socketCount = flag.Int("sockets", 150, "WebSockets to take through a stop")

// socketSite runs a node before an origin that echoes WebSockets, which gives them so much grace when it stops.
func socketSite(t *testing.T, grace time.Duration) (*process, *site) {
	t.Helper()
	u := origin(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, data, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, data) != nil {
				return
			}
		}
	})
	s := newSite(t)
	return start(t, Options{ConfigFile: write(t, s.file("fleet.yaml"), fmt.Sprintf(`
listen: {http: ["127.0.0.1:0"], https: ["127.0.0.1:0"], http_redirect: false}
tls: {certificates: [{cert: web.pem, key: web.key}]}
limits: {connections_per_client: 2000}
shutdown: {dns_wait: 0s, grace: %s}
services: {web: {hosts: [shop.test], pools: {any: {origins: ["%s"]}}, pool: {breaker: {requests: 2000, connections: 2000}}}}
`, grace, u))}), s
}

// WebSockets through a stop: each works until the grace is over, is told to go by a Close frame (1001), and ends
// in order. None is cut before.
func TestSocketsAreToldToGo(t *testing.T) {
	const grace = 3 * time.Second
	p, _ := socketSite(t, grace)
	sockets := make([]*aSocket, *socketCount)
	for i := range sockets {
		var err error
		if sockets[i], err = dialSocket(p.listen["http"]); err != nil {
			t.Fatalf("socket %d: %v", i, err)
		}
		defer func() { _ = sockets[i].Close() }()
	}
	throughAStop(t, p, grace, sockets)
}

// throughAStop stops a node and holds each socket to the promise.
func throughAStop(t *testing.T, p *process, grace time.Duration, sockets []*aSocket) {
	t.Helper()
	begun := time.Now()
	p.leave()
	var running sync.WaitGroup
	for i, s := range sockets {
		running.Go(func() {
			if told, err := s.untilTold(fmt.Sprint("message ", i)); err != nil {
				t.Errorf("socket %d after %s: %v", i, time.Since(begun), err)
			} else if early := grace - told.Sub(begun); early > 0 {
				t.Errorf("socket %d was told %s before the grace was over", i, early)
			}
		})
	}
	running.Wait()
	if err := p.wait(); err != nil {
		t.Error(err)
	}
}

// untilTold sends and hears echoes until the socket is told to go, and ends it as a client does.
func (s *aSocket) untilTold(text string) (told time.Time, err error) {
	pause := time.NewTicker(300 * time.Millisecond)
	defer pause.Stop()
	for n := 0; ; n++ {
		if err := s.send(1, text); err != nil {
			return told, fmt.Errorf("after %d echoes: %w", n, err)
		}
		code, got, err := s.next()
		switch {
		case err != nil:
			return told, fmt.Errorf("after %d echoes: %w", n, err)
		case code == 8 && got == "\x03\xe9":
			told = time.Now()
			_ = s.send(8, got)
			if _, _, err := s.next(); err == nil {
				return told, errors.New("something came after the Close frame")
			}
			return told, nil
		case code != 1 || got != text:
			return told, fmt.Errorf("after %d echoes: %d %q", n, code, got)
		}
		<-pause.C
	}
}
