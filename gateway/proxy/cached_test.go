package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"landfall/gateway/upstream"
)

// counted is an origin that counts its requests.
func counted(t testing.TB, h http.HandlerFunc) (url string, n *atomic.Int64) {
	n = new(atomic.Int64)
	return origin(t, func(w http.ResponseWriter, r *http.Request) { n.Add(1); h(w, r) }), n
}

var page = strings.Repeat("A page of the shop. ", 100)

func cacheable(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Cache-Control", "max-age=60")
	w.Header().Set("Etag", `"v1"`)
	if r.Header.Get("If-None-Match") == `"v1"` {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(page))
}

func TestCachedWay(t *testing.T) {
	u, n := counted(t, cacheable)
	g := newRig(t, one("", u), nil)
	for _, step := range []struct {
		name, method, target string
		header               []string
		status               int
		body                 string
		cacheStatus          string // what Cache-Status contains
		origin               int64  // requests so far
	}{
		{"a HEAD on a miss passes", "HEAD", "/p", nil, 200, "", "fwd=uri-miss", 1},
		{"a range on a miss passes", "GET", "/p", []string{"Range: bytes=0-3"}, 206, page[:4], "fwd=uri-miss", 2},
		{"miss", "GET", "/p", nil, 200, page, "stored", 3},
		{"hit", "GET", "/p", nil, 200, page, "hit", 3},
		{"hit by another spelling", "GET", "/x/../p", []string{"Host: SHOP.test."}, 200, page, "hit", 3},
		{"HEAD of what is stored", "HEAD", "/p", nil, 200, "", "hit", 3},
		{"not modified (RFC 9110 section 13)", "GET", "/p", []string{`If-None-Match: "v1"`}, 304, "", "hit", 3},
		{"a part of what is stored (section 14)", "GET", "/p", []string{"Range: bytes=2-5"}, 206, page[2:6], "hit", 3},
		{"a part beyond the end", "GET", "/p", []string{"Range: bytes=99999-"}, 416, "", "hit", 3},
		{"https is another key", "GET", "https:///p", nil, 200, page, "stored", 4},
		{"so is another host of the service", "GET", "/p", []string{"Host: a.shop.test"}, 200, page, "stored", 5},
		{"POST invalidates", "POST", "/p", nil, 200, page, "fwd=method", 6},
		{"so that it is a miss again", "GET", "/p", nil, 200, page, "stored", 7},
	} {
		resp, body := g.get(step.method, step.target, step.header...)
		if resp.StatusCode != step.status || step.status != 416 && body != step.body || !strings.Contains(resp.Header.Get("Cache-Status"), step.cacheStatus) || n.Load() != step.origin {
			t.Errorf("%s: %d, %d bytes, Cache-Status %q, %d requests at the origin", step.name, resp.StatusCode, len(body), resp.Header.Get("Cache-Status"), n.Load())
		}
	}
}

func TestPurgeMethod(t *testing.T) {
	u, n := counted(t, cacheable)
	g := newRig(t, one("", u), nil)
	g.get("GET", "/p?x=1")
	resp, body := g.get("PURGE", "/a/../p?x=1")
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, `{"missing":[],"removed":1}`) || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if resp, body := g.get("PURGE", "/p?x=1"); resp.StatusCode != http.StatusNotFound || !strings.Contains(body, `"removed":0`) {
		t.Errorf("nothing found must differ from done: %d %s", resp.StatusCode, body)
	}
	if resp, _ := g.get("GET", "/p?x=1"); !strings.Contains(resp.Header.Get("Cache-Status"), "stored") || n.Load() != 2 {
		t.Errorf("after a purge: %v, %d requests", resp.Header, n.Load())
	}
	g.purge = func(string) (int, []string, error) { return 3, []string{"us-1"}, nil }
	if resp, body := g.get("PURGE", "/p"); resp.StatusCode != http.StatusAccepted || !strings.Contains(body, `"missing":["us-1"]`) {
		t.Errorf("a node is missing: %d %s", resp.StatusCode, body)
	}
	g.purge = func(string) (int, []string, error) { return 0, nil, errors.New("disk full at 10.0.0.9") }
	if resp, body := g.get("PURGE", "/p"); resp.StatusCode != http.StatusBadGateway || strings.Contains(body, "10.0.0.9") {
		t.Errorf("a purge that fails: %d %s", resp.StatusCode, body)
	}
	asked := len(g.purged)
	for _, from := range []string{"203.0.113.7", "10.0.0.1"} {
		g.from(from)
		if resp, _ := g.get("PURGE", "/p", "X-Forwarded-For: 203.0.113.9"); resp.StatusCode != http.StatusForbidden {
			t.Errorf("PURGE from %s: %d", from, resp.StatusCode)
		}
	}
	if len(g.purged) != asked {
		t.Errorf("a forbidden purge was done: %v", g.purged)
	}
	g.from("10.0.0.1") // a trusted proxy speaks for an address that is allowed
	g.purge = func(string) (int, []string, error) { return 1, nil, nil }
	if resp, _ := g.get("PURGE", "/p", "X-Forwarded-For: 127.0.0.9"); resp.StatusCode != http.StatusOK {
		t.Errorf("PURGE through a trusted proxy: %d", resp.StatusCode)
	}
}

