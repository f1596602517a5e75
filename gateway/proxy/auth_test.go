package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// userOrigin says who it takes the client for; what it says may be stored by anybody.
func userOrigin(t *testing.T) string {
	return origin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=60")
		_, _ = fmt.Fprintf(w, "user=%s other=%s auth=%v", r.Header.Get("X-User"), r.Header.Get("X_User"), r.Header.Get("Authorization") != "")
	})
}

// TestJWT: who shows a right token comes in, and the origin is told who it is; nobody else is, nor gets another's page.
func TestJWT(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var broken atomic.Bool
	jwks := origin(t, func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k"}}})
	})
	token := func(sub, scope string) string {
		s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", "k"))
		if err != nil {
			t.Fatal(err)
		}
		text, err := jwt.Signed(s).Claims(map[string]any{"iss": "https://id.test", "aud": "shop", "sub": sub, "scope": scope, "exp": time.Now().Add(time.Hour).Unix()}).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return "Authorization: Bearer " + text
	}
	routes := `    routes: [{match: {path: /*}, auth: {jwt: {issuer: "https://id.test", jwks: "` + jwks + `/keys", audience: shop, require: {scope: buy}, headers: {X-User: sub}}}}]` + "\n"
	g := newRig(t, one(routes, userOrigin(t)), nil)
	for _, tt := range []struct {
		name      string
		headers   []string
		status    int
		want      string
		challenge string
	}{
		{"none", nil, 401, "unauthorised", "Bearer"},
		{"a password", []string{"Authorization: Basic YTpi"}, 401, "", "Bearer"},
		{"nonsense", []string{"Authorization: Bearer x.y.z"}, 401, "malformed", `Bearer error="invalid_token"`},
		{"not allowed", []string{token("bob", "look")}, 403, "forbidden", `Bearer error="insufficient_scope"`},
		{"alice", []string{token("alice", "look buy"), "X-User: root", "X_User: root"}, 200, "user=alice other= auth=true", ""},
		{"bob", []string{token("bob", "buy")}, 200, "user=bob other= auth=true", ""},
		{"alice again", []string{token("alice", "buy")}, 200, "user=alice", ""},
		{"a control character", []string{token("a\r\nb", "buy"), "X-User: root"}, 200, "user= ", ""},
		{"two", []string{token("alice", "buy"), token("bob", "buy")}, 401, "", "Bearer"},
	} {
		resp, body := g.get("GET", "/", tt.headers...)
		if resp.StatusCode != tt.status || !strings.Contains(body, tt.want) || resp.Header.Get("Www-Authenticate") != tt.challenge {
			t.Errorf("%s: %d %q %v", tt.name, resp.StatusCode, body, resp.Header)
		}
	}
	broken.Store(true)
	g = newRig(t, one(routes, userOrigin(t)), nil)
	if resp, body := g.get("GET", "/", token("alice", "buy")); resp.StatusCode != 503 || !strings.Contains(body, "auth_unavailable") {
		t.Error("without keys:", resp.StatusCode, body)
	}
}

// TestForwardAuth: another server decides; its no goes to the client, its silence to nobody's advantage.
func TestForwardAuth(t *testing.T) {
	asked := make(chan *http.Request, 20)
	release := make(chan struct{})
	server := origin(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- r
		switch r.Header.Get("Authorization") {
		case "good":
			w.Header().Set("X-User", "alice")
		case "login":
			w.Header().Set("Location", "https://login.test/")
			w.Header().Set("X-Secret", "internal")
			w.Header().Set("Cache-Control", "max-age=1000")
			w.WriteHeader(http.StatusFound)
		case "broken":
			w.WriteHeader(http.StatusInternalServerError)
		case "slow":
			select {
			case <-release:
			case <-r.Context().Done():
			}
		default:
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte("who are you?"))
		}
	})
	defer close(release)
	route := func(path, more string) string {
		return `{match: {path: ` + path + `}, auth: {forward: {url: "` + server + `/verify", timeout: 100ms, response_headers: [X-User]` + more + `}}}`
	}
	g := newRig(t, one("    routes: ["+route("/open/*", ", on_error: allow")+", "+route("/*", "")+"]\n", userOrigin(t)), nil)
	for _, tt := range []struct {
		name, path, auth string
		status           int
		want             string
	}{
		{"yes", "/a?b=c", "good", 200, "user=alice other= auth=true"},
		{"no", "/a", "", 401, "who are you?"},
		{"log in first", "/a", "login", 302, ""},
		{"broken", "/a", "broken", 503, "auth_unavailable"},
		{"slow", "/a", "slow", 503, "auth_unavailable"},
		{"broken, and let in all the same", "/open/a", "broken", 200, "user= "},
		{"slow, and let in all the same", "/open/b", "slow", 200, "user= "},
		{"a no is a no there too", "/open/a", "", 401, "who are you?"},
	} {
		headers := []string{"X-User: root", "X_User: root", "Cookie: a=b"}
		if tt.auth != "" {
			headers = append(headers, "Authorization: "+tt.auth)
		}
		resp, body := g.get("POST", tt.path, headers...)
		if resp.StatusCode != tt.status || !strings.Contains(body, tt.want) || resp.Header.Get("X-Secret") != "" {
			t.Errorf("%s: %d %q %v", tt.name, resp.StatusCode, body, resp.Header)
		}
		if resp.StatusCode == 302 && (resp.Header.Get("Location") != "https://login.test/" || resp.Header.Get("Cache-Control") != "no-store") {
			t.Error(resp.Header)
		}
		r := receive(t, "the question", asked)
		if r.Method != "GET" || r.Header.Get("X-Forwarded-Method") != "POST" || r.Header.Get("X-Forwarded-Uri") != tt.path || r.Header.Get("X-Forwarded-Host") != "shop.test" ||
			r.Header.Get("Cookie") != "a=b" || r.Header.Get("X-User") != "" {
			t.Errorf("%s: asked %s %v", tt.name, r.Method, r.Header)
		}
	}
	// What one client's identity was answered is not what another gets.
	if _, body := g.get("GET", "/page", "Authorization: good"); !strings.Contains(body, "user=alice") {
		t.Error(body)
	}
	if resp, body := g.get("GET", "/page"); resp.StatusCode != 401 {
		t.Error(resp.StatusCode, body)
	}
}

// TestForwardAuthIsBounded: questions beyond the bound wait for nobody.
func TestForwardAuthIsBounded(t *testing.T) {
	begun, release := make(chan struct{}, 1), make(chan struct{})
	server := origin(t, func(_ http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	g := newRig(t, one(`    routes: [{match: {path: /*}, auth: {forward: {url: "`+server+`", timeout: 1m, concurrent: 1}}}]`+"\n", userOrigin(t)), nil)
	done := make(chan int, 1)
	go func() {
		resp, err := g.client().Do(g.request("GET", "/first", nil))
		if err != nil {
			done <- 0
			return
		}
		_ = resp.Body.Close()
		done <- resp.StatusCode
	}()
	receive(t, "the first question", begun)
	if resp, _ := g.get("GET", "/second"); resp.StatusCode != 503 {
		t.Error(resp.StatusCode)
	}
	close(release)
	if status := receive(t, "the first answer", done); status != 200 {
		t.Error(status)
	}
}
