package proxy

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"landfall/routing/geo"
)

// recorder is an origin that hands over what it was sent.
func recorder(t testing.TB) (url string, got <-chan *http.Request) {
	c := make(chan *http.Request, 16)
	return origin(t, func(w http.ResponseWriter, r *http.Request) {
		c <- r.Clone(r.Context())
		w.Header().Set("Cache-Control", "no-store")
	}), c
}

// RFC 9110 section 7.6.1: what Connection lists, and the fields of the hop, end here in both directions.
func TestHopByHopEnds(t *testing.T) {
	got := make(chan http.Header, 1)
	u := origin(t, func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header.Clone()
		h := w.Header()
		for _, name := range []string{"Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "X-Listed"} {
			h.Set(name, "x")
		}
		h.Set("Connection", "X-Listed")
		h.Set("Landfall-No-Pool", "connect") // an origin must not talk like a node
		h.Set("Landfall-Status", "101")
		h.Set("X-Kept", "y")
		h.Set("Cache-Control", "no-store")
	})
	g := newRig(t, one("", u), nil)
	resp, _ := g.get("GET", "/", "Connection: X-Secret, x-forwarded-for, close", "X-Secret: 1", "Keep-Alive: timeout=5", "Proxy-Authorization: Basic eDp5",
		"Proxy-Connection: keep-alive", "Te: trailers, deflate", "Trailer: X-T", "X-Kept: y", "Landfall-Hop: 1", "landfall-client: 192.0.2.9", "Landfall-Debug: token")
	h := receive(t, "the origin's request", got)
	for _, name := range []string{"Connection", "X-Secret", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Trailer", "Upgrade", "Landfall-Hop", "Landfall-Client", "Landfall-Debug"} {
		if v, ok := h[name]; ok {
			t.Errorf("the origin got %s: %v", name, v)
		}
	}
	if h.Get("Te") != "trailers" || h.Get("X-Kept") != "y" {
		t.Errorf("TE %q, X-Kept %q", h.Get("Te"), h.Get("X-Kept"))
	}
	if h.Get("X-Forwarded-For") != "127.0.0.1" {
		t.Error("a client's Connection field removed X-Forwarded-For")
	}
	for _, name := range []string{"Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "X-Listed", "Landfall-No-Pool", "Landfall-Status"} {
		if v, ok := resp.Header[name]; ok {
			t.Errorf("the client got %s: %v", name, v)
		}
	}
	if resp.Header.Get("X-Kept") != "y" || resp.Header.Get("Via") != "1.1 landfall" {
		t.Errorf("%v", resp.Header)
	}
}

func TestForwardingHeaders(t *testing.T) {
	u, got := recorder(t)
	g := newRig(t, one("", u), nil)
	g.place = geo.Place{Country: "IE"}
	theirs := []string{"X-Forwarded-For: 1.1.1.1", "Forwarded: for=1.1.1.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil.test",
		"X-Real-Ip: 1.1.1.1", "X-Request-Id: theirs", "X-Client-Country: US", "Via: 1.0 fred", "Cdn-Loop: other; x=1"}
	for name, c := range map[string]struct {
		from, target string
		host         string
		want         map[string]string
	}{
		"untrusted": {from: "203.0.113.7", target: "/", want: map[string]string{
			"X-Forwarded-For": "203.0.113.7", "Forwarded": "for=203.0.113.7;host=shop.test;proto=http", "X-Forwarded-Proto": "http",
			"X-Forwarded-Host": "shop.test", "X-Real-Ip": "203.0.113.7", "X-Request-Id": testID, "X-Client-Country": "IE",
			"Via": "1.0 fred, 1.1 landfall", "Cdn-Loop": "other; x=1, landfall"}},
		"trusted": {from: "10.1.2.3", target: "/", want: map[string]string{
			"X-Forwarded-For": "1.1.1.1, 10.1.2.3", "Forwarded": "for=1.1.1.1, for=10.1.2.3;host=shop.test;proto=https",
			"X-Forwarded-Proto": "https", "X-Real-Ip": "1.1.1.1", "X-Request-Id": "theirs"}},
		"h2": {from: "203.0.113.7", target: "https:///", want: map[string]string{
			"Forwarded": "for=203.0.113.7;host=shop.test;proto=https", "X-Forwarded-Proto": "https", "Via": "1.0 fred, 2.0 landfall"}},
		"IPv6 and a port": {from: "2001:db8::7", target: "/", host: "shop.test:8080", want: map[string]string{
			"Forwarded": `for="[2001:db8::7]";host="shop.test:8080";proto=http`, "X-Forwarded-Host": "shop.test:8080", "X-Real-Ip": "2001:db8::7"}},
		"mapped": {from: "::ffff:203.0.113.7", target: "/", want: map[string]string{"X-Forwarded-For": "203.0.113.7"}},
	} {
		g.from(c.from)
		header := slices.Clone(theirs)
		if c.host != "" {
			header = append(header, "Host: "+c.host)
		}
		g.get("GET", c.target, header...)
		r := receive(t, name, got)
		for field, want := range c.want {
			if v := strings.Join(r.Header[field], " | "); v != want {
				t.Errorf("%s: %s is %q, want %q", name, field, v, want)
			}
		}
	}
}

