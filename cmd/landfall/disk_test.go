package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// A node that is killed while it stores serves afterwards what it had, whole, and nothing else.
func TestDiskCacheOutlivesKill(t *testing.T) {
	var fetches atomic.Int64
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fetches.Add(1)
		w.Header().Set("Cache-Control", "max-age=1000")
		fmt.Fprint(w, r.URL.Path, strings.Repeat(r.URL.Path+" ", 2000))
	}))
	t.Cleanup(func() { origin.CloseClientConnections(); origin.Close() })
	n := &node{config: filepath.Join(t.TempDir(), "fleet.yaml"), origin: origin}
	n.write(t, fmt.Sprintf(nodeConfig, "10ms", "1s", "a.example", origin.URL)+fmt.Sprintf("cache: {disk: {path: %s, size: 64MiB}}\n", t.TempDir()))
	const objects = 300
	for round := range 3 {
		n.program = start(t, nil, "run", "--config", n.config, "--node", "n1")
		n.says(t, &n.out, "ready\n")
		var wg sync.WaitGroup
		var served atomic.Int64
		before := fetches.Load()
		for worker := range 4 {
			wg.Go(func() {
				for i := worker; i < objects; i += 4 {
					path := fmt.Sprintf("/%d", i)
					_, body, err := n.get(t.Context(), t, "a.example", path)
					if err == nil && body != path+strings.Repeat(path+" ", 2000) {
						t.Errorf("%s is answered by %.40q, %d bytes", path, body, len(body))
					}
					if served.Add(1) == objects*2/3 {
						n.signal(syscall.SIGKILL) // in the middle of it
					}
				}
			})
		}
		wg.Wait()
		<-n.ended
		if asked := fetches.Load() - before; round > 0 && asked > objects/2 {
			t.Errorf("round %d asked the origin %d times for what was on disk", round, asked)
		}
	}
}
