package cache

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"landfall/cache/disk"
)

// onDisk is a bench whose cache keeps things in a folder. again ends it and opens another one there.
type onDisk struct {
	*bench
	dir    string
	change []func(*Options)
}

func newOnDisk(t testing.TB, change ...func(*Options)) *onDisk {
	d := &onDisk{dir: t.TempDir(), change: change}
	d.bench = newBench(t, d.options(change)...)
	return d
}

func (d *onDisk) options(change []func(*Options)) []func(*Options) {
	return append([]func(*Options){func(o *Options) { o.Disk = &DiskOptions{Path: d.dir, Size: 16 << 20} }}, change...)
}

// written waits until all that was stored is on disk.
func (d *onDisk) written() {
	d.settled()
	d.cache.tier.store.Flush(nil)
}

// again is the next process's cache, after an end (the files are left as they are) or a kill: then only what the kernel
// had is there.
func (d *onDisk) again(killed bool) {
	d.t.Helper()
	next := &onDisk{dir: d.dir, change: d.change}
	if killed {
		next.dir = d.t.TempDir()
		names, err := filepath.Glob(filepath.Join(d.dir, "*"))
		if err != nil {
			d.t.Fatal(err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if errors.Is(err, os.ErrNotExist) {
				continue // removed meanwhile
			}
			if err != nil {
				d.t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(next.dir, filepath.Base(name)), b, 0o600); err != nil {
				d.t.Fatal(err)
			}
		}
	}
	d.cache.Close()
	o := Options{MaxBytes: 64 << 20, MaxObject: 8 << 20, Now: d.clock.Now}
	for _, f := range next.options(d.change) {
		f(&o)
	}
	d.dir, d.cache = next.dir, New(o)
	d.t.Cleanup(d.cache.Close)
}

// What was stored answers after a restart and after a kill, in all its variants, without asking the origin.
func TestDiskOverRestart(t *testing.T) {
	for _, killed := range []bool{false, true} {
		d := newOnDisk(t)
		d.respond(func(r *http.Request) (*http.Response, error) {
			return d.response(200, r.URL.Path+" in "+r.Header.Get("X-Lang"), "Cache-Control: max-age=100, stale-while-revalidate=50", "Vary: X-Lang", `Etag: "v1"`,
				"Landfall-Cache-Control: max-age=90", "Surrogate-Key: a b", `Cache-Groups: "g"`, "X-Two: 1", "X-Two: 2", "Age: 5", "Cache-Status: far; hit"), nil
		})
		langs := []string{"de", "en", ""}
		for i := range 20 {
			for _, lang := range langs {
				d.get(fmt.Sprintf("http://a.test/%d?q", i), "X-Lang: "+lang)
			}
		}
		before := d.get("http://a.test/7?q", "X-Lang: en")
		d.written()
		d.again(killed)
		d.clock.add(10 * time.Second)
		fetched := d.fetches()
		for i := range 20 {
			for _, lang := range langs {
				got := d.get(fmt.Sprintf("http://a.test/%d?q", i), "X-Lang: "+lang)
				if want := fmt.Sprintf("/%d in %s", i, lang); got.body != want || got.status != "far; hit, landfall; hit; ttl=75; detail=disk" {
					t.Fatalf("killed=%v: %q %q, want %q", killed, got.body, got.status, want)
				}
			}
		}
		after := d.get("http://a.test/7?q", "X-Lang: en")
		if after.Header.Get("Age") != "15" || after.status != "far; hit, landfall; hit; ttl=75" {
			t.Errorf("Age %q, %q", after.Header.Get("Age"), after.status)
		}
		for _, h := range []http.Header{before.Header, after.Header} {
			delete(h, "Age")
			delete(h, "Cache-Status")
		}
		if !maps.EqualFunc(before.Header, after.Header, slices.Equal) || d.fetches() != fetched {
			t.Errorf("%v became %v, with %d fetches", before.Header, after.Header, d.fetches()-fetched)
		}
		if n, behind := d.cache.Purge(Purge{Service: "shop", Key: "b"}); n != 60 || behind != nil {
			t.Errorf("%d objects have the key", n)
		}
		if got := d.get("http://a.test/7?q", "X-Lang: en"); got.Result != Miss {
			t.Errorf("purged, but %s", got.status)
		}
	}
}

// Every kind of purge takes what is only on disk, holds over a restart and a kill, and doesn't fire again on what came
// after it.
func TestDiskPurges(t *testing.T) {
	kinds := map[string]Purge{
		"all": {All: true}, "key": {Key: "k1"}, "host": {Host: "a.test"}, "prefix": {Host: "a.test", Prefix: "/1"}, "url": {Host: "a.test", Path: "/1", RawQuery: "q"},
	}
	for name, p := range kinds {
		for _, soft := range []bool{false, true} {
			for _, killed := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/soft=%v/killed=%v", name, soft, killed), func(t *testing.T) {
					d := newOnDisk(t)
					version := int64(1)
					d.respond(func(*http.Request) (*http.Response, error) {
						return d.response(200, fmt.Sprint("version ", atomic.LoadInt64(&version)), "Cache-Control: max-age=100, stale-while-revalidate=50", "Surrogate-Key: k1"), nil
					})
					const url = "http://a.test/1?q"
					d.get(url)
					d.get("http://b.test/other")
					d.written()
					d.again(killed) // now it is only on disk
					p.Service, p.Soft = "shop", soft
					d.cache.Purge(p)
					atomic.StoreInt64(&version, 2)
					d.again(killed)
					first := d.get(url)
					if !soft && first.body != "version 2" || soft && first.Result != Stale {
						t.Fatalf("after the purge: %q %s", first.body, first.status)
					}
					d.settled()
					if second := d.get(url); second.body != "version 2" || second.Result != Hit {
						t.Fatalf("then: %q %s", second.body, second.status)
					}
					d.written()
					d.again(killed)
					if third := d.get(url); third.body != "version 2" || third.Result != Hit {
						t.Fatalf("the purge fired again: %q %s", third.body, third.status)
					}
				})
			}
		}
	}
}

