package gateway

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// replayed is how many requests TestOffload replays for each skew; its figures get better with more.
var replayed = flag.Int("replay", 8_000, "requests that TestOffload replays for each skew")

// What is asked for: seven of ten requests are for static files, most of the rest for an API whose answers live for seconds,
// and some for what is one client's alone. Within each kind, popularity follows Zipf's law.
const (
	staticFiles = 200
	apiCalls    = 40
	replayRate  = 1000 // requests a second
	personalOf  = 0.05
	staticOf    = 0.70
)

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
	bodies := replayBodies()
	begun := time.Now()
	clock := func() time.Time { return begun.Add(time.Duration(next.Load()) * time.Second / replayRate) }
	u := origin(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		body := bodies(r.URL.Path)
		replayHeader(w.Header(), r.URL.Path)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
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
			r := newReplayer(uint64(worker), skew)
			for next.Add(1) <= int64(*replayed) && !t.Failed() {
				path, coding := r.draw()
				size, hit, err := replay(t.Context(), client, path, coding)
				if err != nil {
					t.Error(err)
					return
				}
				sent.Add(size)
				uncoded.Add(int64(len(bodies(path))))
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

// replay sends one request and tells how many bytes its body was and whether the cache had the answer: one that was served
// without waiting for an origin, or shared the fetch of another client.
func replay(ctx context.Context, c *http.Client, path, coding string) (size int64, hit bool, err error) {
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

// replayer draws requests.
type replayer struct {
	*rand.Rand
	static, api []float64 // sums of the weights
}

func newReplayer(seed uint64, skew float64) *replayer {
	weights := func(n int) []float64 {
		sums, total := make([]float64, n), 0.0
		for i := range sums {
			total += math.Pow(float64(i+1), -skew)
			sums[i] = total
		}
		return sums
	}
	return &replayer{rand.New(rand.NewPCG(seed, 5)), weights(staticFiles), weights(apiCalls)}
}

func (r *replayer) rank(sums []float64) int {
	return sort.SearchFloat64s(sums, r.Float64()*sums[len(sums)-1])
}

func (r *replayer) draw() (path, coding string) {
	coding = "gzip, deflate, br, zstd"
	switch c := r.Float64(); {
	case c < 0.25:
		coding = "gzip, deflate, br"
	case c < 0.28:
		coding = "gzip"
	case c < 0.29:
		coding = ""
	}
	switch kind := r.Float64(); {
	case kind < personalOf:
		return fmt.Sprintf("/account/%d", r.IntN(1000)), coding
	case kind < personalOf+staticOf:
		n := r.rank(r.static)
		return fmt.Sprintf("/static/%d.%s", n, [...]string{"js", "css", "html", "jpg", "svg"}[n%5]), coding
	}
	return fmt.Sprintf("/api/%d", r.rank(r.api)), coding
}

func replayHeader(h http.Header, path string) {
	kind := map[string]string{".js": "application/javascript", ".css": "text/css", ".html": "text/html", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}[filepath.Ext(path)]
	switch {
	case strings.HasPrefix(path, "/static/"):
		h.Set("Content-Type", kind)
		h.Set("Cache-Control", "public, max-age=3600")
	case strings.HasPrefix(path, "/api/"):
		n, _ := strconv.Atoi(strings.TrimPrefix(path, "/api/"))
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "max-age="+strconv.Itoa(5+n%26))
	default:
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "private, no-store")
	}
}

// replayBodies makes each path's body once.
func replayBodies() func(path string) []byte {
	var made sync.Map
	return func(path string) []byte {
		body, ok := made.Load(path)
		if !ok {
			body, _ = made.LoadOrStore(path, replayBody(path))
		}
		return body.([]byte)
	}
}

// replayBody is what a path is answered by: text of words, as compressible as such files are, or noise for images.
func replayBody(path string) []byte {
	seed := uint64(len(path))
	for _, c := range []byte(path) {
		seed = seed*31 + uint64(c)
	}
	r := rand.New(rand.NewPCG(seed, 1))
	size := 500 + r.IntN(2_000)
	if strings.HasPrefix(path, "/static/") {
		size = 2_000 + r.IntN(8_000)
	}
	var b bytes.Buffer
	if strings.HasSuffix(path, ".jpg") {
		for b.Len() < size {
			b.WriteByte(byte(r.Uint32()))
		}
		return b.Bytes()
	}
	words := strings.Fields("price name stock colour size return function const width margin display product customer order item value true false null title class div span href image width price_gross country delivery")
	for b.Len() < size {
		fmt.Fprintf(&b, "%q: {%s-%d, %s},\n", words[r.IntN(len(words))], words[r.IntN(len(words))], r.IntN(10_000), words[r.IntN(len(words))])
	}
	return b.Bytes()
}
