package cache

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// Each kind of purge takes what it names, of its service, and tells how many that are.
func TestPurgeKinds(t *testing.T) {
	for _, c := range []struct {
		name  string
		purge Purge
		gone  []string
	}{
		{"key", Purge{Key: "red"}, []string{"http://a.test/p/1", "http://b.test/p/1"}},
		{"key of Cache-Tag", Purge{Key: "two words"}, []string{"http://a.test/p/1", "http://b.test/p/1"}},
		{"key of one", Purge{Key: "http://a.test/q"}, []string{"http://a.test/q"}},
		{"keys are case-sensitive", Purge{Key: "Red"}, nil},
		{"prefix", Purge{Host: "A.test", Prefix: "/p/"}, []string{"http://a.test/p/1", "http://a.test/p/2?x"}},
		{"prefix within a segment", Purge{Host: "a.test", Prefix: "/p"}, []string{"http://a.test/p/1", "http://a.test/p/2?x", "http://a.test/pq"}},
		{"host", Purge{Host: "a.test:8080"}, []string{"http://a.test/p/1", "http://a.test/p/2?x", "http://a.test/pq", "http://a.test/q"}},
		{"all", Purge{All: true}, []string{"http://a.test/p/1", "http://a.test/p/2?x", "http://a.test/pq", "http://a.test/q", "http://b.test/p/1"}},
		{"another service", Purge{Service: "other", All: true}, nil},
	} {
		for _, soft := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s soft=%v", c.name, soft), func(t *testing.T) {
				b := newBench(t)
				b.respond(func(r *http.Request) (*http.Response, error) {
					lines := []string{cacheable, "Surrogate-Key: every  " + r.URL.String()}
					if strings.HasSuffix(r.URL.Path, "/p/1") {
						lines = append(lines, "Surrogate-Key: red every", "Cache-Tag: two words, ,green")
					}
					return b.response(200, "body", lines...), nil
				})
				all := []string{"http://a.test/p/1", "http://a.test/p/2?x", "http://a.test/pq", "http://a.test/q", "http://b.test/p/1"}
				for _, url := range all {
					if got := b.get(url); got.Header.Get("Surrogate-Key") != "" || got.Header.Get("Cache-Tag") != "" {
						t.Errorf("clients see %v", got.Header)
					}
				}
				p := c.purge
				p.Soft = soft
				if p.Service == "" {
					p.Service = "shop"
				}
				n, behind := b.cache.Purge(p)
				for again := range 2 {
					for _, url := range all {
						gone := false
						for _, g := range c.gone {
							gone = gone || g == url
						}
						want := Hit
						if gone && again == 0 {
							want = Miss
						}
						if got := b.get(url); got.Result != want {
							t.Errorf("%d: %s is %s, want %s", again, url, got.Result, want)
						}
					}
				}
				if behind != nil {
					b.until(func() bool { _, done := behind.Load(); return done }, "the prefix is counted")
					return // what was fetched again meanwhile is no longer there to be counted
				}
				if n != len(c.gone) {
					t.Errorf("%d taken, want %d", n, len(c.gone))
				}
			})
		}
	}
}

// A prefix purge is counted behind, and what it took is given back.
func TestSweep(t *testing.T) {
	b := newBench(t)
	b.answers(200, "body", cacheable, "Surrogate-Key: k")
	for i := range 100 {
		b.get(fmt.Sprintf("http://a.test/p/%d", i))
		b.get(fmt.Sprintf("http://a.test/q/%d", i))
	}
	_, behind := b.cache.Purge(Purge{Service: "shop", Host: "a.test", Prefix: "/p/"})
	b.until(func() bool { _, done := behind.Load(); return done }, "the prefix is counted")
	if n, _ := behind.Load(); n != 100 {
		t.Errorf("%d counted", n)
	}
	_, soft := b.cache.Purge(Purge{Service: "shop", Host: "a.test", Prefix: "/q/", Soft: true})
	b.until(func() bool { _, done := soft.Load(); return done }, "the prefix is counted")
	if n, _ := soft.Load(); n != 100 {
		t.Errorf("%d counted as stale", n)
	}
	if n, _ := b.cache.Purge(Purge{Service: "shop", Key: "k"}); n != 100 {
		t.Errorf("%d taken by key", n)
	}
	b.until(func() bool { return b.cache.Stats().Bytes == 0 }, "all is given back")
	b.until(func() bool {
		n := 0
		for i := range b.cache.generations.parts {
			p := &b.cache.generations.parts[i]
			p.mu.Lock()
			n += len(p.cells)
			p.mu.Unlock()
		}
		return n == 0 && b.cache.generations.idle.Load() == 0
	}, "the purges are forgotten")
}