// A body that breaks off reaches the client broken, and is stored for nobody (RFC 9111 section 3.3).
func TestBrokenBody(t *testing.T) {
	u, n := counted(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		if r.URL.Path == "/known" {
			w.Header().Set("Content-Length", "1000")
		}
		_, _ = io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	g := newRig(t, one("", u), nil)
	for _, target := range []string{"/known", "/chunked", "https:///known", "https:///chunked"} {
		before := n.Load()
		for range 2 {
			resp, err := g.client().Do(g.request("GET", target, nil))
			if err != nil {
				continue // broken before a byte of it was sent
			}
			b, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err == nil {
				t.Errorf("%s: the client saw a whole body: %q", target, b)
			}
		}
		if n.Load() != before+2 {
			t.Errorf("%s: a broken body was stored", target)
		}
	}
	if st := g.cache.Stats(); st.Objects != 0 {
		t.Errorf("%d objects stored", st.Objects)
	}
	eventually(t, "the access log tells of aborted responses", func() bool {
		return strings.Count(g.access.String(), `"aborted":true`) == 8
	})
}

func TestRetryOnAnotherOrigin(t *testing.T) {
	bad, badly := counted(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	fine, _ := counted(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("Cache-Control", "no-store")
		_, _ = fmt.Fprintf(w, "%s %s", r.Method, b)
	})
	g := newRig(t, one("    pool: {breaker: {min_requests: 100000}, eject: {consecutive_errors: 0, error_rate: 0%}}\n    routes: [{match: {path: /*}, retry: {budget: 100%}}]", bad, fine), nil)
	for range 20 {
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			var body io.Reader
			want := method + " "
			if method == "PUT" {
				body, want = strings.NewReader("data"), "PUT data"
			}
			if resp, got := read(t, g.send(g.request(method, "/", body))); resp.StatusCode != 200 || got != want {
				t.Errorf("%s: %d %q", method, resp.StatusCode, got)
			}
		}
	}
	if badly.Load() == 0 {
		t.Fatal("the bad origin was never tried")
	}
	// A POST that may have arrived is not sent twice (RFC 9110 section 9.2.2).
	failed := 0
	for range 20 {
		resp, body := read(t, g.send(g.request("POST", "/", strings.NewReader("data"))))
		if resp.StatusCode == http.StatusBadGateway && strings.Contains(body, `"reset"`) {
			failed++
		}
	}
	if failed == 0 {
		t.Error("no POST failed: some must have been sent twice")
	}
}

