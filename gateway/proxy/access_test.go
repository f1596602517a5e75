package proxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"landfall/configs"
)

// echo tells what the origin saw of the request line and some headers.
func echoOrigin(t *testing.T) string {
	return origin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Server", "secret/1.0")
		w.Header().Set("Access-Control-Allow-Origin", "http://evil.example")
		_, _ = fmt.Fprintf(w, "%s %s host=%s edge=%q debug=%q auth=%q", r.Method, r.RequestURI, r.Host, r.Header.Get("X-Edge"), r.Header.Get("X-Debug"), r.Header.Get("Authorization"))
	})
}

func TestShaping(t *testing.T) {
	g := newRig(t, one(`
    routes:
      - match: {path: /old/*}
        redirect: {to: "https://{host}/new{path}{query}"}
      - match: {path: /robots.txt}
        respond: {body: "User-agent: *", status: 203}
      - match: {path: /api/*}
        rewrite: {strip_prefix: /api, add_prefix: /v2, host: api.internal, query: {via: edge, secret: ""}}
        headers: {request: {set: {X-Edge: landfall}, remove: [X-Debug]}, response: {set: {X-Frame-Options: DENY}, remove: [Server]}}
      - match: {path: /apis}
        rewrite: {strip_prefix: /api}
      - match: {path: /cors/*}
        cors: {origins: ["https://app.example"], credentials: true, expose: [X-Total]}
      - match: {path: /write/*, methods: [PUT]}
        cors: {origins: ["https://app.example"]}
      - match: {path: /empty}
        respond: {status: 204}
      - match: {path: /deny/*}
        deny: [192.0.2.0/24]
      - match: {path: /s%70elt/*}
        deny: [192.0.2.0/24]
      - match: {path: /allow/*}
        allow: [192.0.2.0/24]
      - match: {path: /basic/*}
        basic_auth: {users: [{name: clerk, hash: $2a$04$cIwzRZzdjSIrU1pfkY0DmemLxNbkpPq6wZCrYFYQ6ewfgHNUCzI0m}]}
`, echoOrigin(t)), nil)
	g.from("192.0.2.7")
	tests := []struct {
		name, method, path string
		headers            []string
		status             int
		want               string // in the body
		header             string // Name: value of the response
	}{
		{"redirect", "GET", "/old/a%2Fb?q=1", nil, 308, "", "Location: https://shop.test/new/old/a%2Fb?q=1"},
		{"fixed", "GET", "/robots.txt", nil, 203, "User-agent: *", "Content-Type: text/plain; charset=utf-8"},
		{"rewritten", "GET", "/api/x%2Fy?a=1&secret=2&b=%20", []string{"X-Debug: 1"}, 200, `GET /v2/x%2Fy?a=1&b=%20&via=edge host=api.internal edge="landfall" debug=""`, "X-Frame-Options: DENY"},
		{"a header removed", "GET", "/api/", nil, 200, "GET /v2/?via=edge", "Server: "},
		{"a prefix is whole steps", "GET", "/apis", nil, 200, "GET /apis", ""},
		{"preflight", "OPTIONS", "/cors/x", []string{"Origin: https://app.example", "Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: x-token"}, 204, "", "Access-Control-Allow-Headers: x-token"},
		{"preflight of another page", "OPTIONS", "/cors/x", []string{"Origin: https://evil.example", "Access-Control-Request-Method: PUT"}, 204, "", "Access-Control-Allow-Methods: "},
		{"preflight of a route for one method", "OPTIONS", "/write/x", []string{"Origin: https://app.example", "Access-Control-Request-Method: PUT"}, 204, "", "Access-Control-Allow-Origin: https://app.example"},
		{"preflight for a method that no route takes", "OPTIONS", "/write/x", []string{"Origin: https://app.example", "Access-Control-Request-Method: GET"}, 405, "", ""},
		{"OPTIONS that is no preflight", "OPTIONS", "/write/x", nil, 405, "", ""},
		{"nothing to say", "GET", "/empty", nil, 204, "", "Content-Length: "},
		{"cross-origin", "GET", "/cors/x", []string{"Origin: https://app.example"}, 200, "", "Access-Control-Allow-Origin: https://app.example"},
		{"the origin's own word is replaced", "GET", "/cors/x", []string{"Origin: http://evil.example"}, 200, "", "Access-Control-Allow-Origin: "},
		{"denied", "GET", "/deny/x", nil, 403, "forbidden", ""},
		{"denied under another spelling", "GET", "/%64en%79/x", nil, 403, "forbidden", ""},
		{"a route that is spelt so itself", "GET", "/spelt/x", nil, 403, "forbidden", ""},
		{"allowed", "GET", "/allow/x", nil, 200, "", ""},
		{"no password", "GET", "/basic/x", nil, 401, "unauthorised", `Www-Authenticate: Basic realm="restricted", charset="UTF-8"`},
		{"a wrong one", "GET", "/basic/x", []string{"Authorization: Basic Y2xlcms6d3Jvbmc="}, 401, "", ""},
		{"an unknown user", "GET", "/basic/x", []string{"Authorization: Basic bm9ib2R5OnNlY3JldA=="}, 401, "", ""},
	}
	for _, tt := range tests {
		resp, body := read(t, g.send(g.request(tt.method, tt.path, nil, tt.headers...)))
		name, value, _ := strings.Cut(tt.header, ": ")
		if resp.StatusCode != tt.status || !strings.Contains(body, tt.want) || tt.header != "" && resp.Header.Get(name) != value {
			t.Errorf("%s: %d %q %v, want %d %q %s", tt.name, resp.StatusCode, body, resp.Header, tt.status, tt.want, tt.header)
		}
	}
	g.from("198.51.100.1")
	if resp, _ := read(t, g.send(g.request("GET", "/allow/x", nil))); resp.StatusCode != 403 {
		t.Error("an address that is not in the list came in:", resp.StatusCode)
	}
}

