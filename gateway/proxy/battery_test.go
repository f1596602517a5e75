package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// gullible is an origin that believes all that a client can say beside the URL, and shows it in its pages.
func gullible(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html")
	body, _ := io.ReadAll(r.Body)
	big := 0
	for _, values := range r.Header {
		for _, v := range values {
			big = max(big, len(v))
		}
	}
	override := r.Header.Get("X-Http-Method-Override") + r.Header.Get("X-Http-Method") + r.Header.Get("X-Method-Override")
	switch {
	case big > 4096: // the origin's bound is lower than the gateway's
		http.Error(w, "header too large", http.StatusBadRequest)
		return
	case override != "":
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Cache-Control", "max-age=60")
	path := r.URL.EscapedPath()
	if to := r.Header.Get("X-Original-Url") + r.Header.Get("X-Rewrite-Url"); to != "" {
		path = to
	}
	query := r.URL.Query()
	for part := range strings.SplitSeq(r.URL.RawQuery, ";") { // some split there
		if name, value, ok := strings.Cut(part, "="); ok && name == "q" {
			query.Set("q", value)
		}
	}
	host := r.Host
	for _, name := range []string{"X-Host", "X-Original-Host", "X-Forwarded-Server"} {
		if v := r.Header.Get(name); v != "" {
			host = v
		}
	}
	fmt.Fprintf(w, "%s %s://%s%s%s%s q=%s %s", r.Method, r.Header.Get("X-Forwarded-Proto"), host, r.Header.Get("X-Forwarded-Port"), r.Header.Get("X-Forwarded-Prefix"), path,
		query.Get("q"), body)
}

// TestPoisoningBattery sends what attackers send (Kettle's "Practical Web Cache Poisoning" and "Web Cache Entanglement",
// Nguyen's "CPDoS", Gil's "Web Cache Deception") through the whole chain, and then asks as an honest client does: it must
// get what it would have got from an empty cache.
func TestPoisoningBattery(t *testing.T) {
	const routes = "\n    routes: [{cache: {key: {query: {ignore: [utm_*]}}}}]"
	long := strings.Repeat("a", 5000)
	for _, c := range []struct {
		name         string
		method, path string
		body         string
		header       []string
	}{
		{"unkeyed X-Forwarded-Host", "GET", "/p", "", []string{"X-Forwarded-Host", "evil.test"}},
		{"unkeyed X-Host", "GET", "/p", "", []string{"X-Host", "evil.test", "X-Original-Host", "evil.test"}},
		{"unkeyed X-Forwarded-Server", "GET", "/p", "", []string{"X-Forwarded-Server", "evil.test"}},
		{"unkeyed X-Forwarded-Proto", "GET", "/p", "", []string{"X-Forwarded-Proto", "evil", "X-Forwarded-Scheme", "evil"}},
		{"unkeyed Forwarded", "GET", "/p", "", []string{"Forwarded", "host=evil.test;proto=evil"}},
		{"unkeyed port", "GET", "/p", "", []string{"X-Forwarded-Port", ":666"}},
		{"unkeyed prefix", "GET", "/p", "", []string{"X-Forwarded-Prefix", "/evil"}},
		{"lookalike fields", "GET", "/p", "", []string{"X_Host", "evil.test", "X_Forwarded_Proto", "evil"}},
		{"URL override", "GET", "/p", "", []string{"X-Original-Url", "/evil", "X-Rewrite-Url", "/evil"}},
		{"method override", "GET", "/p", "", []string{"X-Http-Method-Override", "POST"}},
		{"method override by other names", "GET", "/p", "", []string{"X-Http-Method", "DELETE", "X-Method-Override", "PUT"}},
		{"fat GET", "GET", "/p", "q=evil", nil},
		{"fat GET, one byte at a time", "GET", "/p", "evil", []string{"Transfer-Encoding", "chunked"}},
		{"cloaked parameter", "GET", "/p?utm_x=1;q=evil", "", nil},
		{"ignored parameter", "GET", "/p?utm_x=<script>", "", nil},
		{"ignored parameter, encoded", "GET", "/p?utm%5Fx=evil", "", nil},
		{"oversized header", "GET", "/p", "", []string{"X-Oversized", long}},
		{"oversized cookie", "GET", "/p", "", []string{"Cookie", "a=" + long}},
		{"range", "GET", "/p", "", []string{"Range", "bytes=0-0"}},
		{"condition", "GET", "/p", "", []string{"If-None-Match", "*"}},
		{"client's directives", "GET", "/p", "", []string{"Cache-Control", "no-store, max-age=0", "Pragma", "no-cache"}},
		{"coding", "GET", "/p", "", []string{"Accept-Encoding", "evil;q=1, identity;q=0"}},
		{"HEAD", "HEAD", "/p", "", nil},
		{"OPTIONS", "OPTIONS", "/p", "", nil},
		{"unknown method", "FROB", "/p", "evil", nil},
		{"Host in capitals and with a port", "GET", "/p", "", []string{"Host", "SHOP.test:80"}},
		{"Host with a dot", "GET", "/p", "", []string{"Host", "shop.test."}},
		{"path: escaped slash", "GET", "/x%2f..%2fp", "", nil},
		{"path: dots", "GET", "/x/../p", "", nil},
		{"path: escaped dots", "GET", "/x/%2e%2e/p", "", nil},
		{"path: two slashes", "GET", "//p", "", nil},
		{"path: backslash", "GET", "/x%5c..%5cp", "", nil},
		{"path: parameter", "GET", "/p;evil", "", nil},
		{"path: fragment", "GET", "/p%23evil", "", nil},
		{"path: null byte", "GET", "/p%00evil", "", nil},
		{"path: escaped letter", "GET", "/%70", "", nil},
		{"path: escaped query", "GET", "/p%3fq=evil", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, _ := counted(t, gullible)
			clean := newRig(t, one(routes, u), nil)
			want := bodyOf(t, send(t, clean, "GET", "/p"))
			g := newRig(t, one(routes, u), nil)
			attack(t, g, c.method, c.path, c.body, c.header)
			for range 2 {
				resp := send(t, g, "GET", "/p")
				if got := bodyOf(t, resp); got != want || resp.StatusCode != http.StatusOK || strings.Contains(got, "evil") {
					t.Errorf("an honest client gets %d %q, want %q (%s)", resp.StatusCode, got, want, resp.Header.Get("Cache-Status"))
				}
			}
		})
	}
}

