package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A real file system that fills up: the cache goes on in memory and says so, nothing wrong is served, and once there is
// room it is used again. Needs the right to mount.
func TestRealDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("landfall", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("no file system can be mounted: %v", err)
	}
	var mu sync.Mutex
	var states []error
	reg := prometheus.NewRegistry()
	b := newBench(t, func(o *Options) {
		o.Metrics = NewMetrics(reg)
		o.Disk = &DiskOptions{Path: filepath.Join(dir, "cache"), Size: 64 << 20, OnState: func(err error) {
			mu.Lock()
			defer mu.Unlock()
			states = append(states, err)
		}}
	})
	t.Cleanup(func() { // after the bench's own, were it earlier: the folder is in use until the cache is closed
		b.cache.Close()
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	body := strings.Repeat("x", 100_000)
	b.answers(200, body, cacheable)
	ask := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			url := fmt.Sprintf("http://a.test/%d", i)
			if first, second := b.get(url), b.get(url); first.body != body || second.body != body || second.Result != Hit {
				t.Fatalf("%s: %s, then %s", url, first.Result, second.Result)
			}
		}
		b.settled()
		b.cache.tier.store.Flush(nil)
	}
	ask(0, 5)
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 2<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the file system isn't full: %v", err)
	}
	ask(5, 25)
	mu.Lock()
	if len(states) != 1 || !errors.Is(states[0], syscall.ENOSPC) {
		t.Errorf("told %v", states)
	}
	mu.Unlock()
	b.cache.tier.report(b.cache.tier.store.Stats())
	if metric(t, reg, "landfall_cache_disk_down", "") != 1 {
		t.Error("the metric doesn't tell")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	b.clock.add(time.Minute)
	ask(25, 26)
	mu.Lock()
	defer mu.Unlock()
	if len(states) != 2 || states[1] != nil || b.cache.Stats().Disk.Down {
		t.Errorf("told %v", states)
	}
}
