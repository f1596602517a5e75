// Package replay is a realistic mix of requests, and the origin that answers them, for measuring what a cache spares:
// seven of ten requests are for static files, most of the rest for an API whose answers live for seconds, and some for what
// is one client's alone. Within each kind, popularity follows Zipf's law. Like package history it knows nothing of caches:
// a test replays the mix through a node, and the offload drill through a fleet of processes.
package replay

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"path"
	"sort"
	"strconv"
	"strings"
	"sync"
)

const (
	staticFiles = 200
	apiCalls    = 40
	accounts    = 1000

	personalOf = 0.05
	staticOf   = 0.70
)

// Replayer draws requests. It is not safe for concurrent use.
type Replayer struct {
	rnd         *rand.Rand
	static, api []float64 // sums of the weights
}

// New makes a Replayer whose popularity falls with the rank to the power of skew: real traffic has 0.8 to 1.1.
func New(seed uint64, skew float64) *Replayer {
	weights := func(n int) []float64 {
		sums, total := make([]float64, n), 0.0
		for i := range sums {
			total += math.Pow(float64(i+1), -skew)
			sums[i] = total
		}
		return sums
	}
	return &Replayer{rand.New(rand.NewPCG(seed, 5)), weights(staticFiles), weights(apiCalls)}
}

func (r *Replayer) rank(sums []float64) int {
	return sort.SearchFloat64s(sums, r.rnd.Float64()*sums[len(sums)-1])
}

// Draw is the path of the next request, and its Accept-Encoding, which may be empty.
func (r *Replayer) Draw() (path, accept string) {
	accept = "gzip, deflate, br, zstd"
	switch c := r.rnd.Float64(); {
	case c < 0.25:
		accept = "gzip, deflate, br"
	case c < 0.28:
		accept = "gzip"
	case c < 0.29:
		accept = ""
	}
	switch kind := r.rnd.Float64(); {
	case kind < personalOf:
		return fmt.Sprintf("/account/%d", r.rnd.IntN(accounts)), accept
	case kind < personalOf+staticOf:
		n := r.rank(r.static)
		return fmt.Sprintf("/static/%d.%s", n, [...]string{"js", "css", "html", "jpg", "svg"}[n%5]), accept
	}
	return fmt.Sprintf("/api/%d", r.rank(r.api)), accept
}

// Known tells whether Draw may draw a path.
func Known(p string) bool {
	dir, name := path.Split(p)
	base, _, _ := strings.Cut(name, ".")
	n, err := strconv.Atoi(base)
	most := map[string]int{"/static/": staticFiles, "/api/": apiCalls, "/account/": accounts}[dir]
	return err == nil && n >= 0 && n < most
}

// Origin answers what Draw draws, and makes each body once. The zero value is ready; it is safe for concurrent use.
type Origin struct{ made sync.Map }

// ServeHTTP implements http.Handler.
func (o *Origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !Known(r.URL.Path) {
		http.NotFound(w, r)
		return
	}
	body := o.Body(r.URL.Path)
	header(w.Header(), r.URL.Path)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // a client that leaves needs none
}

// Body is what a path is answered by: text of words, as compressible as such files are, or noise for images.
func (o *Origin) Body(p string) []byte {
	body, ok := o.made.Load(p)
	if !ok {
		body, _ = o.made.LoadOrStore(p, makeBody(p))
	}
	return body.([]byte)
}

func header(h http.Header, p string) {
	kind := map[string]string{".js": "application/javascript", ".css": "text/css", ".html": "text/html", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}[path.Ext(p)]
	switch {
	case strings.HasPrefix(p, "/static/"):
		h.Set("Content-Type", kind)
		h.Set("Cache-Control", "public, max-age=3600")
	case strings.HasPrefix(p, "/api/"):
		n, _ := strconv.Atoi(strings.TrimPrefix(p, "/api/"))
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "max-age="+strconv.Itoa(5+n%26))
	default:
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "private, no-store")
	}
}

func makeBody(p string) []byte {
	seed := uint64(len(p))
	for _, c := range []byte(p) {
		seed = seed*31 + uint64(c)
	}
	r := rand.New(rand.NewPCG(seed, 1))
	size := 500 + r.IntN(2_000)
	if strings.HasPrefix(p, "/static/") {
		size = 2_000 + r.IntN(8_000)
	}
	var b bytes.Buffer
	if strings.HasSuffix(p, ".jpg") {
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
