package gateway

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"landfall/cache/replay"
)

// replayed is how many requests TestOffload replays for each skew; its figures get better with more.
var replayed = flag.Int("replay", 8_000, "requests that TestOffload replays for each skew")

const replayRate = 1000 // requests a second

// TestOffload replays a realistic mix through a real node, over real sockets, and holds what the origin is spared against
// the promise: a hit rate of 85%, 85% fewer requests to origins, and 40% of the bytes saved by compression. Run it with
// -v for the figures, and with -replay for a longer one. The node's clock counts requests, replayRate of them a second, so
// that what expires between two of them does not depend on how fast the machine is.
func TestOffload(t *testing.T) {
	t.Parallel()
	for _, skew := range []float64{0.8, 1.1} {
		t.Run(fmt.Sprintf("zipf %.2f", skew), func(t *testing.T) { offload(t, skew) })
	}
}

func offload(t *testing.T, skew float64) {
	var asked, uncoded, next atomic.Int64
	var mix replay.Origin
	begun := time.Now()
	clock := func() time.Time { return begun.Add(time.Duration(next.Load()) * time.Second / replayRate) }
	u := origin(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		mix.ServeHTTP(w, r)
	})
	p := start(t, Options{Now: clock, ConfigFile: write(t, filepath.Join(t.TempDir(), "fleet.yaml"), `
listen: {http: ["127.0.0.1:0"]}
cache: {memory: 256MiB}
services:
  web:
    hosts: ["*"]
    pools: {any: {origins: ["`+u+`"]}}
    routes:
      - match: {path: /api/*}
        cache: {stale_while_revalidate: 10s, jitter: 10%}
      - match: {path: /*}
`)})
	client := replayClient(t, p.listen["http"])
	var sent, hits atomic.Int64
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			r := replay.New(uint64(worker), skew)
			for next.Add(1) <= int64(*replayed) && !t.Failed() {
				path, coding := r.Draw()
				size, hit, err := replayOne(t.Context(), client, path, coding)
				if err != nil {
					t.Error(err)
					return
				}
				sent.Add(size)
				uncoded.Add(int64(len(mix.Body(path))))
				if hit {
					hits.Add(1)
				}
			}
		})
	}
	wg.Wait()
	rate := float64(hits.Load()) / float64(*replayed)
	spared := 1 - float64(asked.Load())/float64(*replayed)
	saved := 1 - float64(sent.Load())/float64(uncoded.Load())
	t.Logf("zipf %.2f, %d requests: hit rate %.1f%%, origin requests down by %.1f%%, bytes saved by compression %.1f%%", skew, *replayed, 100*rate, 100*spared, 100*saved)
	if rate < 0.85 || spared < 0.85 || saved < 0.40 {
		t.Errorf("less than promised")
	}
}

func replayClient(t *testing.T, addr string) *http.Client {
	tr := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		},
		DisableCompression: true, MaxIdleConnsPerHost: 16,
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: long}
}

// replayOne sends one request and tells how many bytes its body was and whether the cache had the answer: one that was served
// without waiting for an origin, or shared the fetch of another client.
func replayOne(ctx context.Context, c *http.Client, path, coding string) (size int64, hit bool, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://shop.test"+path, nil)
	if err != nil {
		return 0, false, err
	}
	r.Header.Set("Accept-Encoding", coding)
	resp, err := c.Do(r)
	if err != nil {
		return 0, false, err
	}
	defer resp.Body.Close()
	if size, err = io.Copy(io.Discard, resp.Body); err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s is answered by %d", path, resp.StatusCode)
	}
	status := resp.Header.Get("Cache-Status")
	return size, strings.Contains(status, "; hit") || strings.Contains(status, "; collapsed"), err
}