// W3C Trace Context section 3.2: a valid traceparent goes on, anything else is started anew without its tracestate.
// What frameworks believe of the way that a request came is the word of a trusted proxy, or is not said. (Requests that the
// cache may answer have none of it in any case, as it would tell two pages apart that have one key.)
func TestOnlyTrustedProxiesTellOfTheWay(t *testing.T) {
	u, got := recorder(t)
	g := newRig(t, one("", u), nil)
	fields := []string{"X-Forwarded-Port: 666", "X-Forwarded-Prefix: /evil", "X-Forwarded-Ssl: on", "X-Forwarded-Next: new", "Front-End-Https: on"}
	for from, kept := range map[string]bool{"203.0.113.7": false, "10.1.2.3": true} {
		g.from(from)
		g.get("POST", "/", fields...)
		r := receive(t, from, got)
		for _, f := range fields {
			name, value, _ := strings.Cut(f, ": ")
			if v := r.Header.Get(name); kept && v != value || !kept && v != "" {
				t.Errorf("from %s: %s is %q", from, name, v)
			}
		}
	}
}

func TestTraceparent(t *testing.T) {
	u, got := recorder(t)
	g := newRig(t, one("", u), nil)
	valid := "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	ours := "00-" + testID + "-" + testID[16:] + "-00"
	for sent, want := range map[string]string{
		valid: valid, "": ours, "00-xyz": ours, strings.ToUpper(valid): ours, valid + "-x": ours,
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01": ours, "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01": ours,
	} {
		header := []string{"Tracestate: a=b"}
		if sent != "" {
			header = append(header, "Traceparent: "+sent)
		}
		g.get("GET", "/", header...)
		r := receive(t, sent, got)
		if v := r.Header.Get("Traceparent"); v != want {
			t.Errorf("%q became %q, want %q", sent, v, want)
		}
		if kept := r.Header.Get("Tracestate") != ""; kept != (sent == valid) {
			t.Errorf("%q: tracestate kept: %v", sent, kept)
		}
	}
}

func TestRequestIDFromTrustedProxyIsBounded(t *testing.T) {
	u, got := recorder(t)
	g := newRig(t, one("", u), nil)
	g.from("10.0.0.1")
	for sent, want := range map[string]string{"abc": "abc", strings.Repeat("x", 128): strings.Repeat("x", 128), strings.Repeat("x", 129): testID} {
		g.get("GET", "/", "X-Request-Id: "+sent)
		if v := receive(t, "a request", got).Header.Get("X-Request-Id"); v != want {
			t.Errorf("%.20q became %.20q", sent, v)
		}
	}
}

// RFC 8586 section 2: a request that has been here before is refused.
func TestCDNLoop(t *testing.T) {
	u, got := recorder(t)
	g := newRig(t, one("", u), nil)
	for loop, want := range map[string]int{
		"landfall": 508, "other, landfall": 508, "other; x=1, Landfall ; y=2": 508, "": 200, "other": 200, "landfall2": 200, "x-landfall; landfall=1": 200,
	} {
		resp, body := g.get("GET", "/", "Cdn-Loop: "+loop)
		if resp.StatusCode != want {
			t.Errorf("%q: %d, want %d", loop, resp.StatusCode, want)
		}
		if want == 508 && resp.Header.Get("Proxy-Status") != "landfall; error=proxy_loop_detected" {
			t.Errorf("%v %s", resp.Header, body)
		}
		if want == 200 {
			receive(t, loop, got)
		}
	}
}

// What matched a route is what the origin gets.
func TestPathAsMatched(t *testing.T) {
	u, got := recorder(t)
	g := newRig(t, one("", u), nil)
	for sent, want := range map[string]string{
		"/a/../b?x=1&y=%20": "/b?x=1&y=%20", "/a%2fb": "/a%2fb", "/%2e%2e/secret": "/secret", "//a//b": "/a/b", "/a%20b": "/a%20b",
		"/%7Euser": "/~user", "/a:b@c": "/a:b@c", "/a?": "/a", "/%E2%82%AC": "/%E2%82%AC", "/a;v=1/../b": "/b", "//evil.test/x": "/evil.test/x",
	} {
		r := g.request("GET", "/", nil)
		path, query, _ := strings.Cut(sent, "?")
		setEscapedPath(r.URL, path)
		r.URL.RawQuery = query
		_, _ = read(t, g.send(r))
		if v := receive(t, sent, got).RequestURI; v != want {
			t.Errorf("%s reached the origin as %s, want %s", sent, v, want)
		}
	}
}

