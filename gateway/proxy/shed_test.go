package proxy

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"landfall/gateway/upstream"
)

// busy is a service whose only origin works on as much as it may, for as long as the test lasts, and whose routes ask another
// server about each client.
func busy(t testing.TB) (g *rig, asked *atomic.Int64) {
	held, taken := make(chan struct{}), make(chan struct{})
	work := origin(t, func(http.ResponseWriter, *http.Request) { taken <- struct{}{}; <-held })
	asked = new(atomic.Int64)
	auth := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(auth.Close)
	g = newRig(t, strings.Replace(one(`
    pool: {concurrency: 1}
    routes:
      - {match: {path: /free/*}, cache: off, priority: critical}
      - match: {path: /off/*}
        cache: off
        auth: {forward: {url: "`+auth.URL+`"}}
      - match: {path: /*}
        auth: {forward: {url: "`+auth.URL+`"}}
`, work), "debug: true", "debug: false", 1), nil)
	var filled sync.WaitGroup
	filled.Go(func() { g.get("GET", "/free/x") })
	<-taken
	t.Cleanup(func() { close(held); filled.Wait() })
	return g, asked
}

// A request for which there is no room is refused before its client is asked for, before its body is read, and before the
// cache: with a 503 and Retry-After.
func TestShedBeforeAnyWork(t *testing.T) {
	g, asked := busy(t)
	untouched := &untouchedBody{}
	for name, c := range map[string]struct {
		method, path string
		body         io.Reader
		asked        int64
	}{
		"a write":              {"POST", "/off/x", untouched, 0},
		"a write where cached": {"POST", "/x", untouched, 0},
		"a read uncached":      {"GET", "/off/x", nil, 0},
		"a read":               {"GET", "/x", nil, 1}, // the cache may have had it, for those who may come
	} {
		before := asked.Load()
		w := httptest.NewRecorder()
		r := httptest.NewRequest(c.method, "http://shop.test"+c.path, c.body)
		r.ProtoMajor, r.ProtoMinor = 2, 0 // no rest of the body to be read for the connection's sake
		g.proxy.Serve(w, r, benchConn)
		if w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), `"error":"shed"`) || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v %s", name, w.Code, w.Header(), w.Body)
		}
		if got := asked.Load() - before; got != c.asked {
			t.Errorf("%s: the other server was asked %d times, want %d", name, got, c.asked)
		}
	}
	if untouched.read.Load() {
		t.Error("a body was read of a request that was shed")
	}
	if got := testutil.ToFloat64(g.proxy.o.Metrics.refusals.WithLabelValues("shed")); got != 4 {
		t.Error(got, "refusals are counted")
	}
	if g.proxy.o.Pools["web"].Full(upstream.Critical) != true || g.proxy.o.Pools["web"].Shed(upstream.Normal) == nil {
		t.Error("the pool has room")
	}
}

// untouchedBody is a request's body that is of no use to who refuses.
type untouchedBody struct{ read atomic.Bool }

func (b *untouchedBody) Read([]byte) (int, error) {
	b.read.Store(true)
	return 0, io.EOF
}

// Of many that are shed few are logged: writing a line is more work than shedding.
func TestShedsAreLoggedByRation(t *testing.T) {
	var r ration
	at := time.Unix(1_800_000_000, 0)
	let := func() (n int) {
		for range 100 {
			if r.take(at, shedsLogged) {
				n++
			}
		}
		return n
	}
	if n := let(); n != shedsLogged {
		t.Error(n, "of a second")
	}
	at = at.Add(time.Second)
	if n := let(); n != shedsLogged {
		t.Error(n, "of the next second")
	}
	g, _ := busy(t)
	for range 100 {
		g.proxy.Serve(httptest.NewRecorder(), httptest.NewRequest("GET", "http://shop.test/off/x", nil), benchConn)
	}
	if n := strings.Count(g.access.String(), `"refusal":"shed"`); n == 0 || n > 6*shedsLogged { // a second may have passed, or some
		t.Error(n, "of 100 requests that were shed were logged")
	}
}

// BenchmarkShed is a request that is refused for want of room, through the whole chain: from its head to the end of the 503 and
// the account of it.
func BenchmarkShed(b *testing.B) {
	g, _ := busy(b)
	for name, c := range map[string]struct{ method, path string }{"early": {"POST", "/off/x"}, "miss": {"GET", "/free/y"}} {
		b.Run(name, func(b *testing.B) {
			r := benchRequest()
			r.Method, r.URL.Path = c.method, c.path
			w := &sink{h: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.h)
				g.proxy.Serve(w, r, benchConn)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N), "µs/shed")
			if w.h.Get("Retry-After") == "" {
				b.Error(w.h)
			}
		})
	}
}

// What is answered here needs no origin, so a full pool sheds none of it.
func TestAnswersOfOursAreNotShed(t *testing.T) {
	held, taken := make(chan struct{}), make(chan struct{})
	work := origin(t, func(http.ResponseWriter, *http.Request) { taken <- struct{}{}; <-held })
	g := newRig(t, one(`
    pool: {concurrency: 1}
    routes:
      - {match: {path: /free/*}, cache: off, priority: critical}
      - match: {path: /moved/*}
        redirect: {to: "https://new.test{path}"}
      - match: {path: /fixed}
        cache: off
        respond: {status: 200, body: hi}
      - match: {path: /*}
`, work), nil)
	var filled sync.WaitGroup
	filled.Go(func() { g.get("GET", "/free/x") })
	<-taken
	t.Cleanup(func() { close(held); filled.Wait() })
	for path, want := range map[string]int{"/moved/x": http.StatusPermanentRedirect, "/fixed": http.StatusOK, "/other": http.StatusServiceUnavailable} {
		w := httptest.NewRecorder()
		g.proxy.Serve(w, httptest.NewRequest("POST", "http://shop.test"+path, nil), benchConn)
		if w.Code != want {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}
