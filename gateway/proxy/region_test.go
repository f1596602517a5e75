package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"

	"landfall/routing"
)

// down tells a rig's pool that all of its origins are down.
func (g *rig) down() {
	pool := g.proxy.o.Pools["web"]
	for _, o := range pool.Status().Origins {
		pool.SetState(o.URL, routing.Down)
	}
}

func served(region string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("Cache-Control", "no-store")
		_, _ = fmt.Fprintf(w, "%s %s by %s", r.Method, b, region)
	}
}

// With its own pool down a node serves through the next region, and the origin there learns of the client what the first
// node knew.
func TestServedByAnotherRegion(t *testing.T) {
	got := make(chan *http.Request, 1)
	u := origin(t, func(w http.ResponseWriter, r *http.Request) {
		got <- r.Clone(r.Context())
		w.Header().Set("Content-Type", "image/png") // not compressed here
		w.Header().Set("Trailer", "X-T")
		_, _ = io.WriteString(w, "by us")
		w.Header().Set("X-T", "end")
	})
	p := newPair(t, two(refusing(t), u))
	p.eu.down()
	p.eu.from("203.0.113.7")
	for _, target := range []string{"/a/../b%2fc?x=1", "https:///b%2fc?x=1"} {
		resp, body := p.eu.get("GET", target, "Cdn-Loop: other", "Accept-Encoding: gzip")
		if body != "by us" || resp.Header.Get("X-Landfall-Region") != "eu" || resp.Trailer.Get("X-T") != "end" ||
			resp.Header.Get("Via") != "1.1 landfall, 2.0 landfall" || !strings.Contains(resp.Header.Get("Server-Timing"), "region;dur=") {
			t.Errorf("%q %v trailer %v", body, resp.Header, resp.Trailer)
		}
		r := receive(t, "the origin's request", got)
		if r.Host != "shop.test" || r.RequestURI != "/b%2fc?x=1" || r.Header.Get("X-Forwarded-For") != "203.0.113.7" ||
			r.Header.Get("Cdn-Loop") != "other, landfall" || r.Header.Get("X-Request-Id") != testID || r.Header.Get("Accept-Encoding") != "gzip" {
			t.Errorf("%s %s %v", r.Host, r.RequestURI, r.Header)
		}
		want := "http"
		if strings.HasPrefix(target, "https") {
			want = "https"
		}
		if r.Header.Get("X-Forwarded-Proto") != want {
			t.Errorf("the scheme became %s", r.Header.Get("X-Forwarded-Proto"))
		}
		for name := range r.Header {
			if strings.HasPrefix(name, headerPrefix) {
				t.Errorf("the origin got %s", name)
			}
		}
		for name := range resp.Header {
			if strings.HasPrefix(name, headerPrefix) {
				t.Errorf("the client got %s", name)
			}
		}
	}
}

// What another region served is cached by the node that the client is connected to.
func TestAnotherRegionsAnswerIsCachedHere(t *testing.T) {
	u, n := counted(t, cacheable)
	p := newPair(t, two(refusing(t), u))
	p.eu.down()
	for range 3 {
		if resp, body := p.eu.get("GET", "/p"); body != page {
			t.Errorf("%d, %d bytes", resp.StatusCode, len(body))
		}
	}
	if n.Load() != 1 || p.us.cache.Stats().Objects != 0 {
		t.Errorf("%d requests at the origin, %d objects at the other node", n.Load(), p.us.cache.Stats().Objects)
	}
}

