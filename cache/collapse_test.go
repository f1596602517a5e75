package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// gateway is a cache on a socket, before an origin on another.
type gateway struct {
	*httptest.Server
	cache  *Cache
	policy Policy
	out    chan Outcome
}

func newGateway(t testing.TB, origin http.HandlerFunc, o Options) *gateway {
	back := httptest.NewServer(origin)
	transport := &http.Transport{DisableCompression: true}
	g := &gateway{cache: New(o), out: make(chan Outcome, 1000)}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := g.cache.Serve(w, r, view(r), g.policy, func(ctx context.Context, r *http.Request) (*http.Response, error) {
			r = r.Clone(ctx)
			r.URL.Scheme, r.URL.Host, r.RequestURI = "http", back.Listener.Addr().String(), ""
			return transport.RoundTrip(r)
		})
		g.out <- out
		switch {
		case out.Err != nil:
			w.WriteHeader(http.StatusBadGateway)
		case out.Aborted:
			panic(http.ErrAbortHandler)
		}
	}))
	g.Config.ErrorLog = nil
	t.Cleanup(func() {
		g.Client().CloseIdleConnections()
		g.Close()
		g.cache.Close()
		transport.CloseIdleConnections()
		back.Close()
	})
	return g
}

func (g *gateway) get(ctx context.Context, path string, lines ...string) (body []byte, status string, err error) {
	r, err := http.NewRequestWithContext(ctx, "GET", g.URL+path, nil)
	if err != nil {
		return nil, "", err
	}
	for name, values := range header(lines...) {
		r.Header[name] = values
	}
	res, err := g.Client().Do(r)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	body, err = io.ReadAll(res.Body)
	return body, res.Header.Get("Cache-Status"), err
}

// A hundred clients, one fetch; all of them are answered while the body still grows.
func TestCollapse(t *testing.T) {
	const clients = 100
	part := bytes.Repeat([]byte("x"), 100_000)
	var fetches atomic.Int32
	waiting, let := make(chan struct{}), make(chan struct{})
	reg := prometheus.NewRegistry()
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		fetches.Add(1)
		<-waiting
		w.Header().Set("Cache-Control", "max-age=60")
		w.Write(part)
		w.(http.Flusher).Flush()
		<-let
		w.Write(part)
	}, Options{MaxBytes: 16 << 20, Metrics: NewMetrics(reg)})
	var started, ended sync.WaitGroup
	for range clients {
		started.Add(1)
		ended.Go(func() {
			res, err := g.Client().Get(g.URL + "/")
			if err != nil {
				t.Error(err)
				started.Done()
				return
			}
			defer res.Body.Close()
			first := make([]byte, len(part))
			if _, err := io.ReadFull(res.Body, first); err != nil {
				t.Error(err)
			}
			started.Done()
			if rest, err := io.ReadAll(res.Body); err != nil || len(rest) != len(part) {
				t.Errorf("%d bytes, %v", len(rest), err)
			}
		})
	}
	users := func() (n int) {
		for _, f := range g.cache.store.allFills() {
			f.mu.Lock()
			n += f.users
			f.mu.Unlock()
		}
		return n
	}
	(&bench{t: t}).until(func() bool { return users() == clients }, "all wait")
	close(waiting)
	started.Wait() // every client has the first part, none the second
	close(let)
	ended.Wait()
	if n := fetches.Load(); n != 1 {
		t.Errorf("%d fetches", n)
	}
	if s := g.cache.Stats(); s.Misses != 1 || s.Collapsed != clients-1 || s.Objects != 1 {
		t.Errorf("stats %+v", s)
	}
	if l, f := metric(t, reg, "landfall_cache_collapsed_total", "leader"), metric(t, reg, "landfall_cache_collapsed_total", "follower"); l != 1 || f != clients-1 {
		t.Errorf("%v leaders, %v followers", l, f)
	}
}

// What can't be shared is asked for in parallel, at once, and the next time without waiting at all.
func TestUncacheableInParallel(t *testing.T) {
	const clients = 20
	var inside atomic.Int32
	first, all := make(chan struct{}), make(chan struct{})
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		n := inside.Add(1)
		if n == 1 {
			<-first
		} else {
			if n == clients {
				close(all)
			}
			<-all // passes only if all of them are here at a time
		}
		w.Header().Set("Cache-Control", "private")
		fmt.Fprint(w, n)
	}, Options{MaxBytes: 1 << 20})
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			if _, status, err := g.get(t.Context(), "/"); err != nil || status != "landfall; fwd=uri-miss" {
				t.Error(status, err)
			}
		})
	}
	(&bench{t: t}).until(func() bool {
		fills := g.cache.store.allFills()
		if len(fills) != 1 {
			return false
		}
		fills[0].mu.Lock()
		defer fills[0].mu.Unlock()
		return fills[0].users == clients
	}, "all wait")
	close(first)
	wg.Wait()
	if !g.cache.marks.has(KeyOf(Request{Service: "shop", Scheme: "http", Host: g.Listener.Addr().String()}), time.Now()) {
		t.Error("not marked")
	}
}

