package proxy

import (
	"bufio"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"
)

func FuzzNormalHost(f *testing.F) {
	for _, s := range []string{"shop.test", "SHOP.test.:80", "[::1]:443", "[::ffff:1.2.3.4]", "a..b", ".", "x:0", "[fe80::1%25e]", "münchen.test", "a_b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, ok := normalHost(s)
		if !ok {
			return
		}
		wantHost(t, host)
		if again, ok := normalHost(host); !ok || again != host {
			t.Errorf("%q becomes %q, and that %q %v", s, host, again, ok)
		}
		if withPort, ok := normalHost(host + ":80"); !ok || withPort != host {
			t.Errorf("%q with a port is %q %v", host, withPort, ok)
		}
	})
}

// wantHost asserts what holds of every normal host.
func wantHost(t *testing.T, host string) {
	t.Helper()
	if v6, ok := strings.CutPrefix(host, "["); ok {
		a, err := netip.ParseAddr(strings.TrimSuffix(v6, "]"))
		if err != nil || a.Zone() != "" || "["+a.String()+"]" != host {
			t.Errorf("%q is no IPv6 literal: %v", host, err)
		}
		return
	}
	if host == "" || len(host) > 253 || host != strings.ToLower(host) || strings.ContainsAny(host, " :/\\@%?#\x00\r\n[]") {
		t.Errorf("%q is no host", host)
	}
	if slices.Contains(strings.Split(host, "."), "") {
		t.Errorf("%q has an empty label", host)
	}
}

// wantPath asserts what holds of every normal path.
func wantPath(t *testing.T, path string) {
	t.Helper()
	if path == "*" {
		return
	}
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "?# \x00\r\n") {
		t.Errorf("%q is no path", path)
	}
	for segment := range strings.SplitSeq(path, "/") {
		if s := strings.ReplaceAll(strings.ToLower(segment), "%2e", "."); s == "." || s == ".." {
			t.Errorf("%q has a dot segment", path)
		}
	}
	u := &url.URL{}
	setEscapedPath(u, path)
	if again, ok := normalPath(u); !ok || again != path {
		t.Errorf("%q becomes %q %v as a URL", path, again, ok)
	}
	if u.RequestURI() != path {
		t.Errorf("%q is sent as %q", path, u.RequestURI())
	}
}

func FuzzNormalURL(f *testing.F) {
	for _, s := range []string{"https://shop.test/a/../b?x=1", "http://[::1]:80/%2e%2e/x", "http://a//b/.", "http://a/%2f..%2f", "HTTP://A.b./;x#f", "http:x", "http://a/%", "http://a?"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, path, query, err := parseURL(s)
		if err != nil {
			return
		}
		wantHost(t, host)
		wantPath(t, path)
		again := "http://" + host + path
		if query != "" {
			again += "?" + query
		}
		if h, p, q, err := parseURL(again); err != nil || h != host || p != path || q != query {
			t.Errorf("%q becomes %q, and that %q %q %q %v", s, again, h, p, q, err)
		}
	})
}

func FuzzHead(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n",
		"GET /a/../b?x=%zz HTTP/1.1\r\nHost: SHOP.test:80\r\nX-Forwarded-For: 1.1.1.1, 10.0.0.1\r\nX-Forwarded-Proto: HTTPS\r\nX-Request-Id: a b\r\n\r\n",
		"GET http://shop.test//x HTTP/1.1\r\nHost: other\r\nCDN-Loop: x, landfall;a=\"b,c\"\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: shop.test\r\n\r\n",
		"GET //evil/%2e%2E/..%2f HTTP/1.0\r\nHost: [::1]\r\nConnection: upgrade, x-a\r\nUpgrade: h2c, websocket\r\nX-A: 1\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: shop.test\r\nLandfall-Hop: 1\r\nLandfall-Client: ::1\r\nLandfall-Service: web\r\nLandfall-Upgrade: x\r\n\r\n",
		"GET http:x HTTP/1.1\r\nHost: shop.test\r\n\r\n",
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	g := newRig(f, one("", "http://127.0.0.1:1"), nil)
	f.Fuzz(func(t *testing.T, raw []byte, peer bool) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(string(raw))))
		if err != nil {
			return
		}
		conn := Conn{Remote: netip.MustParseAddr("10.0.0.1"), RequestID: testID}
		if peer {
			conn.Peer, conn.TLS = "us-1", true
		}
		h, no := g.proxy.head(r, conn)
		if no != nil {
			if _, known := answers[no.reason]; !known {
				t.Errorf("refused for %q, which has no answer", no.reason)
			}
			return
		}
		wantHost(t, h.host)
		wantPath(t, h.path)
		if !h.client.IsValid() || h.id == "" || !httpguts.ValidHeaderFieldValue(h.id) || h.scheme != "http" && h.scheme != "https" {
			t.Errorf("%+v", h)
		}
		if !peer && slices.Contains(strings.Split(strings.ReplaceAll(strings.ToLower(h.upgrade), " ", ""), ","), "h2c") {
			t.Errorf("an upgrade to %q", h.upgrade)
		}
		if peer && (h.hop < 1 || h.hop > maxHops) || !peer && h.hop != 0 {
			t.Errorf("hop %d", h.hop)
		}
		wantOutbound(t, g.proxy, r, conn, h)
	})
}

// wantOutbound asserts what holds of every request that goes to an origin.
func wantOutbound(t *testing.T, p *Proxy, r *http.Request, conn Conn, h headResult) {
	t.Helper()
	x := &exchange{p: p, conn: conn, in: r, head: h, match: routeResult{service: p.hosts.named["web"]}}
	if h.hop == 0 {
		x.clean(r.Header)
	}
	out := x.outbound(r, "", false)
	for name := range out.Header {
		if strings.HasPrefix(name, headerPrefix) || name == "Connection" || name == "Transfer-Encoding" || name == "Keep-Alive" {
			t.Errorf("%s goes to the origin", name)
		}
	}
	for _, name := range []string{"X-Request-Id", "X-Forwarded-For", "Forwarded", "X-Real-Ip", "Cdn-Loop", "Via"} {
		for _, v := range out.Header[name] {
			if !httpguts.ValidHeaderFieldValue(v) {
				t.Errorf("%s: %q", name, v)
			}
		}
		if h.hop == 0 && len(out.Header[name]) != 1 {
			t.Errorf("%s has %d lines", name, len(out.Header[name]))
		}
	}
	if out.URL.EscapedPath() != h.path {
		t.Errorf("%q goes to the origin as %q", h.path, out.URL.EscapedPath())
	}
}