// What the origin took back by another answer, by an unsafe request or by a group is not on disk either.
func TestDiskInvalidation(t *testing.T) {
	for name, invalidate := range map[string]func(d *onDisk){
		"POST": func(d *onDisk) { d.do("POST", "http://a.test/", "x") },
		"group": func(d *onDisk) {
			d.answers(200, "", `Cache-Group-Invalidation: "g"`)
			d.do("POST", "http://a.test/other", "x")
		},
		"no-store": func(d *onDisk) {
			d.clock.add(time.Hour)
			d.answers(200, "secret", "Cache-Control: no-store")
			d.get("http://a.test/")
			d.clock.add(-time.Hour)
		},
		"everything": func(d *onDisk) { d.cache.PurgeEverything() },
	} {
		d := newOnDisk(t)
		d.answers(200, "old", cacheable, `Cache-Groups: "g"`)
		d.get("http://a.test/")
		d.written()
		invalidate(d)
		d.written()
		d.answers(200, "new", cacheable)
		d.again(true)
		if got := d.get("http://a.test/"); got.body != "new" {
			t.Errorf("%s: %q is back", name, got.body)
		}
	}
}

// A model: whatever is stored, evicted, purged, ended and killed, no answer is older than the last purge of its URL.
func TestDiskNeverServesWhatWasPurged(t *testing.T) {
	d := newOnDisk(t, func(o *Options) { o.MaxBytes, o.MaxObject, o.Disk.Size = 200_000, 20_000, disk.MinSize })
	rnd := rand.New(rand.NewPCG(3, 4))
	var versions [30]atomic.Int64
	d.respond(func(r *http.Request) (*http.Response, error) {
		var n int
		fmt.Sscanf(r.URL.Path, "/%d", &n)
		v := versions[n].Load()
		return d.response(200, fmt.Sprintf("%d %d %s", n, v, strings.Repeat("x", 10_000)), "Cache-Control: max-age=1000",
			fmt.Sprintf("Surrogate-Key: k%d", n)), nil
	})
	loads := int64(0)
	for step := range 3000 {
		n := rnd.IntN(len(versions))
		switch p := rnd.IntN(100); {
		case p < 80:
			var got, v int
			body := d.get(fmt.Sprintf("http://a.test/%d/x", n)).body
			fmt.Sscanf(body, "%d %d", &got, &v)
			if got != n || int64(v) < versions[n].Load() || !strings.HasSuffix(body, "xxx") {
				t.Fatalf("step %d: got %d %d, want %d %d", step, got, v, n, versions[n].Load())
			}
		case p < 84:
			versions[n].Add(1)
			d.cache.Purge(Purge{Service: "shop", Key: fmt.Sprintf("k%d", n)})
		case p < 88:
			versions[n].Add(1)
			d.cache.Purge(Purge{Service: "shop", Host: "a.test", Prefix: fmt.Sprintf("/%d/", n)})
		case p < 92:
			versions[n].Add(1)
			d.cache.Purge(Purge{Service: "shop", Host: "a.test", Path: fmt.Sprintf("/%d/x", n)})
		case p < 93:
			for i := range versions {
				versions[i].Add(1)
			}
			d.cache.Purge(Purge{Service: "shop", All: true})
		case p < 94:
			d.cache.tier.scrub()
		case p < 95 && step%5 == 0:
			loads += d.cache.Stats().Disk.Written
			d.again(rnd.IntN(2) == 0)
		}
	}
	if loads == 0 {
		t.Error("nothing came to the disk")
	}
}