// A pool that fails before its health says so costs no request that nothing was sent of, or that may be sent twice.
func TestPoolFailsBeforeItsHealthSaysSo(t *testing.T) {
	cut := func(t *testing.T) string {
		return origin(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	}
	stream := func() io.Reader { return struct{ io.Reader }{strings.NewReader("data")} }
	known := func() io.Reader { return strings.NewReader("data") }
	big := func() io.Reader { return strings.NewReader(strings.Repeat("x", 200_000)) }
	none := func() io.Reader { return nil }
	for _, c := range []struct {
		name   string
		eu     string
		method string
		body   func() io.Reader
		ok     bool
	}{
		{"refused GET", refusing(t), "GET", none, true},
		{"refused POST", refusing(t), "POST", none, true},
		{"refused POST with a body", refusing(t), "POST", known, true},
		{"refused POST with a stream", refusing(t), "POST", stream, true},
		{"refused POST with a big body", refusing(t), "POST", big, true},
		{"cut GET", cut(t), "GET", none, true},
		{"cut PUT with a body", cut(t), "PUT", known, true},
		{"cut POST", cut(t), "POST", none, false},
		{"cut POST with a body", cut(t), "POST", known, false},
	} {
		p := newPair(t, two(c.eu, origin(t, served("us"))))
		resp, body := read(t, p.eu.send(p.eu.request(c.method, "/", c.body())))
		if ok := resp.StatusCode == http.StatusOK && strings.HasSuffix(body, "by us"); ok != c.ok {
			t.Errorf("%s: %d %.100s", c.name, resp.StatusCode, body)
		}
		if c.ok && c.body() != nil {
			if want, _ := io.ReadAll(c.body()); !strings.Contains(body, string(want)) {
				t.Errorf("%s: the other region got another body: %.100s", c.name, body)
			}
		}
	}
}

// With every pool down each is tried at last: the observer may be wrong, and no request runs in circles.
func TestEveryRegionDown(t *testing.T) {
	p := newPair(t, two(origin(t, served("eu")), refusing(t)))
	p.eu.down()
	p.us.down()
	if resp, body := p.eu.get("GET", "/"); body != "GET  by eu" {
		t.Errorf("eu: %d %s", resp.StatusCode, body)
	}
	if resp, body := p.us.get("GET", "/"); body != "GET  by eu" {
		t.Errorf("us: %d %s", resp.StatusCode, body)
	}
	p = newPair(t, two(refusing(t), refusing(t)))
	p.eu.down()
	p.us.down()
	resp, body := p.eu.get("GET", "/")
	if resp.StatusCode != http.StatusBadGateway || strings.Contains(body, "127.0.0.1") {
		t.Errorf("all refuse: %d %s", resp.StatusCode, body)
	}
	for name := range resp.Header {
		if strings.HasPrefix(name, headerPrefix) {
			t.Errorf("the client got %s", name)
		}
	}
}

func TestServiceWithoutAPoolHere(t *testing.T) {
	yaml := strings.Replace(two("http://127.0.0.1:1", origin(t, served("us"))), "eu: {origins: [http://127.0.0.1:1]}, ", "", 1)
	p := newPair(t, yaml)
	if resp, body := p.eu.get("POST", "/"); body != "POST  by us" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	alone := newRig(t, yaml, func(o *Options) { o.Region = "eu" })
	if resp, body := alone.get("GET", "/"); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "no_region") {
		t.Errorf("without peers: %d %s", resp.StatusCode, body)
	}
}

// An origin that answers, however badly, has answered: another region is not asked.
func TestAnOriginsErrorIsItsAnswer(t *testing.T) {
	var asked atomic.Bool
	p := newPair(t, two(origin(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }),
		origin(t, func(http.ResponseWriter, *http.Request) { asked.Store(true) })))
	if resp, _ := p.eu.get("GET", "/"); resp.StatusCode != http.StatusInternalServerError || asked.Load() {
		t.Errorf("%d, other region asked: %v", resp.StatusCode, asked.Load())
	}
}