// A fetch that was asked before a purge by key and answered after it brings nothing that is served later, though the
// purge could not know that it would have the key. Those who came before the purge may have it.
func TestPurgeByKeyRace(t *testing.T) {
	for _, p := range []Purge{{Key: "k"}, {All: true}, {Host: "a.test"}, {Host: "a.test", Prefix: "/x"}, {Host: "a.test", Path: "/x"}} {
		for _, soft := range []bool{false, true} {
			p.Service, p.Soft = "shop", soft
			b := newBench(t)
			asked, let := make(chan struct{}, 1), make(chan struct{})
			b.respond(func(*http.Request) (*http.Response, error) {
				select {
				case asked <- struct{}{}:
					<-let
					return b.response(200, "old", cacheable, "Surrogate-Key: k"), nil
				default:
					return b.response(200, "new", cacheable, "Surrogate-Key: k"), nil
				}
			})
			before, after := make(chan reply, 1), make(chan reply, 1)
			go func() { before <- b.get("http://a.test/x") }()
			b.until(func() bool { return b.fetches() == 1 }, "the origin is asked")
			b.cache.Purge(p)
			b.cache.sweepOnce() // must not forget what the fetch needs
			go func() { after <- b.get("http://a.test/x") }()
			if p.Key == "" { // known to concern it: it does not even wait
				after <- <-after
			}
			close(let)
			if old, fresh := <-before, <-after; old.body != "old" || fresh.body != "new" {
				t.Errorf("%+v: before %q, after %q", p, old.body, fresh.body)
			}
			b.settled()
			if got := b.get("http://a.test/x"); got.body != "new" || got.Result != Hit {
				t.Errorf("%+v: then %q %s", p, got.body, got.Result)
			}
		}
	}
}

// A response with more keys than are kept is not stored.
func TestTooManyKeys(t *testing.T) {
	b := newBench(t)
	var keys strings.Builder
	for i := range maxKeys + 1 {
		fmt.Fprintf(&keys, "k%d ", i)
	}
	b.answers(200, "body", cacheable, "Surrogate-Key: "+keys.String())
	if got := b.get("http://a.test/"); got.Stored {
		t.Error("stored")
	}
}

// Prefixes past the bound purge the host, and idle cells past theirs make fetches under way unstorable.
func TestPurgeBounds(t *testing.T) {
	b := newBench(t)
	b.answers(200, "body", cacheable)
	b.get("http://a.test/other")
	name := cellName{"shop", ofHost, "a.test"}
	for i := range maxPrefixes {
		b.cache.generations.purgePrefix(name, fmt.Sprintf("/p/%d/", i), false, b.clock.Now())
	}
	if got := b.get("http://a.test/other"); got.Result != Hit {
		t.Fatalf("%s within the bound", got.Result)
	}
	b.cache.generations.purgePrefix(name, "/one/more", false, b.clock.Now())
	if got := b.get("http://a.test/other"); got.Result != Miss {
		t.Fatalf("%s past the bound", got.Result)
	}
	for i := range maxIdle + 2 {
		b.cache.generations.purge(cellName{"shop", ofKey, fmt.Sprint(i)}, false, b.clock.Now())
	}
	if b.cache.generations.floor.Load() == 0 || b.cache.generations.idle.Load() > maxIdle {
		t.Errorf("%d idle cells, floor %d", b.cache.generations.idle.Load(), b.cache.generations.floor.Load())
	}
}

// A node that hears of no purges confirms what it has before it serves it.
func TestCutOff(t *testing.T) {
	b := newBench(t)
	b.confirming(`"1"`, cacheable+", stale-while-revalidate=600, stale-if-error=600")
	b.get("http://a.test/")
	b.cache.SetCutOff(true)
	for range 2 {
		if got := b.get("http://a.test/"); got.Result != Revalidated {
			t.Errorf("cut off: %s %q", got.Result, got.status)
		}
	}
	b.answers(503, "down")
	if got := b.get("http://a.test/"); got.StatusCode != 200 || got.Result != Stale {
		t.Errorf("cut off, and the origin is down: %d %s", got.StatusCode, got.Result)
	}
	b.cache.SetCutOff(false)
	if got := b.get("http://a.test/"); got.Result != Hit {
		t.Errorf("back: %s", got.Result)
	}
}
