package cache

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// failing is a body that ends with an error.
type failing struct {
	io.Reader
	err error
}

func (f failing) Read(b []byte) (int, error) {
	n, err := f.Reader.Read(b)
	if err == io.EOF {
		err = f.err
	}
	return n, err
}

func (failing) Close() error { return nil }

// A body that isn't what was announced is never stored, and its readers are told.
func TestBrokenBodies(t *testing.T) {
	broken := errors.New("connection reset")
	for _, c := range []struct {
		name   string
		length int64
		body   string
		err    error
		lines  []string
	}{
		{"shorter than its length", 10, "short", io.EOF, []string{cacheable}},
		{"longer than its length", 3, "long", io.EOF, []string{cacheable}},
		{"fails midway", 10, "short", broken, []string{cacheable}},
		{"fails at the very end", 5, "whole", broken, []string{cacheable}},
		{"fails with unknown length", -1, "some", broken, []string{cacheable}},
		{"fails at once", 10, "", broken, []string{cacheable}},
		{"not cacheable: shorter", 10, "short", io.EOF, []string{"Cache-Control: no-store"}},
		{"not cacheable: fails", -1, "some", broken, []string{"Cache-Control: no-store"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.respond(func(*http.Request) (*http.Response, error) {
				res := b.response(200, "", c.lines...)
				res.Header.Del("Content-Length")
				res.ContentLength, res.Body = c.length, failing{strings.NewReader(c.body), c.err}
				return res, nil
			})
			for range 2 {
				got := b.get("http://a.test/")
				if !got.Aborted || got.Err != nil || got.Result != Miss || got.Stored {
					t.Errorf("%+v", got.Outcome)
				}
				b.settled()
			}
			if s := b.cache.Stats(); s.Objects != 0 || s.Bytes != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// The same over sockets, for one who joined as well: the connection breaks instead of ending the body.
func TestTruncationBreaksTheConnection(t *testing.T) {
	sent, let := make(chan struct{}), make(chan struct{})
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, "begin")
		w.(http.Flusher).Flush()
		close(sent)
		<-let
		panic(http.ErrAbortHandler)
	}, Options{MaxBytes: 1 << 20})
	errs := make(chan error)
	read := func() { _, _, err := g.get(t.Context(), "/"); errs <- err }
	go read()
	<-sent
	go read()
	(&bench{t: t}).until(func() bool {
		f := g.cache.store.allFills()[0]
		f.stream.mu.Lock()
		defer f.stream.mu.Unlock()
		return len(f.stream.readers) == 2
	}, "both read")
	close(let)
	for range 2 {
		if err := <-errs; err == nil {
			t.Error("a truncated body looked whole")
		}
	}
}

// Trailers reach the client, announced or not, and keep a response out of the store.
func TestTrailers(t *testing.T) {
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		if r.URL.Path == "/announced" {
			w.Header().Set("Trailer", "X-Sum")
			io.WriteString(w, "body")
			w.Header().Set("X-Sum", "1")
			return
		}
		io.WriteString(w, "body")
		w.(http.Flusher).Flush()
		w.Header().Set(http.TrailerPrefix+"X-Sum", "1")
	}, Options{MaxBytes: 1 << 20})
	for _, path := range []string{"/announced", "/unannounced"} {
		for range 2 {
			res, err := g.Client().Get(g.URL + path)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if string(body) != "body" || err != nil || res.Trailer.Get("X-Sum") != "1" {
				t.Errorf("%s: %q %v %v", path, body, err, res.Trailer)
			}
			if out := <-g.out; out.Stored || out.Result != Miss {
				t.Errorf("%s: %+v", path, out)
			}
		}
	}
}

// Streams reach the client as they come: events, and bodies of unknown length whether stored or not.
func TestStreaming(t *testing.T) {
	for _, lines := range [][]string{
		{"Content-Type: text/event-stream", cacheable}, {"Cache-Control: no-store"}, {cacheable},
	} {
		step := make(chan struct{})
		g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
			for name, values := range header(lines...) {
				w.Header()[name] = values
			}
			w.(http.Flusher).Flush()
			for range 3 {
				<-step
				io.WriteString(w, "data: x\n")
				w.(http.Flusher).Flush()
			}
		}, Options{MaxBytes: 1 << 20})
		res, err := g.Client().Get(g.URL)
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(res.Body)
		for range 3 {
			step <- struct{}{}
			if line, err := in.ReadString('\n'); line != "data: x\n" || err != nil {
				t.Errorf("%v: %q %v", lines, line, err)
			}
		}
		if _, err := in.ReadByte(); err != io.EOF {
			t.Errorf("%v: %v", lines, err)
		}
		res.Body.Close()
	}
}

// The client of an uncacheable stream leaves: so does the cache.
func TestLeavingAStream(t *testing.T) {
	left := make(chan struct{})
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(left)
	}, Options{MaxBytes: 1 << 20})
	ctx, leave := context.WithCancel(t.Context())
	r, _ := http.NewRequestWithContext(ctx, "GET", g.URL, nil)
	res, err := g.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	leave()
	<-left
	res.Body.Close()
	if out := <-g.out; !out.Aborted {
		t.Errorf("%+v", out)
	}
}

