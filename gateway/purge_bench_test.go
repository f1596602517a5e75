package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"landfall/cache"
	"landfall/gateway/admin"
)

const (
	benchDelay = 20 * time.Millisecond // one way, between the regions
	// bigKey is how many objects a purge by key takes at each node. Soft ones leave them there; each bigHard-th is hard, after
	// which they are stored anew.
	bigKey  = 100_000
	bigHard = 250
)

// BenchmarkPurgeFleet purges through one of three nodes, each in a region of its own, and waits for all of them: alone, which
// is how long one purge takes, by URL and by a key of 100,000 objects at each node; many at once; and a thousand a second,
// beside clients whose hits are timed before and meanwhile. applied-p99-ms is the time until the last node has applied a
// purge, which is to be the delay between the regions and at most 10 ms; told-p99-ms until the one who asked has heard so,
// which takes the way back, too.
func BenchmarkPurgeFleet(b *testing.B) {
	u := origin(b, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=3600")
		_, _ = io.WriteString(w, "a page")
	})
	f := &benchFleet{b: b, nodes: threeNodes(b, u, map[string]time.Duration{"r1": benchDelay, "r2": benchDelay, "r3": benchDelay})}
	b.Run("url", func(b *testing.B) {
		f.measure(b, 1, b.N, func(i int) admin.PurgeRequest {
			return admin.PurgeRequest{Service: "web", URLs: []string{fmt.Sprint("http://shop.test/", i)}}
		}, nil)
	})
	b.Run("key-of-100000-objects", func(b *testing.B) {
		purged := 0
		f.measure(b, 1, b.N, func(int) admin.PurgeRequest {
			if purged%bigHard == 0 {
				f.fill()
			}
			purged++
			return admin.PurgeRequest{Service: "web", Keys: []string{"big"}, Soft: purged%bigHard != 0}
		}, func(res admin.PurgeResult) {
			if res.Removed != bigKey*len(f.nodes) {
				b.Fatalf("%d objects went", res.Removed)
			}
		})
	})
	key := func(i int) admin.PurgeRequest {
		return admin.PurgeRequest{Service: "web", Keys: []string{fmt.Sprint("key-", i)}}
	}
	for _, at := range []int{64, 512} {
		b.Run(fmt.Sprintf("key-%d-at-once", at), func(b *testing.B) { f.measure(b, at, b.N, key, nil) })
	}
	b.Run("1000-a-second", func(b *testing.B) { f.sustain(b, key) })
}

type benchFleet struct {
	b     *testing.B
	nodes []*process
	count int
}

// purge makes one purge, and tells when the last node had applied it, and when that was known.
func (f *benchFleet) purge(b *testing.B, req admin.PurgeRequest) (res admin.PurgeResult, applied, told time.Duration) {
	n := f.nodes[0].n
	records, err := n.purgeRecords(req, "bench", time.Now())
	if err != nil {
		b.Fatal(err)
	}
	job := newPurgeJob(records, n.purgeScope(admin.WaitAll))
	begun := time.Now()
	n.purgeWriter.submit(job)
	for _, p := range f.nodes {
		p.n.purges.wait(b.Context(), []string{records[0].key()})
	}
	applied = time.Since(begun)
	err = job.wait(b.Context())
	told = time.Since(begun)
	if res = job.result(req, records[0]); err != nil || len(res.Applied) != len(f.nodes) {
		b.Errorf("%+v %v", res, err)
	}
	return res, applied, told
}

// times collects durations. It is safe for concurrent use.
type times struct {
	mu  sync.Mutex
	all []time.Duration
}

func (t *times) add(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, d)
}

func (t *times) report(b *testing.B, name string, unit time.Duration, suffix string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.all) == 0 {
		return
	}
	slices.Sort(t.all)
	b.ReportMetric(float64(t.all[len(t.all)/2])/float64(unit), name+"-p50-"+suffix)
	b.ReportMetric(float64(t.all[len(t.all)*99/100])/float64(unit), name+"-p99-"+suffix)
}

// measure makes count purges, so many at once.
func (f *benchFleet) measure(b *testing.B, at, count int, request func(int) admin.PurgeRequest, check func(admin.PurgeResult)) {
	var applied, told times
	var purging sync.WaitGroup
	next := make(chan admin.PurgeRequest)
	for range at {
		purging.Go(func() {
			for req := range next {
				res, there, known := f.purge(b, req)
				applied.add(there)
				told.add(known)
				if check != nil {
					check(res)
				}
			}
		})
	}
	begun := time.Now()
	for range count {
		f.count++
		next <- request(f.count)
	}
	close(next)
	purging.Wait()
	applied.report(b, "applied", time.Millisecond, "ms")
	told.report(b, "told", time.Millisecond, "ms")
	b.ReportMetric(float64(count)/time.Since(begun).Seconds(), "purges/s")
}

// fill stores what the big key takes, at each node.
func (f *benchFleet) fill() {
	header := http.Header{"Cache-Control": {"max-age=3600"}, "Surrogate-Key": {"big"}}
	fetch := func(context.Context, *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: header.Clone(), ContentLength: 4, Body: io.NopCloser(bytes.NewBufferString("body"))}, nil
	}
	var filling sync.WaitGroup
	for _, p := range f.nodes {
		filling.Go(func() {
			p.n.cache.PurgeEverything()
			for p.n.cache.Stats().Objects > 0 { // until it is swept
				<-time.After(time.Millisecond)
			}
			r, w := httptest.NewRequest("GET", "http://shop.test/", nil), httptest.NewRecorder()
			view := cache.Request{Service: "web", Method: "GET", Scheme: "http", Host: "shop.test", Header: r.Header}
			for i := range bigKey {
				view.Path = "/big/" + strconv.Itoa(i)
				clear(w.Header())
				w.Body.Reset()
				if out := p.n.cache.Serve(w, r, view, cache.Policy{}, fetch); !out.Stored {
					f.b.Errorf("%+v", out)
					return
				}
			}
		})
	}
	filling.Wait()
}

// sustain times hits at a node for a while, then for as long as b.N purges take at a thousand a second.
func (f *benchFleet) sustain(b *testing.B, request func(int) admin.PurgeRequest) {
	client := browser(b, f.nodes[1].listen["http"], nil)
	get(b, client, "GET", "http://shop.test/hot")
	hits := func(stop <-chan struct{}) *times {
		t := &times{}
		pace := time.NewTicker(2 * time.Millisecond)
		defer pace.Stop()
		for {
			select {
			case <-stop:
				return t
			case <-pace.C:
			}
			begun := time.Now()
			get(b, client, "GET", "http://shop.test/hot")
			t.add(time.Since(begun))
		}
	}
	lasts := time.Duration(b.N) * time.Millisecond
	quiet := make(chan struct{})
	time.AfterFunc(lasts, func() { close(quiet) })
	before := hits(quiet)

	var applied times
	var purging sync.WaitGroup
	over := make(chan struct{})
	begun := time.Now()
	purging.Go(func() {
		defer close(over)
		for i := range b.N {
			timer := time.NewTimer(time.Until(begun.Add(time.Duration(i) * time.Millisecond)))
			<-timer.C
			f.count++
			req := request(f.count)
			purging.Go(func() {
				_, there, _ := f.purge(b, req)
				applied.add(there)
			})
		}
	})
	during := hits(over)
	took := time.Since(begun)
	purging.Wait()
	before.report(b, "hit-before", time.Microsecond, "us")
	during.report(b, "hit-during", time.Microsecond, "us")
	applied.report(b, "applied", time.Millisecond, "ms")
	b.ReportMetric(float64(b.N)/took.Seconds(), "purges/s")
}