// The fetch goes on when the client that caused it leaves, for those who joined and for the store.
func TestLeaderLeaves(t *testing.T) {
	asked, let := make(chan struct{}), make(chan struct{})
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-let
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, "body")
	}, Options{MaxBytes: 1 << 20})
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() { _, _, err := g.get(ctx, "/"); left <- err }()
	<-asked
	leave()
	if err := <-left; err == nil {
		t.Fatal("the leader got an answer")
	}
	if out := <-g.out; !errors.Is(out.Err, context.Canceled) {
		t.Fatalf("outcome %+v", out)
	}
	got := make(chan string)
	go func() {
		body, status, err := g.get(t.Context(), "/")
		got <- fmt.Sprint(string(body), status, err)
	}()
	(&bench{t: t}).until(func() bool {
		f := g.cache.store.allFills()[0]
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.users == 1
	}, "the follower joins")
	close(let)
	if s := <-got; s != "bodylandfall; fwd=uri-miss; collapsed<nil>" {
		t.Error(s)
	}
	if body, status, err := g.get(t.Context(), "/"); string(body) != "body" || !strings.HasPrefix(status, "landfall; hit; ttl=") {
		t.Error(string(body), status, err)
	}
}

// stalling is an origin whose body comes from a pipe, on a bench.
func (b *bench) stalling(lines ...string) *io.PipeWriter {
	pr, pw := io.Pipe()
	b.respond(func(r *http.Request) (*http.Response, error) {
		res := b.response(200, "", lines...)
		res.Header.Del("Content-Length")
		res.ContentLength, res.Body = -1, pr
		stop := context.AfterFunc(r.Context(), func() { pr.CloseWithError(r.Context().Err()) })
		b.t.Cleanup(func() { stop() })
		return res, nil
	})
	return pw
}

// A fetch that nobody reads ends at the fill timeout; one that is read doesn't.
func TestFillTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(o *Options) { o.FillTimeout = time.Minute; o.Now = time.Now })
		body := b.stalling("Cache-Control: max-age=600", "Date: "+time.Now().UTC().Format(http.TimeFormat))
		ctx, leave := context.WithCancel(t.Context())
		r := httptest.NewRequestWithContext(ctx, "GET", "http://a.test/", nil)
		left := make(chan reply)
		go func() { left <- b.serve(r, b.fetch) }()
		body.Write([]byte("begin"))
		<-time.After(2 * time.Minute) // of the bubble's clock
		if n := len(b.cache.store.allFills()); n != 1 {
			t.Fatalf("%d fills while it is read", n)
		}
		leave()
		if got := <-left; !got.Aborted || got.Bytes != 5 {
			t.Errorf("outcome %+v", got.Outcome)
		}
		synctest.Wait()
		if n := len(b.cache.store.allFills()); n != 0 {
			t.Errorf("%d fills after the last reader left", n)
		}
		if _, err := body.Write([]byte("end")); err == nil {
			t.Error("the body is still read")
		}
	})
}

// A follower doesn't wait for ever.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(o *Options) { o.Now = time.Now })
		let := make(chan struct{})
		var n atomic.Int32
		b.respond(func(*http.Request) (*http.Response, error) {
			if n.Add(1) == 1 {
				<-let
			}
			return b.response(200, "body", "Cache-Control: max-age=60"), nil
		})
		first := make(chan reply)
		go func() { first <- b.get("http://a.test/") }()
		synctest.Wait()
		start := time.Now()
		if got := b.get("http://a.test/"); got.body != "body" || got.Result != Miss {
			t.Errorf("follower: %+v", got.Outcome)
		}
		if waited := time.Since(start); waited != patience {
			t.Errorf("waited %v", waited)
		}
		close(let)
		<-first
	})
}

// When the leader's fetch fails, one of the followers tries once more for all.
func TestFailureIsTriedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(o *Options) { o.Now = time.Now })
		let := make(chan struct{})
		b.respond(func(*http.Request) (*http.Response, error) { <-let; return nil, errors.New("down") })
		replies := make(chan reply)
		for range 10 {
			go func() { replies <- b.get("http://a.test/") }()
		}
		synctest.Wait()
		let <- struct{}{}
		synctest.Wait()
		let <- struct{}{}
		for range 10 {
			if got := <-replies; got.Err == nil || got.Result != Failed || got.Outcome.Status != 0 {
				t.Errorf("outcome %+v", got.Outcome)
			}
		}
		if n := b.fetches(); n != 2 {
			t.Errorf("%d fetches", n)
		}
	})
}

// A fetch that panics fails; it doesn't end the process.
func TestFetchPanics(t *testing.T) {
	b := newBench(t)
	b.respond(func(*http.Request) (*http.Response, error) { panic("oh") })
	if got := b.get("http://a.test/"); got.Err == nil {
		t.Errorf("outcome %+v", got.Outcome)
	}
}

// NoCollapse: each miss is a fetch of its own, and stored.
func TestNoCollapse(t *testing.T) {
	b := newBench(t)
	b.policy.NoCollapse = true
	both := make(chan struct{}, 2)
	meet := make(chan struct{})
	b.respond(func(*http.Request) (*http.Response, error) {
		both <- struct{}{}
		<-meet
		return b.response(200, "body", "Cache-Control: max-age=60"), nil
	})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { b.get("http://a.test/") })
	}
	<-both
	<-both
	close(meet)
	wg.Wait()
	if got := b.get("http://a.test/"); got.Result != Hit {
		t.Errorf("then %+v", got.Outcome)
	}
}