// Flipped bytes anywhere on disk are misses, never another answer.
func TestDiskFlippedBytes(t *testing.T) {
	d := newOnDisk(t)
	d.respond(func(r *http.Request) (*http.Response, error) {
		return d.response(200, "body of "+r.URL.Path, cacheable, "X-Path: "+r.URL.Path), nil
	})
	for i := range 50 {
		d.get(fmt.Sprintf("http://a.test/%d", i))
	}
	d.written()
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		d.again(true)
		names, _ := filepath.Glob(filepath.Join(d.dir, "*"))
		d.cache.Close()
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil || len(b) == 0 {
				continue
			}
			for range 3 {
				b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
			}
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		d.again(false)
		for i := range 50 {
			path := fmt.Sprintf("/%d", i)
			if got := d.get("http://a.test" + path); got.body != "body of "+path || got.Header.Get("X-Path") != path {
				t.Fatalf("%s is answered by %q", path, got.body)
			}
		}
		d.written()
	}
}

// A file of purges that isn't whole costs all that is on disk: a purge that is missing could be of anything.
func TestDiskWithoutPurges(t *testing.T) {
	for name, hurt := range map[string]func(b []byte) []byte{
		"gone":    nil,
		"torn":    func(b []byte) []byte { return b[:len(b)-1] },
		"flipped": func(b []byte) []byte { b[len(b)/2] ^= 4; return b },
		"longer":  func(b []byte) []byte { return append(b, 1, 2, 3) },
	} {
		d := newOnDisk(t)
		d.answers(200, "old", cacheable)
		d.get("http://a.test/")
		d.written()
		d.cache.Purge(Purge{Service: "shop", Host: "a.test"})
		d.cache.Close()
		file := filepath.Join(d.dir, journalName)
		if b, err := os.ReadFile(file); err != nil {
			t.Fatal(err)
		} else if hurt == nil && os.Remove(file) != nil || hurt != nil && os.WriteFile(file, hurt(b), 0o600) != nil {
			t.Fatal("the file of purges could not be changed")
		}
		for range 2 {
			d.again(false)
			if n, _ := d.cache.Recalled(); n != 0 {
				t.Errorf("%s: %d records are believed", name, n)
			}
		}
		d.answers(200, "new", cacheable)
		if got := d.get("http://a.test/"); got.body != "new" {
			t.Errorf("%s: %q", name, got.body)
		}
		d.written()
		if d.again(false); d.get("http://a.test/").Result != Hit {
			t.Errorf("%s: nothing new is kept", name)
		}
	}
}