func attack(t *testing.T, g *rig, method, path, body string, header []string) {
	t.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	r, err := http.NewRequest(method, g.h1.URL, in)
	if err != nil {
		t.Fatal(err)
	}
	r.URL.Opaque = "//" + r.URL.Host + path // as it is written
	r.Host = "shop.test"
	for i := 0; i+1 < len(header); i += 2 {
		switch header[i] {
		case "Host":
			r.Host = header[i+1]
		case "Transfer-Encoding":
			r.ContentLength = -1
		default:
			r.Header.Add(header[i], header[i+1])
		}
	}
	resp, err := g.h1.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
}

// Web cache deception: a private page under a name that looks like a static file is not stored, since only what the origin
// says decides.
func TestDeception(t *testing.T) {
	u, n := counted(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/css")
		w.Header().Set("Cache-Control", "private")
		fmt.Fprint(w, r.Header.Get("Cookie"))
	})
	g := newRig(t, one("\n    routes: [{cache: {ttl: 1h}}]", u), nil)
	bodyOf(t, send(t, g, "GET", "/account/x.css", "Cookie", "session=victim"))
	if got := bodyOf(t, send(t, g, "GET", "/account/x.css", "Cookie", "session=attacker")); got != "session=attacker" || n.Load() != 2 {
		t.Errorf("got %q after %d requests", got, n.Load())
	}
}
