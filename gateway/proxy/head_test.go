package proxy

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

// RFC 9110 section 4.2.3: hosts are compared without case; RFC 3986 section 3.2 tells what an authority may be.
func TestNormalHost(t *testing.T) {
	for _, c := range []struct {
		host, want string
		ok         bool
	}{
		{"shop.test", "shop.test", true},
		{"SHOP.Test:8080", "shop.test", true},
		{"shop.test.", "shop.test", true},
		{"shop.test.:443", "shop.test", true},
		{"shop.test:", "shop.test", true}, // RFC 3986 section 3.2.3: the port may be empty
		{"_sip.shop.test", "_sip.shop.test", true},
		{"192.0.2.1:80", "192.0.2.1", true},
		{"[2001:DB8:0::1]:443", "[2001:db8::1]", true},
		{"[::ffff:192.0.2.1]", "[::ffff:192.0.2.1]", true},
		{"", "", false},
		{".", "", false},
		{"..", "", false},
		{"shop.test..", "", false},
		{".shop.test", "", false},
		{"shop..test", "", false},
		{"shop.test:99999", "", false},
		{"shop.test:0", "", false},
		{"shop.test:80:80", "", false},
		{"shop.test:+80", "", false},
		{"[fe80::1%25eth0]", "", false},
		{"[fe80::1%eth0]", "", false},
		{"[::1", "", false},
		{"[::1]x", "", false},
		{"[shop.test]", "", false},
		{"shop test", "", false},
		{"shop.test/x", "", false},
		{"user@shop.test", "", false},
		{"shöp.test", "", false},
		{"shop.test\x00", "", false},
		{strings.Repeat("a.", 126) + "test", "", false}, // over 253 bytes
	} {
		got, ok := normalHost(c.host)
		if ok != c.ok || ok && got != c.want {
			t.Errorf("normalHost(%q) = %q, %v; want %q, %v", c.host, got, ok, c.want, c.ok)
		}
	}
}

// RFC 3986 section 5.2.4 (dot segments), section 2.4 (an escaped slash is data) and 6.2.2.3.
func TestNormalPath(t *testing.T) {
	for _, c := range []struct {
		target, want string
		ok           bool
	}{
		{"/", "/", true},
		{"/a/b", "/a/b", true},
		{"/a/./b", "/a/b", true},
		{"/a/../b", "/b", true},
		{"/a/b/..", "/a/", true},
		{"/a/b/.", "/a/b/", true},
		{"/../../etc/passwd", "/etc/passwd", true},
		{"/a/%2e%2e/b", "/b", true},
		{"/a/%2E./b", "/b", true},
		{"/a/.%2e", "/", true},
		{"/a/%2e", "/a/", true},
		{"/a/...", "/a/...", true},
		{"/a/.b", "/a/.b", true},
		{"/a%2f..%2fb", "/a%2f..%2fb", true},
		{"/a%2F%2e%2e/b", "/a%2F%2e%2e/b", true}, // one segment whose data has a slash: not a dot segment
		{"/%61dmin/%4A%7e%2d%5F%30", "/admin/J~-_0", true},
		{"/%2561%41", "/%2561A", true},
		{"/a%252e%252e/b", "/a%252e%252e/b", true},
		{"//a//b", "//a//b", true},
		{"//a/../..//b", "//b", true},
		{"/a//../b", "/a/b", true},
		{"/%zz", "", false},
	} {
		u, err := url.ParseRequestURI(c.target)
		if err != nil {
			if c.ok {
				t.Errorf("%s: %v", c.target, err)
			}
			continue
		}
		u.Host = ""
		if strings.HasPrefix(c.target, "//") { // as http.ReadRequest reads it: a path, not an authority
			u = &url.URL{Path: c.target}
		}
		got, ok := normalPath(u)
		if ok != c.ok || got != c.want {
			t.Errorf("normalPath(%s) = %q, %v; want %q, %v", c.target, got, ok, c.want, c.ok)
		}
	}
	for name, u := range map[string]*url.URL{"relative": {Path: "a"}, "opaque": {Scheme: "http", Opaque: "shop.test"}} {
		if got, ok := normalPath(u); ok {
			t.Errorf("a path that is %s passed as %q", name, got)
		}
	}
}

func TestNormalURL(t *testing.T) {
	host, path, query, err := parseURL("HTTPS://Shop.Test:8443/a/../b%2fc?x=1&x=%20#frag")
	if host != "shop.test" || path != "/b%2fc" || query != "x=1&x=%20" || err != nil {
		t.Errorf("%q %q %q %v", host, path, query, err)
	}
	for _, bad := range []string{"", "/path", "shop.test/path", "ftp://shop.test/", "http://", "http://user:pw@shop.test/", "http:shop.test",
		"http://shop test/", "http://shop.test:0/", "http://%zz/", "http://[::1/"} {
		if host, path, _, err := parseURL(bad); err == nil {
			t.Errorf("parseURL(%q) = %q %q", bad, host, path)
		} else if strings.Contains(err.Error(), "pw") {
			t.Errorf("the error repeats a password: %v", err)
		}
	}
}