// fullDisk refuses to write.
type fullDisk struct {
	disk.OS
	full atomic.Bool
}

type fullFile struct {
	disk.File
	fs *fullDisk
}

func (f *fullDisk) Create(name string) (disk.File, error) {
	file, err := f.OS.Create(name)
	return fullFile{file, f}, err
}

func (f fullFile) WriteAt(b []byte, at int64) (int, error) {
	if f.fs.full.Load() {
		return 0, syscall.ENOSPC
	}
	return f.File.WriteAt(b, at)
}

// A full disk costs nothing but keeping: requests are answered and stored in memory, and somebody is told.
func TestDiskFull(t *testing.T) {
	fs := &fullDisk{}
	reg := prometheus.NewRegistry()
	var told atomic.Int64
	d := newOnDisk(t, func(o *Options) {
		o.Disk.FS, o.Metrics = fs, NewMetrics(reg)
		o.Disk.OnState = func(err error) {
			if errors.Is(err, syscall.ENOSPC) {
				told.Add(1)
			}
		}
	})
	d.answers(200, "body", cacheable)
	d.get("http://a.test/before")
	d.written()
	fs.full.Store(true)
	for i := range 10 {
		url := fmt.Sprintf("http://a.test/%d", i)
		if first, second := d.get(url), d.get(url); first.Result != Miss || second.Result != Hit || second.body != "body" {
			t.Errorf("%s, then %s", first.Result, second.Result)
		}
	}
	d.written()
	d.cache.tier.report(d.cache.tier.store.Stats())
	if told.Load() != 1 || metric(t, reg, "landfall_cache_disk_down", "") != 1 || metric(t, reg, "landfall_cache_disk_writes_total", dropped) != 10 {
		t.Errorf("told %d times, %+v", told.Load(), d.cache.Stats().Disk)
	}
}

// A folder that can't be used costs the disk, not the cache.
func TestDiskUnusable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var told error
	b := newBench(t, func(o *Options) {
		o.Disk = &DiskOptions{Path: filepath.Join(file, "cache"), Size: 1 << 20, OnState: func(err error) { told = err }}
	})
	b.answers(200, "body", cacheable)
	b.get("http://a.test/")
	if got := b.get("http://a.test/"); got.Result != Hit || told == nil || b.cache.Stats().Disk != nil {
		t.Errorf("%s, told %v", got.Result, told)
	}
	b.cache.NotePurges(PurgeNotes{Writer: "w"})
	if b.cache.NotedPurges() != nil {
		t.Error("notes without a disk")
	}
}

// Memory stays within its bound with the index and the queue of the disk counted.
func TestDiskMemory(t *testing.T) {
	reg := prometheus.NewRegistry()
	d := newOnDisk(t, func(o *Options) { o.MaxBytes, o.MaxObject, o.Metrics = 4<<20, 100_000, NewMetrics(reg) })
	d.answers(200, strings.Repeat("x", 3000), cacheable)
	for i := range 3000 {
		d.get(fmt.Sprintf("http://a.test/%d", i))
		if s := d.cache.Stats(); s.Bytes > s.MaxBytes {
			t.Fatalf("%+v", s)
		}
	}
	d.written()
	objects, bytes := held(d.cache)
	s := d.cache.Stats()
	if s.Bytes <= bytes || s.Objects != objects || s.Disk.Records <= s.Objects {
		t.Errorf("%+v, %d bytes of %d objects", s, bytes, objects)
	}
	d.cache.tier.report(*s.Disk)
	if metric(t, reg, "landfall_cache_bytes", "disk") != float64(s.Disk.Bytes) || metric(t, reg, "landfall_cache_disk_objects", "") == 0 {
		t.Error("the metrics of the disk stand still")
	}
	d.cache.Close()
	if metric(t, reg, "landfall_cache_bytes", "memory") != 0 || metric(t, reg, "landfall_cache_bytes", "disk") != 0 {
		t.Error("bytes are left after Close")
	}
}