// pacedWriter is a client that takes a body write by write.
type pacedWriter struct {
	httptest.ResponseRecorder
	take chan struct{}
	gone <-chan struct{}
}

func (w *pacedWriter) Write(b []byte) (int, error) {
	select {
	case <-w.take:
		return w.ResponseRecorder.Write(b)
	case <-w.gone:
		return 0, io.ErrClosedPipe
	}
}

// TestOverflow: a body of unknown length that is too large to store goes at its readers' pace, in bounded memory; one
// that stops reading is cut off when another waits, and the other gets all.
func TestOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(o *Options) { o.MaxBytes, o.MaxObject, o.Now = 8<<20, 1<<20, time.Now })
		body := b.stalling("Cache-Control: max-age=600", "Date: "+time.Now().UTC().Format(http.TimeFormat))
		fast := make(chan reply)
		go func() { fast <- b.get("http://a.test/") }()
		synctest.Wait()
		body.Write([]byte("x"))
		ctx, leave := context.WithCancel(t.Context())
		slow := &pacedWriter{ResponseRecorder: *httptest.NewRecorder(), take: make(chan struct{}), gone: ctx.Done()}
		cut := make(chan Outcome)
		go func() {
			r := httptest.NewRequestWithContext(ctx, "GET", "http://a.test/", nil)
			cut <- b.cache.Serve(slow, r, view(r), Policy{}, b.fetch)
		}()
		synctest.Wait()
		const size = 4 << 20
		go func() {
			for range size / 1024 {
				body.Write(bytes.Repeat([]byte("x"), 1024))
			}
			body.Close()
		}()
		synctest.Wait()
		f := b.cache.store.allFills()[0]
		f.stream.mu.Lock()
		published, overflow := f.stream.end, f.stream.overflow
		f.stream.mu.Unlock()
		if !overflow || published > 1<<20+window+windowChunk {
			t.Errorf("%d bytes published, overflow %v", published, overflow)
		}
		if got := <-fast; got.Aborted || len(got.body) != size+1 || got.Stored {
			t.Errorf("fast: %d bytes, %+v", len(got.body), got.Outcome)
		}
		leave()
		if out := <-cut; !out.Aborted {
			t.Errorf("slow: %+v", out)
		}
		b.settled()
		if s := b.cache.Stats(); s.Objects != 0 || s.Bytes != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// Close ends fetches that nobody reads; the cache passes requests from then on.
func TestClose(t *testing.T) {
	b := newBench(t)
	b.confirming(`"1"`, "Cache-Control: max-age=1, stale-while-revalidate=600")
	b.get("http://a.test/")
	b.clock.add(2 * time.Second)
	asked := make(chan struct{})
	refresh := func(ctx context.Context, _ *http.Request) (*http.Response, error) {
		close(asked)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if got := b.serve(httptest.NewRequest("GET", "http://a.test/", nil), refresh); got.Result != Stale {
		t.Errorf("%+v", got.Outcome)
	}
	<-asked
	b.cache.Close()
	if s := b.cache.Stats(); s.Objects != 0 || s.Bytes != 0 {
		t.Errorf("%+v", s)
	}
	if got := b.get("http://a.test/"); got.body != `body of "1"` || got.Result != Pass {
		t.Errorf("%q %+v", got.body, got.Outcome)
	}
}

// A request with a body passes, whatever the answer says (what isn't in the key can't be stored).
func TestGetWithBody(t *testing.T) {
	b := newBench(t)
	b.answers(200, "body", cacheable)
	for range 2 {
		if got := b.do("GET", "http://a.test/", "sent"); got.status != "landfall; fwd=bypass" || got.Result != Pass {
			t.Errorf("%q %s", got.status, got.Result)
		}
	}
	if got := b.get("http://a.test/"); got.Result != Miss {
		t.Errorf("%s", got.Result)
	}
	if got := b.do("GET", "http://a.test/", "sent"); got.Result != Pass {
		t.Errorf("%s", got.Result)
	}
}

// What a client sends besides its key doesn't reach the origin by a fetch that is stored.
func TestFetchIsClean(t *testing.T) {
	b := newBench(t)
	b.answers(200, "body", cacheable)
	b.get("http://A.test:80/?", "Cache-Control: no-cache", "Pragma: no-cache", "If-Range: x", "If-Match: x", "Cookie: kept")
	r := b.last()
	for _, name := range []string{"Cache-Control", "Pragma", "If-Range", "If-Match"} {
		if r.Header[name] != nil {
			t.Errorf("%s: %q", name, r.Header[name])
		}
	}
	if r.Host != "a.test" || r.URL.ForceQuery || r.Header.Get("Cookie") != "kept" {
		t.Errorf("Host %q, %v, Cookie %q", r.Host, r.URL, r.Header.Get("Cookie"))
	}
}

// A HEAD on a miss passes, and does not wait for or end up as a GET.
func TestHeadOnMiss(t *testing.T) {
	b := newBench(t)
	b.answers(200, "", cacheable)
	if got := b.do("HEAD", "http://a.test/", ""); got.Result != Pass || b.last().Method != "HEAD" {
		t.Errorf("%+v", got.Outcome)
	}
	b.answers(200, "body", cacheable)
	if got := b.get("http://a.test/"); got.body != "body" || got.Result != Miss {
		t.Errorf("%q %s", got.body, got.Result)
	}
}
