package cache

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// held counts what is really in the shards.
func held(c *Cache) (objects, bytes int64) {
	for i := range c.store.shards {
		for o := range c.store.shards[i].index.everything() {
			keys, groups := o.tags()
			objects++
			bytes += headBytes(len(o.head), o.key(), &meta{keys: keys, groups: groups}) + bodyBytes(o.body)
		}
	}
	return objects, bytes
}

// TestByteBound: whatever is stored, replaced, revalidated, purged and evicted, the bytes counted are those held, and
// never more than allowed.
func TestByteBound(t *testing.T) {
	const limit = 200_000
	reg := prometheus.NewRegistry()
	b := newBench(t, func(o *Options) { o.MaxBytes, o.MaxObject, o.Metrics = limit, 60_000, NewMetrics(reg) })
	rnd := rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex
	random := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return rnd.IntN(n)
	}
	b.respond(func(r *http.Request) (*http.Response, error) {
		if r.Header.Get("If-None-Match") != "" && random(2) == 0 {
			return b.response(304, "", "X-Longer: "+strings.Repeat("y", random(2000))), nil
		}
		res := b.response(200, strings.Repeat("x", random(70_000)), "Cache-Control: max-age=1", `Etag: "1"`, "Vary: X-A")
		if random(3) == 0 {
			res.Header.Del("Content-Length")
			res.ContentLength = -1
		}
		return res, nil
	})
	for round := range 20 {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 25 {
					path := fmt.Sprintf("/%d", random(15))
					switch random(12) {
					case 0:
						b.purge(path, random(2) == 0)
					default:
						b.get("http://a.test"+path, fmt.Sprintf("X-A: %d", random(3)))
					}
					if s := b.cache.Stats(); s.Bytes > limit || s.Filling > s.Bytes {
						t.Errorf("%d bytes, %d filling", s.Bytes, s.Filling)
					}
				}
			})
		}
		wg.Wait()
		b.settled()
		if round%2 == 0 {
			b.clock.add(1e9)
		}
		s := b.cache.Stats()
		objects, bytes := held(b.cache)
		if s.Objects != objects || s.Bytes != bytes || s.Filling != 0 || bytes > limit {
			t.Fatalf("stats %+v; held: %d objects, %d bytes", s, objects, bytes)
		}
		if m := metric(t, reg, "landfall_cache_bytes", "memory"); int64(m) != bytes {
			t.Fatalf("metric says %v bytes of %d", m, bytes)
		}
	}
	s := b.cache.Stats()
	if s.Evictions == 0 || metric(t, reg, "landfall_cache_evictions_total", "") != float64(s.Evictions) {
		t.Errorf("evictions: %+v", s)
	}
	if metric(t, reg, "landfall_cache_revalidations_total", "not_modified") == 0 {
		t.Error("no revalidations counted")
	}
	b.cache.Close()
	if m := metric(t, reg, "landfall_cache_objects", ""); m != 0 {
		t.Errorf("%v objects after Close", m)
	}
}

// What is in use stays when a crowd of one-time objects passes.
func TestEvictionKeepsWhatIsUsed(t *testing.T) {
	b := newBench(t, func(o *Options) { o.MaxBytes, o.MaxObject = 100_000, 10_000 })
	b.answers(200, strings.Repeat("x", 5000), cacheable)
	b.get("http://a.test/hot")
	for i := range 100 {
		b.get(fmt.Sprintf("http://a.test/%d", i))
		if got := b.get("http://a.test/hot"); got.Result != Hit {
			t.Fatalf("evicted after %d others", i)
		}
	}
	if s := b.cache.Stats(); s.Evictions == 0 {
		t.Errorf("%+v", s)
	}
}

// Variants of a URL are bounded, and made-up ones don't drive out the one in use.
func TestVariantsAreBounded(t *testing.T) {
	b := newBench(t)
	b.answers(200, "body", cacheable, "Vary: X-A")
	b.get("http://a.test/")
	for i := range 3 * maxVariants {
		b.get("http://a.test/", fmt.Sprintf("X-A: %d", i))
		if got := b.get("http://a.test/"); got.Result != Hit {
			t.Fatalf("driven out by %d others", i+1)
		}
	}
	if s := b.cache.Stats(); s.Objects != maxVariants {
		t.Errorf("%d variants", s.Objects)
	}
}

// Accept-Encoding is of a closed set before anything is keyed by it, and the origin is asked for just that.
func TestAcceptEncodingIsClosed(t *testing.T) {
	b := newBench(t)
	b.respond(func(r *http.Request) (*http.Response, error) {
		return b.response(200, "as "+r.Header.Get("Accept-Encoding"), cacheable, "Vary: Accept-Encoding"), nil
	})
	for _, c := range []struct{ accept, body, result string }{
		{"gzip", "as gzip", Miss}, {"br", "as br", Miss}, {"zstd", "as zstd", Miss}, {"gzip", "as gzip", Hit},
		{"gzip, br", "as identity", Miss}, {"deflate", "as identity", Hit}, {"*", "as identity", Hit}, {"", "as identity", Hit},
	} {
		if got := b.get("http://a.test/", "Accept-Encoding: "+c.accept); got.body != c.body || got.Result != c.result {
			t.Errorf("%q: %q %s", c.accept, got.body, got.Result)
		}
	}
}

// Memory that runs short, by size or by fills under way, costs storing, never the answer.
func TestNoRoom(t *testing.T) {
	b := newBench(t, func(o *Options) { o.MaxBytes, o.MaxObject = 1<<20, 64<<10 })
	for _, length := range []int{64 << 10, 64<<10 + 1, 300 << 10, 2 << 20} {
		for _, known := range []bool{true, false} {
			body := strings.Repeat("x", length)
			b.respond(func(*http.Request) (*http.Response, error) {
				res := b.response(200, body, cacheable)
				if !known {
					res.Header.Del("Content-Length")
					res.ContentLength = -1
					res.Body = io.NopCloser(io.MultiReader(strings.NewReader(body[:1000]), strings.NewReader(body[1000:])))
				}
				return res, nil
			})
			url := fmt.Sprintf("http://a.test/%d/%v", length, known)
			got := b.get(url)
			if got.body != body || got.Aborted || got.Stored != (length <= 64<<10) {
				t.Errorf("%s: %d bytes, %+v", url, len(got.body), got.Outcome)
			}
			b.settled()
		}
	}
	if s := b.cache.Stats(); s.Objects != 2 || s.Filling != 0 {
		t.Errorf("%+v", s)
	}
	off := newBench(t, func(o *Options) { o.MaxBytes = 0 })
	off.answers(200, "body", cacheable)
	if got := off.get("http://a.test/"); got.status != "landfall; fwd=bypass" || got.body != "body" {
		t.Errorf("without memory: %q %q", got.status, got.body)
	}
}
