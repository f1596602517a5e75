package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Each event reaches the client before the origin sends the next.
func TestEventStreamIsFlushedAtOnce(t *testing.T) {
	next, ended := make(chan struct{}), make(chan struct{}, 2)
	u := origin(t, func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- struct{}{} }()
		w.Header().Set("Content-Type", "text/event-stream")
		for i := 0; ; i++ {
			_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
		}
	})
	g := newRig(t, one("", u), nil)
	for _, target := range []string{"/", "https:///"} {
		resp := g.send(g.request("GET", target, nil, "Accept-Encoding: gzip, br, zstd"))
		if resp.Header.Get("Content-Encoding") != "" {
			t.Errorf("an event stream is compressed: %v", resp.Header)
		}
		lines := bufio.NewReader(resp.Body)
		for i := range 5 {
			line, err := lines.ReadString('\n')
			if err != nil || line != fmt.Sprintf("data: %d\n", i) {
				t.Fatalf("%s: event %d: %q %v", target, i, line, err)
			}
			_, _ = lines.ReadString('\n')
			next <- struct{}{}
		}
		_ = resp.Body.Close()
		receive(t, "the end of the stream at its origin", ended) // or it would take what is meant for the next one
	}
}

// The headers of a silent stream come before its first event.
func TestStreamHeadersComeFirst(t *testing.T) {
	u := origin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	g := newRig(t, one("", u), nil)
	for _, target := range []string{"/", "https:///"} {
		_ = g.send(g.request("GET", target, nil)).Body.Close()
	}
}

// The origin reads the first part of an upload before the client sends the second, and may answer while it goes on.
func TestUploadStreams(t *testing.T) {
	seen := make(chan string)
	u := origin(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		buf := make([]byte, 64)
		for {
			n, err := r.Body.Read(buf)
			if n > 0 {
				seen <- string(buf[:n])
				_, _ = w.Write(buf[:n])
				w.(http.Flusher).Flush()
			}
			if err != nil {
				return
			}
		}
	})
	g := newRig(t, one("", u), nil)
	for _, target := range []string{"/", "https:///"} {
		body, client := io.Pipe()
		r := g.request("POST", target, body)
		answered := make(chan *http.Response, 1)
		go func() { answered <- g.send(r) }()
		for _, part := range []string{"first", "second"} {
			_, _ = io.WriteString(client, part)
			if got := receive(t, part, seen); got != part {
				t.Fatalf("%s: the origin read %q", target, got)
			}
		}
		_ = client.Close()
		if _, got := read(t, receive(t, "the response", answered)); got != "firstsecond" {
			t.Errorf("%s: %q", target, got)
		}
	}
}

// Trailers go both ways, as gRPC needs them (RFC 9110 section 6.5).
func TestTrailers(t *testing.T) {
	asked := make(chan http.Header, 1)
	u := origin(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		asked <- r.Trailer
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = io.WriteString(w, "message")
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", "unannounced")
	})
	g := newRig(t, one("", u), nil)
	for _, target := range []string{"/", "https:///"} {
		for _, method := range []string{"POST", "GET"} {
			var r *http.Request
			if method == "POST" {
				r = g.request(method, target, struct{ io.Reader }{strings.NewReader("question")}, "Te: trailers")
				r.Trailer = http.Header{"X-Checksum": {"abc"}}
			} else {
				r = g.request(method, target, nil, "Te: trailers")
			}
			resp, body := read(t, g.send(r))
			if body != "message" || resp.Trailer.Get("Grpc-Status") != "0" || resp.Trailer.Get("Grpc-Message") != "unannounced" {
				t.Errorf("%s %s: %q, trailers %v", method, target, body, resp.Trailer)
			}
			if got := receive(t, "the request's trailers", asked).Get("X-Checksum"); method == "POST" && got != "abc" {
				t.Errorf("%s: the request's trailer reached the origin as %q", target, got)
			}
		}
	}
}

// RFC 8297: early hints are passed on before the final response, and the fields of one head are not those of the next.
func TestEarlyHints(t *testing.T) {
	u := origin(t, func(w http.ResponseWriter, _ *http.Request) {
		for _, link := range []string{"</a.css>; rel=preload", "</b.css>; rel=preload"} {
			w.Header().Set("Link", link)
			w.Header().Set("Landfall-Status", "101")
			w.WriteHeader(http.StatusEarlyHints)
		}
		w.Header().Del("Link")
		w.Header().Del("Landfall-Status")
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = io.WriteString(w, "page")
	})
	g := newRig(t, one("", u), nil)
	for i, target := range []string{"/1", "https:///2"} {
		var mu sync.Mutex
		var hints []string
		r := g.request("GET", target, nil)
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			mu.Lock()
			defer mu.Unlock()
			hints = append(hints, fmt.Sprint(code, " ", h.Get("Link"), h.Get("Landfall-Status")))
			return nil
		}}))
		resp, body := read(t, g.send(r))
		mu.Lock()
		if want := []string{"103 </a.css>; rel=preload", "103 </b.css>; rel=preload"}; !slices.Equal(hints, want) {
			t.Errorf("%s: hints %q", target, hints)
		}
		mu.Unlock()
		if body != "page" || resp.Header.Get("Link") != "" || resp.Header.Get("X-Landfall-Region") == "" || resp.Header.Get("Cache-Control") == "" {
			t.Errorf("%d: %q %v", i, body, resp.Header)
		}
	}
}

