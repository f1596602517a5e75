package server

//lint:file-ignore SA1019 net/http's Transport refuses the :protocol field of an extended CONNECT, so there is nothing to use instead

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"landfall/configs"
)

// WebSockets over HTTP/2 are offered (RFC 8441 section 3) and let in, without the bounds of a body; nothing else is spoken
// over an extended CONNECT, and a plain one is refused as ever.
func TestExtendedConnect(t *testing.T) {
	h := start(t, func(o *Options) {
		o.Limits.Body, o.Limits.IdleTimeout = 16, configs.Duration(50*time.Millisecond)
	})
	addr := h.https(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Seen", r.Method+" "+r.Header[protocolField][0]+" "+r.URL.Path)
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			if err != nil {
				return
			}
			_, _ = w.Write(buf[:n])
			w.(http.Flusher).Flush()
		}
	})
	tr := &http2.Transport{TLSClientConfig: &tls.Config{RootCAs: h.ca.pool, ServerName: "localhost"}}
	defer tr.CloseIdleConnections()
	open := func(protocol string) (*http.Response, io.WriteCloser) {
		t.Helper()
		body, feed := io.Pipe()
		r, err := http.NewRequestWithContext(t.Context(), "CONNECT", "https://"+addr+"/chat", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(protocolField, protocol)
		r.Header[protocolField] = []string{protocol}
		resp, err := tr.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = feed.Close(); _ = resp.Body.Close() })
		return resp, feed
	}
	resp, feed := open("websocket")
	if resp.StatusCode != 200 || resp.Header.Get("Seen") != "CONNECT websocket /chat" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	silence := time.NewTimer(300 * time.Millisecond) // longer than a client may be silent in a body
	<-silence.C
	text := strings.Repeat("more than a body may have ", 10)
	go func() { _, _ = io.WriteString(feed, text) }()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != text {
		t.Errorf("%q %v", got, err)
	}
	if resp, _ := open("connect-udp"); resp.StatusCode != http.StatusNotImplemented {
		t.Errorf("another protocol: %d", resp.StatusCode)
	}
	w := h.dialWire(addr)
	w.request(1, true, ":method", "CONNECT", ":authority", "localhost:443")
	if got := w.status(1); got != "405" {
		t.Errorf("a plain CONNECT: %s", got)
	}
}