// What an earlier process left is confirmed while it is in doubt.
func TestDiskInDoubt(t *testing.T) {
	d := newOnDisk(t)
	d.answers(200, "body", cacheable, `Etag: "1"`)
	d.get("http://a.test/")
	d.written()
	d.again(false)
	d.cache.SetDoubt(true)
	if n, away := d.cache.Recalled(); n != 1 || away < 0 {
		t.Errorf("%d records, away for %s", n, away)
	}
	d.answers(304, "", `Etag: "1"`)
	if got := d.get("http://a.test/"); got.Result != Revalidated || got.body != "body" {
		t.Errorf("%s %q", got.status, got.body)
	}
	if got := d.get("http://a.test/"); got.Result != Hit {
		t.Errorf("confirmed, but %s", got.status)
	}
}

func TestPurgeNotes(t *testing.T) {
	d := newOnDisk(t)
	for i := range uint64(100) {
		d.cache.NotePurges(PurgeNotes{Writer: "w", Low: i, Above: []uint64{i + 2, i + 5}})
	}
	d.cache.NotePurges(PurgeNotes{Writer: "v", Low: 7})
	for range 2 {
		d.again(true)
		notes := d.cache.NotedPurges()
		slices.SortFunc(notes, func(a, b PurgeNotes) int { return strings.Compare(a.Writer, b.Writer) })
		if got := fmt.Sprint(notes); got != "[{v 7 []} {w 99 [101 104]}]" {
			t.Error(got)
		}
	}
}

// FuzzDiskRecord: bytes that are read as a record are one that writes the same bytes, and no others make trouble.
func FuzzDiskRecord(f *testing.F) {
	d := newOnDisk(f)
	d.answers(200, "body", cacheable, "Vary: X-A", "Surrogate-Key: a", `Cache-Groups: "g"`)
	d.get("http://a.test/")
	k := KeyOf(Request{Service: "shop", Scheme: "http", Host: "a.test", Path: "/"})
	found := d.cache.store.shard(k.url()).lookup(k.url().hash(d.cache.store.seed), &k, http.Header{})
	f.Add(found.object.diskRecord().Head)
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := readRecord(b)
		if err != nil {
			return
		}
		k := l.key()
		l.answers(&k, http.Header{})
		d.cache.generations.spoils(l.names(k), k.Path, l.born)
		o := d.cache.loadedObject(l, k, nil)
		defer d.cache.store.leave(o)
		again, err := readRecord(o.diskRecord().Head)
		if err != nil || again.key() != k || again.head != l.head || !slices.Equal(again.keys, l.keys) || len(again.groups) != len(l.groups) {
			t.Fatalf("%v: %+v, then %+v", err, l, again)
		}
	})
}

// FuzzJournal: whatever the file of purges holds, reading it ends, and what was written is read.
func FuzzJournal(f *testing.F) {
	e := purgeEntry{cellName: cellName{"shop", ofHost, "a.test"}, prefix: true, text: "/x", gen: 7, soft: true, at: 5}
	f.Add(e.encode(nil), "shop", "name")
	f.Fuzz(func(t *testing.T, b []byte, service, name string) {
		readJournal(b)
		e := purgeEntry{cellName: cellName{service, ofKey, name}, gen: 3}
		j := readJournal(e.encode(nil))
		if len(e.encode(nil)) < maxEntry && (len(j.entries) != 1 || j.entries[0] != e) {
			t.Fatalf("%+v became %+v", e, j.entries)
		}
	})
}