// The first address from the right that is not a trusted proxy's is the client; what is left of it was written by that
// client.
func TestClientBehindTrustedProxies(t *testing.T) {
	p := &Proxy{trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for _, c := range []struct {
		direct string
		list   []string
		want   string
	}{
		{"10.0.0.1", nil, "10.0.0.1"},
		{"10.0.0.1", []string{"203.0.113.7"}, "203.0.113.7"},
		{"10.0.0.1", []string{"203.0.113.7, 10.0.0.2"}, "203.0.113.7"},
		{"10.0.0.1", []string{"1.2.3.4, 203.0.113.7, 10.0.0.2"}, "203.0.113.7"},
		{"10.0.0.1", []string{"1.2.3.4", "203.0.113.7", "10.0.0.2"}, "203.0.113.7"},
		{"10.0.0.1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"10.0.0.1", []string{"::ffff:203.0.113.7"}, "203.0.113.7"},
		{"10.0.0.1", []string{"2001:db8::7"}, "2001:db8::7"},
		{"10.0.0.1", []string{"203.0.113.7, unknown"}, "10.0.0.1"},
		{"10.0.0.1", []string{"203.0.113.7, unknown, 10.0.0.2"}, "10.0.0.2"},
		{"10.0.0.1", []string{""}, "10.0.0.1"},
	} {
		got := p.clientBehind(netip.MustParseAddr(c.direct), http.Header{"X-Forwarded-For": c.list})
		if got.String() != c.want {
			t.Errorf("%v through %s: %s, want %s", c.list, c.direct, got, c.want)
		}
	}
}

func TestUpgradeOf(t *testing.T) {
	for _, c := range []struct {
		major      int
		connection string
		upgrade    string
		want       string
	}{
		{1, "Upgrade", "websocket", "websocket"},
		{1, "keep-alive, upgrade", "websocket", "websocket"},
		{1, "keep-alive", "websocket", ""},
		{2, "Upgrade", "websocket", ""},
		{1, "Upgrade, HTTP2-Settings", "h2c", ""},
		{1, "Upgrade", "H2C", ""},
		{1, "Upgrade", "foo, h2c", ""},
		{1, "Upgrade", "TLS/1.2, HTTP/2.0", ""},
		{1, "Upgrade", "", ""},
	} {
		r := &http.Request{ProtoMajor: c.major, Header: http.Header{"Connection": {c.connection}, "Upgrade": {c.upgrade}}}
		if got := upgradeOf(r); got != c.want {
			t.Errorf("HTTP/%d %q %q: %q, want %q", c.major, c.connection, c.upgrade, got, c.want)
		}
	}
}

func TestPeerHead(t *testing.T) {
	g := newRig(t, one("", "http://127.0.0.1:1"), nil)
	header := func(pairs ...string) http.Header {
		h := http.Header{headerHop: {"1"}, headerClient: {"192.0.2.7"}, headerService: {"web"}}
		for i := 0; i < len(pairs); i += 2 {
			h[pairs[i]] = []string{pairs[i+1]}
		}
		return h
	}
	for name, c := range map[string]struct {
		h    http.Header
		want reason
	}{
		"sound":            {header(), ""},
		"second hop":       {header(headerHop, "2"), ""},
		"hop too far":      {header(headerHop, "5"), hopLimit},
		"hop 0":            {header(headerHop, "0"), malformed},
		"hop no number":    {header(headerHop, "x"), malformed},
		"client no addr":   {header(headerClient, "shop.test"), malformed},
		"scheme nonsense":  {header(headerScheme, "gopher"), ""},
		"upgrade":          {header(headerUpgrade, "websocket"), ""},
		"loop of our own":  {header("Cdn-Loop", "landfall"), ""}, // the hop limit cuts loops inside the fleet
		"service unheard":  {header(headerService, "other"), unknownHost},
		"request id given": {header("X-Request-Id", "abc"), ""},
	} {
		r := &http.Request{Method: http.MethodPost, Host: "shop.test", URL: &url.URL{Path: "/"}, Header: c.h, ProtoMajor: 2}
		h, no := g.proxy.head(r, Conn{Peer: "us-1", TLS: true, RequestID: testID})
		if no == nil {
			_, no = g.proxy.route(h, nil)
		}
		switch {
		case no == nil && c.want != "" || no != nil && no.reason != c.want:
			t.Errorf("%s: %v, want %q", name, no, c.want)
		case no == nil && h.client.String() != "192.0.2.7":
			t.Errorf("%s: client %s", name, h.client)
		case name == "upgrade" && (h.method != http.MethodGet || h.upgrade != "websocket"):
			t.Errorf("%s: %+v", name, h)
		case name == "scheme nonsense" && h.scheme != "https":
			t.Errorf("%s: %+v", name, h)
		}
	}
}
