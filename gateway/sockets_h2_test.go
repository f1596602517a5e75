package gateway

//lint:file-ignore SA1019 net/http's Transport refuses the :protocol field of an extended CONNECT, so there is nothing to use instead

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// socketsPerConn is how many WebSockets share an HTTP/2 connection: fewer than the streams that it may have.
const socketsPerConn = 100

// WebSockets over HTTP/2 (RFC 8441) through a stop: their connections are told at once not to be used for more (GOAWAY), and
// then they fare as those over HTTP/1.1 do.
func TestSocketsOverHTTP2AreToldToGo(t *testing.T) {
	const grace = 3 * time.Second
	p, s := socketSite(t, grace)
	ctx, cancel := context.WithTimeout(t.Context(), 3*long)
	defer cancel()
	tr := &http2.Transport{}
	var conns []*http2.ClientConn
	var sockets []*aSocket
	for len(sockets) < *socketCount {
		if len(sockets)%socketsPerConn == 0 {
			c, err := (&tls.Dialer{Config: &tls.Config{RootCAs: s.trust, ServerName: "shop.test", NextProtos: []string{"h2"}}}).DialContext(ctx, "tcp", p.listen["https"])
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			cc, err := tr.NewClientConn(c)
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, cc)
		}
		body, feed := io.Pipe()
		r, err := http.NewRequestWithContext(ctx, "CONNECT", "https://shop.test/echo", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = http.Header{":protocol": {"websocket"}, "Sec-Websocket-Version": {"13"}}
		resp, err := conns[len(conns)-1].RoundTrip(r)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("socket %d: %v %v", len(sockets), resp, err)
		}
		defer func() { _ = resp.Body.Close() }()
		sockets = append(sockets, &aSocket{feed, bufio.NewReader(resp.Body)})
	}
	told := make(chan struct{})
	go func() {
		defer close(told)
		begun := time.Now()
		for i, cc := range conns {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for state := cc.State(); !state.Closing; state = cc.State() {
				if state.Closed || ctx.Err() != nil {
					t.Errorf("connection %d was closed without a GOAWAY, or never told", i)
					return
				}
				<-tick.C
			}
			if cc.State().StreamsActive == 0 {
				t.Errorf("connection %d was told to go %s into the stop, when its sockets were over", i, time.Since(begun))
			}
		}
	}()
	throughAStop(t, p, grace, sockets)
	cancel()
	<-told
}