// One origin of three that fails its requests costs no idempotent request, and its breaker soon spares it.
func TestOneBadOriginOfThree(t *testing.T) {
	for name, bad := range map[string]http.HandlerFunc{
		"500": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"cut": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		u, badly := counted(t, bad)
		hello := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }
		a, b := origin(t, hello), origin(t, hello)
		g := newRig(t, one("    pool: {breaker: {min_requests: 5, open: 10m}}\n", a, u, b), nil)
		const requests = 400
		var wg sync.WaitGroup
		var failed atomic.Int64
		for i := range 4 {
			wg.Go(func() {
				for k := range requests / 4 {
					resp, err := g.client().Do(g.request("GET", fmt.Sprintf("/%d/%d", i, k), nil))
					if err != nil {
						failed.Add(1)
						continue
					}
					body, _ := io.ReadAll(resp.Body)
					_ = resp.Body.Close()
					if string(body) != "hello" {
						failed.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if failed.Load() != 0 || badly.Load() > requests/10 {
			t.Errorf("%s: %d of %d requests failed; the bad origin got %d", name, failed.Load(), requests, badly.Load())
		}
	}
}

func TestPoolRefusals(t *testing.T) {
	hold := make(chan struct{})
	u := origin(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			select {
			case <-hold:
			case <-r.Context().Done():
			}
		case "/fail":
			w.WriteHeader(http.StatusInternalServerError)
		case "/header":
			w.Header().Set("X-Big", strings.Repeat("x", 4<<20))
		}
	})
	routes := "    routes: [{match: {path: /slow}, timeout: {first_byte: 50ms}, retry: {attempts: 1}}, {match: {path: /*}, cache: off}]\n"
	for _, c := range []struct {
		name, pool, path, first string
		status                  int
		error                   string
	}{
		{"timeout", "", "/slow", "", 504, "http_response_timeout"},
		{"breaker open", "    pool: {breaker: {min_requests: 1, open: 10m}}\n", "/", "/fail", 503, "destination_unavailable"},
		{"headers too large", "", "/header", "", 502, "connection_terminated"},
	} {
		g := newRig(t, one(c.pool+routes, u), nil)
		if c.first != "" {
			g.get("GET", c.first)
		}
		resp, body := g.get("GET", c.path)
		if resp.StatusCode != c.status || resp.Header.Get("Proxy-Status") != "landfall; error="+c.error {
			t.Errorf("%s: %d %s %s", c.name, resp.StatusCode, resp.Header.Get("Proxy-Status"), body)
		}
		if (resp.Header.Get("Retry-After") != "") != (c.status == 503) {
			t.Errorf("%s: Retry-After %q", c.name, resp.Header.Get("Retry-After"))
		}
	}
	close(hold)
}

// A stale response is better than an error where the origin allowed it (RFC 5861 section 4).
func TestStaleIfError(t *testing.T) {
	var down atomic.Bool
	u := origin(t, func(w http.ResponseWriter, _ *http.Request) {
		if down.Load() {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Cache-Control", "max-age=0, stale-if-error=60")
		w.Header().Set("Etag", `"v"`)
		_, _ = io.WriteString(w, "page")
	})
	g := newRig(t, one("", u), nil)
	g.get("GET", "/")
	down.Store(true)
	if resp, body := g.get("GET", "/"); resp.StatusCode != 200 || body != "page" {
		t.Errorf("%d %s %v", resp.StatusCode, body, resp.Header)
	}
}

func TestRefusalForErrors(t *testing.T) {
	badBody := errors.New("chunk of nonsense")
	p := &Proxy{o: Options{BadBody: badBody}}
	for _, c := range []struct {
		err  error
		want reason
	}{
		{errors.New("boom"), badGateway},
		{context.Canceled, clientGone},
		{fmt.Errorf("wrapped: %w", refused(noRegion, "x")), noRegion},
		{&upstream.Error{Cause: upstream.CauseTimeout, Err: errors.New("x")}, "timeout"},
		{&upstream.Error{Cause: upstream.CauseCanceled, Err: context.Canceled}, clientGone},
		{&upstream.Error{Cause: upstream.CauseCanceled, Err: fmt.Errorf("read the body: %w", badBody)}, malformed},
		{&upstream.Error{Cause: "from the future", Err: errors.New("x")}, badGateway},
		{&upstream.Error{Cause: upstream.CauseTooLarge, Err: &http.MaxBytesError{Limit: 1}}, bodyTooLarge},
	} {
		no := p.refusalFor(c.err)
		if no.reason != c.want || no.text == "" || bytes.Contains([]byte(no.text), []byte("boom")) {
			t.Errorf("%v: %+v, want %s", c.err, no, c.want)
		}
	}
}