func TestBasicAuth(t *testing.T) {
	u := newUserList(&configs.BasicAuth{Users: []configs.BasicUser{{Name: "clerk", Hash: bcryptOf(t, "secret")}}})
	knows := func(name, password string) bool {
		known, busy := u.knows(name, password)
		return known && !busy
	}
	for range 2 { // the second time by the digest
		if !knows("clerk", "secret") || knows("clerk", "Secret") || knows("other", "secret") || knows("clerk", strings.Repeat("x", 73)) {
			t.Error("the wrong one came in, or the right one did not")
		}
	}
	for range passwordChecks {
		u.slots <- struct{}{}
	}
	if known, busy := u.knows("clerk", "guess"); known || !busy {
		t.Error("a guess beyond what may be checked at once is taken for a wrong password")
	}
	if !knows("clerk", "secret") {
		t.Error("a password that was found right before waits for those that guess")
	}
}

func TestRateLimit(t *testing.T) {
	g := newRig(t, one(`
    routes: [{match: {path: /*}, rate_limit: {by: client, rate: 1/h, burst: 3}}]
`, echoOrigin(t)), nil)
	ask := func(from string) *http.Response {
		g.from(from)
		resp, _ := read(t, g.send(g.request("GET", "/", nil)))
		return resp
	}
	for i := range 5 {
		resp := ask("192.0.2.7")
		if want := map[bool]int{true: 200, false: 429}[i < 3]; resp.StatusCode != want {
			t.Errorf("request %d: %d, want %d", i, resp.StatusCode, want)
		}
		if i == 4 && resp.Header.Get("Retry-After") != "3600" {
			t.Error("Retry-After:", resp.Header.Get("Retry-After"))
		}
	}
	if ask("192.0.2.8").StatusCode != 200 {
		t.Error("another client pays for the first")
	}
	for i := range 4 { // addresses of one /64 are one client
		if got, want := ask(fmt.Sprintf("2001:db8::%d", i)).StatusCode, map[bool]int{true: 200, false: 429}[i < 3]; got != want {
			t.Errorf("address %d of a /64: %d, want %d", i, got, want)
		}
	}
}

func TestSetQuery(t *testing.T) {
	for raw, want := range map[string]string{
		"": "a=1", "b=2": "b=2&a=1", "a=0&b=2&a=3": "b=2&a=1", "%61=0": "a=1", "x;y&b=%zz": "x;y&b=%zz&a=1", "gone=1": "a=1", "&&": "a=1",
	} {
		if got := setQuery(raw, map[string]string{"a": "1", "gone": ""}); got != want {
			t.Errorf("%q: %q, want %q", raw, got, want)
		}
	}
}

// BenchmarkAccess is the whole phase for a route that asks for nothing.
func BenchmarkAccess(b *testing.B) {
	x := &exchange{p: &Proxy{o: Options{Now: time.Now}}, in: httptest.NewRequest("GET", "/", nil)}
	x.match.gate = NewLasting().gatekeeper("web", &configs.Service{}, &configs.Route{}, nil)
	b.ReportAllocs()
	for b.Loop() {
		if x.access() != nil {
			b.Fatal("refused")
		}
	}
}

func bcryptOf(t *testing.T, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(hash)
}

// Routes that are alike in all that a limit is known by have limits of their own, over a reload too.
func TestLimitsOfAlikeRoutes(t *testing.T) {
	l, now := NewLasting(), time.Unix(1_800_000_000, 0)
	defer l.Close()
	routes := func(bursts ...int) (out []configs.Route) {
		for _, b := range bursts {
			out = append(out, configs.Route{Match: configs.Match{Path: "/x", Flag: "new"}, RateLimit: &configs.RateLimit{By: "route", Scope: "local", Rate: 0.001, Burst: b}})
		}
		return append(out, configs.Route{})
	}
	bursts := func(routes []configs.Route) (got [2]int) {
		for i, name := range limitNames("web", routes)[:2] {
			limit := l.limit(name, routes[i].RateLimit)
			for at := now; ; got[i]++ {
				if ok, _ := limit.Take(1, at); !ok {
					break
				}
			}
		}
		return got
	}
	if got := bursts(routes(2, 5)); got != [2]int{2, 5} {
		t.Error("bursts:", got)
	}
	now = now.Add(time.Hour * 24 * 365)
	c := &configs.Config{Services: map[string]*configs.Service{"web": {Routes: routes(3, 4)}}}
	l.mu.Lock()
	l.keepLimits(c, now)
	l.mu.Unlock()
	if got := bursts(c.Services["web"].Routes); got != [2]int{3, 4} {
		t.Error("after a reload:", got)
	}
	if names := limitNames("web", c.Services["web"].Routes); names[2] != "" || names[0] == names[1] {
		t.Errorf("%q", names)
	}
}
