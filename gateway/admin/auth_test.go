package admin

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"landfall/configs"
)

func token(t testing.TB, name, secret string, allow ...string) configs.Token {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return configs.Token{Name: name, Hash: string(hash), Allow: allow}
}

// authCase is a request and the status that it must get.
type authCase struct {
	line    string
	headers []string
	want    int
}

// authCases are met with the tokens see (read), do (all) and drop (purge).
func authCases() []authCase {
	const afar = remoteHeader + ": yes"
	read, drain, purge := "GET /v1/status", "PUT /v1/nodes/eu-1/drain", "POST /v1/purge"
	return []authCase{
		{read, nil, 200},
		{drain, nil, 200},
		{purge, nil, 202},
		{"GET /metrics", nil, 200},
		{read, []string{afar}, 401},
		{"GET /", []string{afar}, 401},
		{"GET /metrics", []string{afar}, 401},
		{"GET /v1/openapi.json", []string{afar}, 401},
		{"GET /nowhere", []string{afar}, 401},
		{"GET /healthz", []string{afar}, 200},
		{"GET /readyz", []string{afar, "Host: node.example"}, 200},
		{read, []string{afar, "Authorization: Bearer see"}, 200},
		{read, []string{afar, "Host: node.example", "Authorization: bearer see"}, 200},
		{read, []string{afar, "Authorization: Bearer wrong"}, 401},
		{read, []string{afar, "Authorization: Basic c2VlOnNlZQ=="}, 401},
		{read, []string{afar, "Authorization: Bearer "}, 401},
		{read, []string{afar, "Authorization: Bearer " + strings.Repeat("x", 100)}, 401},
		{drain, []string{afar, "Authorization: Bearer see"}, 403},
		{purge, []string{afar, "Authorization: Bearer see"}, 403},
		{drain, []string{afar, "Authorization: Bearer do"}, 200},
		{purge, []string{afar, "Authorization: Bearer do"}, 202},
		{read, []string{afar, "Authorization: Bearer drop"}, 403},
		{purge, []string{afar, "Authorization: Bearer drop"}, 202},
		// A token that is sent is held to, on loopback too.
		{read, []string{"Authorization: Bearer wrong"}, 401},
		{drain, []string{"Authorization: Bearer see"}, 403},
		// What a proxy on this machine forwards came from elsewhere.
		{read, []string{"X-Forwarded-For: 203.0.113.9"}, 401},
		{read, []string{"Forwarded: for=203.0.113.9"}, 401},
		{read, []string{"Via: 1.1 proxy"}, 401},
		// Any page can reach loopback under a name of its own.
		{read, []string{"Host: evil.example"}, 403},
		{read, []string{"Host: localhost.evil.example"}, 403},
		{read, []string{"Host: 127.0.0.1.evil.example:9901"}, 403},
		{read, []string{"Host: localhost:9901"}, 200},
		{read, []string{"Host: eu-1.localhost."}, 200},
		{read, []string{"Host: [::1]:9901"}, 200},
		{read, []string{"Host: [::1]"}, 200},
		{read, []string{"Host: 127.0.0.2"}, 200},
		// A page of another site may send what needs no preflight.
		{drain, []string{"Origin: https://evil.example"}, 403},
		{drain, []string{"Sec-Fetch-Site: cross-site"}, 403},
		{drain, []string{"Sec-Fetch-Site: same-site"}, 403},
		{drain, []string{"Origin: null"}, 403},
		{drain, []string{"Sec-Fetch-Site: same-origin"}, 200},
		{drain, []string{afar, "Authorization: Bearer do", "Origin: https://evil.example"}, 403},
	}
}

func TestWhoMayDoWhat(t *testing.T) {
	s := serve(t, &fakeBackend{}, func(o *Options) {
		o.Admin.Tokens = []configs.Token{token(t, "viewer", "see", "read"), token(t, "deploy", "do", "read", "drain", "purge"), token(t, "purger", "drop", "purge")}
	})
	purgeBody := `{"service":"shop","urls":["https://shop.example.com/"]}`
	for _, c := range authCases() {
		q := request{line: c.line, headers: c.headers}
		if c.line == "POST /v1/purge" {
			q.body = purgeBody
		}
		resp, body := s.do(t, q)
		if resp.StatusCode != c.want {
			t.Errorf("%s %q: %d, want %d: %s", c.line, c.headers, resp.StatusCode, c.want, body)
		}
		if challenge := resp.Header.Get("WWW-Authenticate"); (c.want == 401) != strings.HasPrefix(challenge, "Bearer ") && c.want != 403 {
			t.Errorf("%s %q: challenge %q", c.line, c.headers, challenge)
		}
	}
}