// A region that refuses (its node is gone) is passed over for the one behind it.
func TestDeadNodeIsPassedOver(t *testing.T) {
	yaml := `
regions: {ap: {}, eu: {}, us: {}}
services:
  web:
    hosts: [shop.test]
    pools: {ap: {origins: ["http://127.0.0.1:1"]}, eu: {origins: [` + refusing(t) + `]}, us: {origins: [` + origin(t, served("us")) + `]}}
`
	p := newPair(t, yaml) // nobody listens for ap-1
	for i := range 8 {    // whichever region comes first for a client
		p.eu.down()
		p.eu.from(fmt.Sprintf("203.0.%d.7", i))
		if resp, body := p.eu.get("POST", "/"); body != "POST  by us" {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}
}

func TestStreamsThroughAnotherRegion(t *testing.T) {
	next, ended := make(chan struct{}), make(chan struct{}, 2)
	p := newPair(t, two(refusing(t), origin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.Header().Set("Content-Type", "text/event-stream")
		defer func() { ended <- struct{}{} }()
		for i := 0; ; i++ {
			_, _ = fmt.Fprintf(w, "data: %d\n", i)
			w.(http.Flusher).Flush()
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
		}
	})))
	p.eu.down()
	for _, target := range []string{"/", "https:///"} {
		hinted := make(chan string, 2)
		r := p.eu.request("GET", target, nil)
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hinted <- h.Get("Link")
			return nil
		}}))
		resp := p.eu.send(r)
		if got := receive(t, "a hint", hinted); got != "</a.css>; rel=preload" {
			t.Errorf("hint %q", got)
		}
		lines := bufio.NewReader(resp.Body)
		for i := range 3 {
			if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintf("data: %d\n", i) {
				t.Fatalf("%s: event %d: %q %v", target, i, line, err)
			}
			next <- struct{}{}
		}
		_ = resp.Body.Close()
		receive(t, "the end at the origin, which would take the next one's events", ended)
	}
}

// A body that breaks off in another region breaks off for the client.
func TestBrokenBodyThroughAnotherRegion(t *testing.T) {
	p := newPair(t, two(refusing(t), origin(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})))
	p.eu.down()
	if resp, err := p.eu.client().Do(p.eu.request("GET", "/", nil)); err == nil {
		if b, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("a whole body: %q", b)
		}
		_ = resp.Body.Close()
	}
	if n := p.eu.cache.Stats().Objects; n != 0 {
		t.Errorf("%d objects stored", n)
	}
}

// A request of an old generation meets the snapshot of a new one, whose services may be others: names decide.
func TestSnapshotOfAnotherConfig(t *testing.T) {
	for name, services := range map[string][]string{"gone": {}, "moved": {"aaa", "web"}, "another in its place": {"aaa"}} {
		var s atomic.Pointer[routing.Snapshot]
		p := newPair(t, two(refusing(t), origin(t, served("us"))))
		s.Store(p.eu.proxy.o.Snapshot())
		p.eu.proxy.o.Snapshot = s.Load
		next := routing.Snapshot{Regions: s.Load().Regions, AllDown: -1, Panic: 0.5}
		for _, svc := range services {
			next.Services = append(next.Services, routing.Service{Name: svc, Places: []routing.Place{{HasPool: true, Weight: 1}, {HasPool: svc == "web", Weight: 1}}})
		}
		s.Store(routing.NewSnapshot(next))
		p.eu.down()
		resp, body := p.eu.get("GET", "/")
		if ok := body == "GET  by us"; ok != (name == "moved") || !ok && resp.StatusCode != http.StatusBadGateway {
			t.Errorf("%s: %d %s", name, resp.StatusCode, body)
		}
	}
}

// A request body that breaks the grammar is the client's fault, a 400, and no sign that it left.
func TestMalformedBody(t *testing.T) {
	bad := errors.New("malformed chunk")
	g := newRig(t, one("", origin(t, served("here"))), func(o *Options) { o.BadBody = bad })
	listener := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")                                          // as gateway/server does behind such a body
		r.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, 3), failing{bad})) // as gateway/server tells it
		g.ServeHTTP(w, r)
	}))
	defer listener.Close()
	for name, body := range map[string]io.Reader{"known": strings.NewReader("abcdef"), "chunked": struct{ io.Reader }{strings.NewReader("abcdef")}} {
		r := g.request("POST", "/", body)
		r.URL.Host = listener.Listener.Addr().String()
		if resp, text := read(t, g.send(r)); resp.StatusCode != http.StatusBadRequest || !strings.Contains(text, "malformed") {
			t.Errorf("%s: %d %s", name, resp.StatusCode, text)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
