package compress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/klauspost/compress/gzip"
)

// sample is n bytes of something like JSON.
func sample(n int) []byte {
	words := [...]string{"cart", "price", "region", "origin", "customer", "title", "image", "stock", "address", "invoice"}
	var b bytes.Buffer
	x := uint32(1)
	next := func(n uint32) uint32 {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		return x % n
	}
	for b.Len() < n {
		fmt.Fprintf(&b, `{"id":%d,"%s":"%s %s","amount":%d.%02d,"url":"https://shop.example.com/%s/%x"},`+"\n",
			next(100000), words[next(10)], words[next(10)], words[next(10)], next(500), next(100), words[next(10)], next(1<<30))
	}
	return b.Bytes()[:n]
}

func stream(body io.ReadCloser, fields ...string) *http.Response {
	resp := response("GET", 200, nil, append(fields, "Content-Type", "text/plain")...)
	resp.Body, resp.ContentLength = body, -1
	return resp
}

// A slow stream is not held back: what the origin has sent can be decoded before it sends more.
func TestStreamIsFlushed(t *testing.T) {
	for _, coding := range []string{"gzip", "br", "zstd"} {
		t.Run(coding, func(t *testing.T) { testStream(t, coding) })
	}
}

func testStream(t *testing.T, coding string) {
	lines := make(chan string, 1)
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Trailer", "X-Sum, Repr-Digest")
		for line := range lines {
			fmt.Fprintln(w, line)
			w.(http.Flusher).Flush()
		}
		w.Header().Set("X-Sum", "42")
		w.Header().Set("Repr-Digest", "of the plain bytes")
	}))
	defer origin.Close()
	req, err := http.NewRequest("GET", origin.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", coding)
	lines <- "first"
	resp, err := origin.Client().Transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	c, _ := newTest(t, 0)
	resp = c.Response(resp, coding)
	defer resp.Body.Close()
	plain := lineReader(t, coding, resp.Body)
	for _, next := range []string{"second", "third", ""} {
		if got := plain(); got == "\n" || got == "" {
			t.Fatalf("got %q", got)
		}
		if next != "" {
			lines <- next // only now: the line before came through without it
		}
	}
	close(lines)
	if got := plain(); got != "" {
		t.Errorf("after the end: %q", got)
	}
	if resp.Trailer.Get("X-Sum") != "42" || resp.Trailer.Get("Repr-Digest") != "" {
		t.Errorf("trailer: %v", resp.Trailer)
	}
}

func TestOriginErrorIsNoCleanEnd(t *testing.T) {
	for _, coding := range []string{"gzip", "br", "zstd"} {
		for _, known := range []bool{true, false} {
			c, m := newTest(t, 0)
			broken := errors.New("reset by the origin")
			resp := stream(io.NopCloser(io.MultiReader(bytes.NewReader(sample(200<<10)), &failing{broken})))
			if known {
				resp.ContentLength = 300 << 10
			}
			resp = c.Response(resp, coding)
			if _, err := io.Copy(io.Discard, resp.Body); !errors.Is(err, broken) {
				t.Errorf("%s: err %v", coding, err)
			}
			if _, err := resp.Body.Read(make([]byte, 1)); !errors.Is(err, broken) {
				t.Errorf("%s: the error is forgotten: %v", coding, err)
			}
			resp.Body.Close()
			if c.live.Load() != 0 || counter(t, m.saved, coding) != 0 {
				t.Errorf("%s: live %d, saved %v", coding, c.live.Load(), counter(t, m.saved, coding))
			}
		}
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

func TestCloseMidWayGivesTheEncoderBack(t *testing.T) {
	c, m := newTest(t, 1)
	for _, coding := range []string{"gzip", "br", "zstd"} {
		resp := c.Response(response("GET", 200, sample(1<<20), "Content-Type", "text/css"), coding)
		if _, err := io.ReadFull(resp.Body, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		other := c.Response(response("GET", 200, sample(4096), "Content-Type", "text/css"), coding)
		if other.Header.Get("Content-Encoding") != "" || other.Header.Get("Vary") != "Accept-Encoding" {
			t.Error("past the bound, but compressed or without Vary")
		}
		resp.Body.Close()
		resp.Body.Close()
		if _, err := resp.Body.Read(make([]byte, 1)); !errors.Is(err, errClosed) {
			t.Errorf("read after close: %v", err)
		}
		if c.live.Load() != 0 {
			t.Fatalf("%d encoders are taken", c.live.Load())
		}
		// The encoder that was given back half-way works.
		body := sample(64 << 10)
		resp = c.Response(response("GET", 200, body, "Content-Type", "text/css"), coding)
		if !bytes.Equal(decode(t, coding, resp.Body), body) {
			t.Error("the next body is broken")
		}
		resp.Body.Close()
	}
	if n := counter(t, m.refused, "encoders"); n != 3 {
		t.Errorf("refused: %v", n)
	}
}

// Close from another goroutine neither waits for a blocked Read nor lets two bodies share an encoder.
func TestCloseDuringRead(t *testing.T) {
	c, _ := newTest(t, 0)
	for _, coding := range []string{"gzip", "br", "zstd"} {
		r, w := io.Pipe()
		resp := c.Response(stream(r), coding)
		done := make(chan error)
		go func() {
			_, err := io.Copy(io.Discard, resp.Body)
			done <- err
		}()
		if _, err := w.Write(sample(1000)); err != nil {
			t.Fatal(err)
		}
		if c.live.Load() != 1 {
			t.Errorf("live: %d", c.live.Load())
		}
		resp.Body.Close()
		if err := <-done; err == nil {
			t.Error("a body closed half-way ended cleanly")
		}
		if c.live.Load() != 0 {
			t.Errorf("%s: live after close: %d", coding, c.live.Load())
		}
	}
}

func TestConcurrentBodies(t *testing.T) {
	c, _ := newTest(t, 4)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			coding := []string{"gzip", "br", "zstd"}[i%3]
			for n := range 8 {
				body := sample(1000 * (i + n + 1))
				resp := c.Response(response("GET", 200, body, "Content-Type", "text/css"), coding)
				if got := decode(t, resp.Header.Get("Content-Encoding"), resp.Body); !bytes.Equal(got, body) {
					t.Error("bodies are mixed up")
				}
				resp.Body.Close()
			}
		})
	}
	wg.Wait()
	if c.live.Load() != 0 {
		t.Errorf("live: %d", c.live.Load())
	}
}

func TestLengthThatLies(t *testing.T) {
	c, _ := newTest(t, 0)
	resp := stream(io.NopCloser(bytes.NewReader(sample(1000))))
	resp.ContentLength = 2000 // net/http's bodies turn this into an error themselves
	resp = c.Response(resp, "zstd")
	if _, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Error("a frame that promised 2000 bytes ended cleanly after 1000")
	}
	resp.Body.Close()
}

// lineReader returns a function that decodes until a line end or the end.
func lineReader(t *testing.T, coding string, r io.Reader) func() string {
	var plain io.Reader
	return func() string {
		if plain == nil {
			plain = decoder(t, coding, r)
		}
		var line []byte
		one := make([]byte, 1)
		for {
			n, err := plain.Read(one)
			line = append(line, one[:n]...)
			if err == io.EOF || n == 1 && one[0] == '\n' {
				return string(line)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestGzipReaderAcceptsAnEmptyStream(t *testing.T) {
	c, _ := newTest(t, 0)
	resp := c.Response(stream(io.NopCloser(bytes.NewReader(nil))), "gzip")
	z, err := gzip.NewReader(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, z); n != 0 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	resp.Body.Close()
}