func TestWhoDidItIsTold(t *testing.T) {
	s := serve(t, &fakeBackend{}, func(o *Options) { o.Admin.Tokens = []configs.Token{token(t, "deploy", "do", "read", "drain")} })
	for header, by := range map[string]string{"Authorization: Bearer do": "deploy", "Accept: */*": "loopback"} {
		_, body := s.do(t, request{line: "PUT /v1/nodes/eu-1/drain", headers: []string{header}})
		if !strings.Contains(string(body), `"by":"`+by+`"`) {
			t.Errorf("%s: %s", header, body)
		}
	}
}

func TestReloadForgetsOldTokens(t *testing.T) {
	old, fresh := token(t, "deploy", "old", "read"), token(t, "deploy", "fresh", "read")
	s := serve(t, &fakeBackend{}, func(o *Options) { o.Admin.Tokens = []configs.Token{old} })
	try := func(secret string) int {
		resp, _ := s.do(t, request{line: "GET /v1/status", headers: []string{remoteHeader + ": yes", "Authorization: Bearer " + secret}})
		return resp.StatusCode
	}
	if got := [2]int{try("old"), try("fresh")}; got != [2]int{200, 401} {
		t.Fatalf("before: %v", got)
	}
	s.SetConfig(configs.Admin{Tokens: []configs.Token{fresh}})
	if got := [2]int{try("old"), try("fresh")}; got != [2]int{401, 200} {
		t.Fatalf("after: %v", got)
	}
}

// afar is a request from another machine with a token.
func afar(secret string) *http.Request {
	r := httptest.NewRequest("GET", "http://node.example/v1/status", nil)
	r.Header.Set("Authorization", "Bearer "+secret)
	return r
}

func TestGuessingIsRationedAndDoesNotLockOut(t *testing.T) {
	now := noon()
	g := newGate(configs.Admin{Tokens: []configs.Token{token(t, "deploy", "do", "read")}}, func() time.Time { return now })
	if _, p := g.admit(afar("do"), scopeRead); p != nil {
		t.Fatal(p)
	}
	codes := map[string]int{}
	for i := range 3 * attemptBurst {
		_, p := g.admit(afar(fmt.Sprint("guess", i)), scopeRead)
		codes[p.code()]++
	}
	if codes[codeUnauthorized] != attemptBurst-1 || codes[codeTooManyAttempts] != 2*attemptBurst+1 {
		t.Errorf("guesses: %v", codes)
	}
	if _, p := g.admit(afar("do"), scopeRead); p != nil {
		t.Errorf("the verified token is locked out: %v", p)
	}
	if _, p := g.admit(afar("guess0"), scopeRead); p.code() != codeUnauthorized {
		t.Errorf("a guess that is remembered: %v", p)
	}
	now = now.Add(verifiedFor)
	if _, p := g.admit(afar("do"), scopeRead); p != nil {
		t.Errorf("after a while: %v", p)
	}
}

func TestRefusedTokensAreBounded(t *testing.T) {
	now := noon()
	g := newGate(configs.Admin{Tokens: []configs.Token{{Name: "none", Hash: "no bcrypt hash"}}}, func() time.Time { return now })
	for i := range 2*maxRemembered + 5 {
		now = now.Add(time.Second)
		g.admit(afar(fmt.Sprint("guess", i)), scopeRead)
	}
	if n := len(g.refused); n == 0 || n > maxRemembered {
		t.Errorf("%d refused tokens are remembered", n)
	}
}

// TestTokenIsCheckedOnce holds that callers who come together with a token cost one run of bcrypt.
func TestTokenIsCheckedOnce(t *testing.T) {
	g := newGate(configs.Admin{Tokens: []configs.Token{token(t, "deploy", "do", "read")}}, noon)
	var all sync.WaitGroup
	for range 2 * attemptBurst { // more than the attempts allow
		all.Go(func() {
			if _, p := g.admit(afar("do"), scopeRead); p != nil {
				t.Error(p)
			}
		})
	}
	all.Wait()
}

func BenchmarkAdmitToken(b *testing.B) {
	g := newGate(configs.Admin{Tokens: []configs.Token{token(b, "deploy", "do", "read")}}, time.Now)
	r := afar("do")
	b.ReportAllocs()
	for b.Loop() {
		if _, p := g.admit(r, scopeRead); p != nil {
			b.Fatal(p)
		}
	}
}