// A refresh in the background has no client: its hints must not touch a response that is being written.
func TestEarlyHintsOfARefresh(t *testing.T) {
	u := origin(t, func(w http.ResponseWriter, _ *http.Request) {
		for range 20 {
			w.Header().Set("Link", "</a.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
		}
		w.Header().Set("Cache-Control", "max-age=0, stale-while-revalidate=60")
		w.Header().Set("Etag", `"x"`)
		_, _ = io.WriteString(w, "page")
	})
	g := newRig(t, one("", u), nil)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				resp, err := g.client().Do(g.request("GET", "/", nil))
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		})
	}
	wg.Wait()
}

// RFC 9110 section 10.1.1: the client sends its body once it is told to, by the node or by the origin's refusal.
func TestExpectContinue(t *testing.T) {
	u := origin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refuse" {
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		b, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%d bytes", len(b))
	})
	g := newRig(t, one("", u), nil)
	for path, want := range map[string]string{"/take": "HTTP/1.1 100 Continue|HTTP/1.1 200 OK", "/refuse": "HTTP/1.1 417 Expectation Failed"} {
		c, err := net.Dial("tcp", g.h1.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(c, "PUT %s HTTP/1.1\r\nHost: shop.test\r\nExpect: 100-continue\r\nContent-Length: 200000\r\n\r\n", path)
		in := bufio.NewReader(c)
		var heads []string
		for {
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			heads = append(heads, resp.Proto+" "+resp.Status)
			if resp.StatusCode != http.StatusContinue {
				break
			}
			_, _ = c.Write(make([]byte, 200000))
		}
		if got := strings.Join(heads, "|"); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
		_ = c.Close()
	}
}

func TestBodyTooLarge(t *testing.T) {
	u := origin(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	g := newRig(t, one("", u), nil)
	limited := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // as gateway/server does
		r.Body = http.MaxBytesReader(w, r.Body, 1000)
		g.ServeHTTP(w, r)
	}))
	defer limited.Close()
	for _, size := range []int{1001, 100_000, 10 << 20} {
		for name, body := range map[string]io.Reader{"known": strings.NewReader(strings.Repeat("x", size)), "chunked": io.LimitReader(zeros{}, int64(size))} {
			r := g.request("POST", "/", body)
			r.URL.Host = limited.Listener.Addr().String()
			resp, err := g.client().Do(r)
			if err != nil {
				continue // the server may close on a client that goes on sending
			}
			_, text := read(t, resp)
			if resp.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(text, "body_too_large") {
				t.Errorf("%s, %d bytes: %d %s", name, size, resp.StatusCode, text)
			}
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A client that leaves ends what the origin does for it alone.
func TestClientAbortCancelsOrigin(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan struct{})
	u := origin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			w.Header().Set("Cache-Control", "no-store")
			_, _ = io.WriteString(w, "begin")
			w.(http.Flusher).Flush()
		}
		begun <- struct{}{}
		<-r.Context().Done()
		ended <- struct{}{}
	})
	g := newRig(t, one("    routes: [{match: {path: /*}, cache: off}]", u), nil)
	for _, target := range []string{"/head", "/body", "https:///head", "https:///body"} {
		ctx, cancel := context.WithCancel(t.Context())
		r := g.request("GET", target, nil).WithContext(ctx)
		done := make(chan error, 1)
		go func() {
			resp, err := g.client().Do(r)
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
			done <- err
		}()
		receive(t, target+" begins", begun)
		cancel()
		receive(t, target+" ends at the origin", ended)
		if err := receive(t, target+" ends", done); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", target, err)
		}
	}
	eventually(t, "four requests in the access log", func() bool { return strings.Count(g.access.String(), "\n") == 4 })
	for line := range strings.SplitSeq(strings.TrimSpace(g.access.String()), "\n") {
		if !strings.Contains(line, "client_gone") && !strings.Contains(line, `"aborted":true`) {
			t.Errorf("neither gone nor aborted: %s", line)
		}
	}
}

// A response that breaks off does so at once, though its client has not ended its upload and sends no more of it.
func TestBrokenBodyDuringUpload(t *testing.T) {
	u := origin(t, func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		_, _ = io.ReadFull(rw, make([]byte, len("5\r\nfirst")))
		_, _ = rw.WriteString("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
		_ = rw.Flush()
		_ = conn.Close()
	})
	g := newRig(t, one("", u), nil)
	for _, target := range []string{"/", "https:///"} {
		body, client := io.Pipe()
		r := g.request("POST", target, body)
		done := make(chan error, 1)
		go func() {
			resp, err := g.client().Do(r)
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
			done <- err
		}()
		_, _ = io.WriteString(client, "first")
		if err := receive(t, target+": the end", done); err == nil {
			t.Errorf("%s: the client saw a whole body", target)
		}
		_ = client.Close()
	}
}
