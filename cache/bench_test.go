package cache

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// sink is a client that costs nothing.
type sink struct {
	header http.Header
	bytes  int64
}

func (s *sink) Header() http.Header { return s.header }
func (s *sink) WriteHeader(int)     {}
func (s *sink) Write(b []byte) (int, error) {
	s.bytes += int64(len(b))
	return len(b), nil
}

func benchHit(b *testing.B, size int) {
	t := newBench(b, func(o *Options) { o.Now = time.Now })
	t.answers(200, strings.Repeat("x", size), "Cache-Control: max-age=100000", "Vary: Accept-Encoding", "Content-Type: text/plain",
		`Etag: "v1"`, "X-Frame-Options: DENY", "Date: "+time.Now().UTC().Format(http.TimeFormat))
	t.get("http://a.test/path?query")
	r := httptest.NewRequest("GET", "http://a.test/path?query", nil)
	v := view(r)
	w := &sink{header: make(http.Header)}
	b.ReportAllocs()
	b.SetBytes(int64(size))
	for b.Loop() {
		if out := t.cache.Serve(w, r, v, Policy{}, t.fetch); out.Result != Hit {
			b.Fatal(out)
		}
	}
}

func BenchmarkHit1KiB(b *testing.B) { benchHit(b, 1<<10) }
func BenchmarkHit1MiB(b *testing.B) { benchHit(b, 1<<20) }

// TestHitAllocations: what a hit allocates, in number and in bytes, doesn't grow with the object.
func TestHitAllocations(t *testing.T) {
	for _, size := range []int{1 << 10, 1 << 20, 3 << 20} {
		b := newBench(t)
		b.answers(200, strings.Repeat("x", size), cacheable, "Vary: Accept-Encoding")
		b.get("http://a.test/")
		r := httptest.NewRequest("GET", "http://a.test/", nil)
		w, v := &sink{header: make(http.Header)}, view(r)
		hit := func() { b.cache.Serve(w, r, v, Policy{}, b.fetch) }
		if n := testing.AllocsPerRun(100, hit); n > 4 {
			t.Errorf("%v allocations for %d bytes", n, size)
		}
		least := uint64(1 << 40) // of some tries, as other goroutines allocate, too
		for range 5 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range 100 {
				hit()
			}
			runtime.ReadMemStats(&after)
			least = min(least, (after.TotalAlloc-before.TotalAlloc)/100)
		}
		if least > 512 {
			t.Errorf("%d bytes for %d", least, size)
		}
	}
}

// TestHitTakesNoLock: hits are answered while every lock of the store is held, each by somebody who never lets go.
func TestHitTakesNoLock(t *testing.T) {
	b := newBench(t)
	b.answers(200, "body", cacheable, "Vary: Accept-Encoding, X-A", "Surrogate-Key: a b", `Etag: "1"`)
	for i := range 100 {
		b.get(fmt.Sprint("http://a.test/", i))
	}
	b.cache.Purge(Purge{Service: "shop", Key: "other"})
	b.settled()
	c := b.cache
	c.life.Lock()
	defer c.life.Unlock()
	c.store.budget.mu.Lock()
	defer c.store.budget.mu.Unlock()
	for i := range c.store.shards {
		c.store.shards[i].mu.Lock()
		defer c.store.shards[i].mu.Unlock()
	}
	for i := range c.generations.parts {
		c.generations.parts[i].mu.Lock()
		defer c.generations.parts[i].mu.Unlock()
	}
	done := make(chan int, 1)
	go func() {
		hits := 0
		for i := range 100 {
			for _, lines := range [][]string{nil, {"Range: bytes=1-2"}, {`If-None-Match: "1"`}} {
				if b.get(fmt.Sprint("http://a.test/", i), lines...).Result == Hit {
					hits++
				}
			}
		}
		done <- hits
	}()
	select {
	case hits := <-done:
		if hits != 300 {
			t.Errorf("%d of 300 were hits", hits)
		}
	case <-time.After(30 * time.Second):
		t.Error("a hit waits for a lock")
	}
}

func BenchmarkHitParallel(b *testing.B) {
	t := newBench(b, func(o *Options) { o.Now = time.Now })
	t.answers(200, strings.Repeat("x", 1024), "Cache-Control: max-age=100000", "Date: "+time.Now().UTC().Format(http.TimeFormat))
	const urls = 1024
	requests := make([]*http.Request, urls)
	for i := range requests {
		requests[i] = httptest.NewRequest("GET", fmt.Sprintf("http://a.test/%d", i), nil)
		t.serve(requests[i], t.fetch)
	}
	var worker atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		w := &sink{header: make(http.Header)}
		for i := int(worker.Add(1)) * 100; pb.Next(); i++ {
			r := requests[i%urls]
			if out := t.cache.Serve(w, r, view(r), Policy{}, t.fetch); out.Result != Hit {
				b.Error(out)
			}
		}
	})
}

func BenchmarkMissAndStore(b *testing.B) {
	t := newBench(b, func(o *Options) { o.MaxBytes = 1 << 20 })
	body := strings.Repeat("x", 1024)
	t.respond(func(*http.Request) (*http.Response, error) { return t.response(200, body, cacheable), nil })
	w := &sink{header: make(http.Header)}
	r := httptest.NewRequest("GET", "http://a.test/", nil)
	v := view(r)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n++
		v.RawQuery = fmt.Sprint(n)
		t.seen = nil
		if out := t.cache.Serve(w, r, v, Policy{}, t.fetch); !out.Stored {
			b.Fatal(out)
		}
	}
}

// BenchmarkPurge marks the 64 variants of a URL stale, among ten thousand other objects.
func BenchmarkPurge(b *testing.B) {
	t := newBench(b)
	t.answers(200, "body", cacheable, "Vary: X-A")
	for i := range 10_000 {
		t.get(fmt.Sprintf("http://a.test/%d", i))
	}
	for i := range maxVariants {
		t.get("http://a.test/", fmt.Sprintf("X-A: %d", i))
	}
	u := urlKey{"shop", "a.test", "/", ""}
	hash := u.hash(t.cache.store.seed)
	objects := slices.Collect(t.cache.store.shardOf(hash).index.all(hash))
	b.ReportAllocs()
	for b.Loop() {
		if t.purge("/", true) != maxVariants {
			b.Fatal("not all marked")
		}
		for _, o := range objects {
			o.softAt.Store(0)
		}
	}
}

// BenchmarkNotStored is the way of an answer that may not be stored, once that is known of its URL.
func BenchmarkNotStored(b *testing.B) {
	t := newBench(b)
	t.respond(func(*http.Request) (*http.Response, error) {
		return t.response(200, "body", "Cache-Control: private"), nil
	})
	w := &sink{header: make(http.Header)}
	r := httptest.NewRequest("GET", "http://a.test/", nil)
	v := view(r)
	b.ReportAllocs()
	for b.Loop() {
		t.seen = nil
		if out := t.cache.Serve(w, r, v, Policy{}, t.fetch); out.Result != Miss || out.Stored {
			b.Fatal(out)
		}
	}
}