func TestErrorPages(t *testing.T) {
	dead := refusing(t)
	g := newRig(t, one("", dead), nil)
	for _, accept := range []string{"", "application/json", "text/html,application/xhtml+xml;q=0.9", "*/*"} {
		resp, body := g.get("POST", "/<script>", "Accept: "+accept)
		h := resp.Header
		if resp.StatusCode != http.StatusBadGateway || h.Get("Proxy-Status") != "landfall; error=connection_refused" || h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", accept, resp.StatusCode, h)
		}
		if !strings.Contains(body, testID) || strings.Contains(body, "127.0.0.1") || strings.Contains(body, "script") {
			t.Errorf("%s: %s", accept, body)
		}
		wantHTML := strings.HasPrefix(accept, "text/html")
		if isHTML := strings.HasPrefix(h.Get("Content-Type"), "text/html") && strings.HasPrefix(body, "<!doctype html>"); isHTML != wantHTML {
			t.Errorf("%s: %s %s", accept, h.Get("Content-Type"), body)
		}
		if !wantHTML && !json.Valid([]byte(body)) {
			t.Errorf("%s: not JSON: %s", accept, body)
		}
	}
	resp, body := g.get("HEAD", "/")
	if resp.StatusCode != http.StatusBadGateway || body != "" || resp.ContentLength <= 0 {
		t.Errorf("HEAD: %d %q, length %d", resp.StatusCode, body, resp.ContentLength)
	}
	if log := g.access.String(); !strings.Contains(log, `"refusal":"connect"`) || !strings.Contains(log, strings.TrimPrefix(dead, "http://")) {
		t.Errorf("the log does not name the cause and the origin: %s", log)
	}
}

// Every reason has an answer and a text of its own.
func TestEveryRefusalHasAnAnswer(t *testing.T) {
	for r, a := range answers {
		if a.status < 400 || a.proxyStatus == "" {
			t.Errorf("%s: %+v", r, a)
		}
	}
	for r := range causeTexts {
		if _, ok := answers[r]; !ok {
			t.Errorf("%s has a text and no answer", r)
		}
	}
}

func TestRedirectToHTTPS(t *testing.T) {
	u, got := recorder(t)
	for port, want := range map[string]string{"443": "https://shop.test/b?x=%20", "8443": "https://shop.test:8443/b?x=%20"} {
		g := newRig(t, one("", u), func(o *Options) {
			o.HTTPSPort, o.HasCert = port, func(host string) bool { return host == "shop.test" }
		})
		resp, _ := g.get("POST", "/a/../b?x=%20", "Host: Shop.test:80")
		if resp.StatusCode != http.StatusPermanentRedirect || resp.Header.Get("Location") != want {
			t.Errorf("%d %q, want %s", resp.StatusCode, resp.Header.Get("Location"), want)
		}
		for _, r := range []*http.Request{
			g.request("GET", "https:///", nil), g.request("GET", "/", nil, "Host: a.shop.test"), // no certificate
		} {
			if resp := g.send(r); resp.StatusCode != http.StatusOK {
				t.Errorf("%s of %s: %d", r.URL, r.Host, resp.StatusCode)
			}
			receive(t, "a request", got)
		}
		g.from("10.0.0.1")
		if resp, _ := g.get("GET", "/", "X-Forwarded-Proto: https"); resp.StatusCode != http.StatusOK {
			t.Errorf("behind a trusted proxy that ended TLS: %d", resp.StatusCode)
		}
		receive(t, "a request", got)
	}
}

func TestDebugHeaders(t *testing.T) {
	u := origin(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Cache-Control", "max-age=60") })
	g := newRig(t, one("", u), nil)
	for i, phase := range []string{"pool;dur=", "cache;dur="} {
		resp, _ := g.get("GET", "/")
		h := resp.Header
		if h.Get("X-Landfall-Region") != "local" || h.Get("X-Landfall-Node") != "local-1" || h.Get("X-Request-Id") != testID ||
			!strings.HasPrefix(h.Get("Server-Timing"), phase) {
			t.Errorf("request %d: %v", i, h)
		}
	}
	g = newRig(t, strings.Replace(one("", u), "debug: true", "debug: false", 1), nil)
	resp, _ := g.get("GET", "/")
	for name := range resp.Header {
		if strings.HasPrefix(name, "X-Landfall") || name == "Server-Timing" || name == "X-Request-Id" {
			t.Errorf("without debug: %s", name)
		}
	}
}

func TestStripInternalKeepsTheRest(t *testing.T) {
	h := httptest.NewRecorder().Header()
	h.Set("Landfall-Hop", "1")
	h.Set("Landfall", "kept")
	h.Set("X-Landfall-Region", "kept")
	stripInternal(h)
	if len(h) != 2 {
		t.Error(h)
	}
}
