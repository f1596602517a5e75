package cache

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"testing"
	"time"
)

const million = 1_000_000

// full is a cache with a million objects: bodies of 100 bytes, 10 surrogate keys of 100,000 objects each, and one key of
// its own for each.
func full(b *testing.B) (t *bench, overhead float64) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	t = newBench(b, func(o *Options) { o.MaxBytes, o.Now = 4<<30, time.Now })
	body := make([]byte, 100)
	date := time.Now().UTC().Format(http.TimeFormat)
	t.respond(func(r *http.Request) (*http.Response, error) {
		t.seen = nil
		n, _ := strconv.Atoi(r.URL.Path[1:])
		return t.response(200, string(body), "Cache-Control: max-age=100000", "Content-Type: text/html", "Date: "+date, "Surrogate-Key: shared"+strconv.Itoa(n%10)), nil
	})
	w := &sink{header: make(http.Header)}
	r := httptest.NewRequest("GET", "http://a.test/", nil)
	v := view(r)
	for i := range million {
		v.Path = "/" + strconv.Itoa(i)
		r.URL.Path = v.Path
		if out := t.cache.Serve(w, r, v, Policy{}, t.fetch); !out.Stored {
			b.Fatal(out)
		}
	}
	t.settled()
	runtime.GC()
	runtime.ReadMemStats(&after)
	return t, float64(after.HeapAlloc-before.HeapAlloc) / million
}

// contents is the text of an object: its path, its body, and its header as it goes over the wire.
func (t *bench) contents(path string) int {
	got := t.get("http://a.test" + path)
	n := len(path) + len(got.body)
	for name, values := range got.Header {
		if name != "Age" && name != "Cache-Status" {
			n += len(name) + len(": \r\n") + len(values[0])
		}
	}
	return n
}

// BenchmarkMillion measures a cache of a million objects. B/object is the heap's share of each; overhead-B/object is that
// without the object's contents; charged-B/object is what the bound of bytes counts for it, which takes its surrogate
// key for one that no other object has.
func BenchmarkMillion(b *testing.B) {
	t, heap := full(b)
	text := t.contents("/123456")
	charged := float64(t.cache.Stats().Bytes) / million
	w := &sink{header: make(http.Header)}
	r := httptest.NewRequest("GET", "http://a.test/", nil)
	paths := make([]string, 1<<16)
	for i := range paths {
		paths[i] = "/" + strconv.Itoa(i*7919%million)
	}
	serve := func(v Request, want string) {
		if out := t.cache.Serve(w, r, v, Policy{}, t.fetch); out.Result != want {
			b.Fatal(out, want)
		}
	}
	b.Run("hit", func(b *testing.B) {
		b.ReportAllocs()
		v := view(r)
		for i := 0; b.Loop(); i++ {
			v.Path = paths[i&(len(paths)-1)]
			serve(v, Hit)
		}
		b.ReportMetric(heap, "B/object")
		b.ReportMetric(heap-float64(text), "overhead-B/object")
		b.ReportMetric(charged, "charged-B/object")
	})
	b.Run("hit-under-1000-purges-a-second", func(b *testing.B) {
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-tick.C:
					t.cache.Purge(Purge{Service: "shop", Key: fmt.Sprint("other", i)})
				}
			}
		}()
		v := view(r)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			v.Path = paths[i&(len(paths)-1)]
			serve(v, Hit)
		}
		close(stop)
		<-stopped
	})
	b.Run("store", func(b *testing.B) {
		b.ReportAllocs()
		v := view(r)
		for i := 0; b.Loop(); i++ {
			v.Path = "/" + strconv.Itoa(2*million+i)
			r.URL.Path = v.Path
			serve(v, Miss)
			if i%1000 == 999 { // the benchmark is of storing, not of memory
				t.cache.Purge(Purge{Service: "shop", Host: "a.test", Prefix: "/2"})
			}
		}
	})
	for _, c := range []struct {
		name  string
		purge func(i int) Purge
	}{
		{"purge-key-of-100000", func(int) Purge { return Purge{Service: "shop", Key: "shared3", Soft: true} }},
		{"purge-unknown-key", func(i int) Purge { return Purge{Service: "shop", Key: fmt.Sprint("none", i)} }},
		{"purge-url", func(i int) Purge {
			return Purge{Service: "shop", Host: "a.test", Path: paths[i&(len(paths)-1)], Soft: true}
		}},
		{"purge-prefix", func(i int) Purge {
			return Purge{Service: "shop", Host: "a.test", Prefix: fmt.Sprintf("/none/%d", i%1000)}
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				t.cache.Purge(c.purge(i))
			}
		})
	}
}
