package jwtauth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// issuer publishes keys, and may be broken.
type issuer struct {
	*httptest.Server
	fetches atomic.Int64
	broken  atomic.Bool

	mu  sync.Mutex
	set jose.JSONWebKeySet
}

func newIssuer(t *testing.T, keys ...jose.JSONWebKey) *issuer {
	s := &issuer{set: jose.JSONWebKeySet{Keys: keys}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.fetches.Add(1)
		if s.broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		_ = json.NewEncoder(w).Encode(s.set)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *issuer) publish(keys ...jose.JSONWebKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set = jose.JSONWebKeySet{Keys: keys}
}

// clock is moved by hand.
type clock struct{ ns atomic.Int64 }

func (c *clock) now() time.Time      { return time.Unix(0, c.ns.Load()) }
func (c *clock) add(d time.Duration) { c.ns.Add(int64(d)) }

func (s *issuer) verifier(t *testing.T, p Policy) (*Verifier, *clock) {
	c := &clock{}
	c.ns.Store(time.Unix(1_800_000_000, 0).UnixNano())
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	keys := NewKeys(KeysOptions{
		URL: s.URL, Refresh: 15 * time.Minute, Stale: time.Hour, Client: &http.Client{Transport: tr}, Logger: slog.New(slog.DiscardHandler),
		Fetches: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "x"}, []string{"result"}), Now: c.now,
	})
	t.Cleanup(keys.Close)
	if p.Issuer == "" {
		p.Issuer, p.Audiences = "https://id.test", []string{"shop", "other"}
	}
	return NewVerifier(keys, p), c
}

func sign(t *testing.T, alg jose.SignatureAlgorithm, key any, id string, claims any) string {
	t.Helper()
	o := (&jose.SignerOptions{}).WithType("JWT")
	if id != "" {
		o = o.WithHeader("kid", id)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, o)
	if err != nil {
		t.Fatal(err)
	}
	text, err := jwt.Signed(s).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func public(key crypto.Signer, id, alg string) jose.JSONWebKey {
	return jose.JSONWebKey{Key: key.Public(), KeyID: id, Algorithm: alg}
}

func usual(c *clock) map[string]any {
	return map[string]any{"iss": "https://id.test", "aud": "shop", "sub": "alice", "exp": c.now().Add(time.Hour).Unix(), "scope": "read write", "roles": []string{"admin", "dev"}, "tier": 3}
}

func with(m map[string]any, key string, value any) map[string]any {
	if value == nil {
		delete(m, key)
	} else {
		m[key] = value
	}
	return m
}

func TestVerify(t *testing.T) {
	r, _ := rsa.GenerateKey(rand.Reader, 2048)
	e, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	stranger, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s := newIssuer(t, public(r, "r", "RS256"), public(e, "e", ""), public(ed, "ed", "EdDSA"))
	v, c := s.verifier(t, Policy{})
	der, _ := x509.MarshalPKIXPublicKey(r.Public())
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	none := "eyJhbGciOiJub25lIn0." + strings.Split(sign(t, jose.RS256, r, "r", usual(c)), ".")[1] + "."
	good := sign(t, jose.RS256, r, "r", usual(c))
	for _, tt := range []struct {
		name, token, want string // empty: it is right
	}{
		{"RSA", good, ""},
		{"ECDSA", sign(t, jose.ES256, e, "e", usual(c)), ""},
		{"Ed25519", sign(t, jose.EdDSA, ed, "ed", usual(c)), ""},
		{"without a key id", sign(t, jose.ES256, e, "", usual(c)), ""},
		{"an audience among others", sign(t, jose.ES256, e, "e", with(usual(c), "aud", []string{"x", "other"})), ""},
		{"just now", sign(t, jose.ES256, e, "e", with(usual(c), "exp", c.now().Add(-time.Second).Unix())), "expired"},
		{"no signature at all", none, "malformed"},
		{"the public key as an HMAC secret", sign(t, jose.HS256, publicPEM, "r", usual(c)), "malformed"},
		{"the DER of it as a secret", sign(t, jose.HS256, der, "r", usual(c)), "malformed"},
		{"an algorithm that the key is not for", sign(t, jose.PS256, r, "r", usual(c)), "not signed by a key"},
		{"another key's id", sign(t, jose.ES256, e, "r", usual(c)), "not signed by a key"},
		{"a stranger", sign(t, jose.ES256, stranger, "e", usual(c)), "not signed by a key"},
		{"changed", good[:len(good)-6] + "AAAAAA", "not signed by a key"},
		{"expired", sign(t, jose.ES256, e, "e", with(usual(c), "exp", c.now().Add(-time.Minute).Unix())), "expired"},
		{"not yet", sign(t, jose.ES256, e, "e", with(usual(c), "nbf", c.now().Add(time.Hour).Unix())), "not valid yet"},
		{"for ever", sign(t, jose.ES256, e, "e", with(usual(c), "exp", nil)), "never expires"},
		{"another issuer", sign(t, jose.ES256, e, "e", with(usual(c), "iss", "https://evil.test")), "another issuer"},
		{"another audience", sign(t, jose.ES256, e, "e", with(usual(c), "aud", "bank")), "another audience"},
		{"no audience", sign(t, jose.ES256, e, "e", with(usual(c), "aud", nil)), "another audience"},
		{"not a token", "hello", "malformed"},
		{"too long", strings.Repeat("a", maxToken+1), "too long"},
	} {
		for range 2 { // the second time by the digest
			_, err := v.Verify(t.Context(), tt.token)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
			}
		}
	}
	c.add(2 * time.Hour)
	if _, err := v.Verify(t.Context(), good); err == nil {
		t.Error("a token that was right before outlives its expiry")
	}
}

func TestClaims(t *testing.T) {
	e, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s := newIssuer(t, public(e, "e", ""))
	for _, tt := range []struct {
		require map[string]string
		ok      bool
	}{
		{map[string]string{"scope": "write", "roles": "admin", "tier": "3", "sub": "alice"}, true},
		{map[string]string{"scope": "writ"}, false}, {map[string]string{"roles": "adm"}, false}, {map[string]string{"nothing": ""}, false},
	} {
		v, c := s.verifier(t, Policy{Issuer: "https://id.test", Audiences: []string{"shop"}, Require: tt.require, Tell: []string{"sub", "roles", "tier", "none"}})
		told, err := v.Verify(t.Context(), sign(t, jose.ES256, e, "e", usual(c)))
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrForbidden) {
			t.Errorf("%v: %v", tt.require, err)
		}
		if err == nil && (told["sub"] != "alice" || told["roles"] != "admin,dev" || told["tier"] != "3" || len(told) != 3) {
			t.Error(told)
		}
	}
}

// TestRotation: a new key is found when a token names it, an unknown one can't make the gateway hammer the issuer, and a
// key that is gone ends what it had signed.
func TestRotation(t *testing.T) {
	a, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	b, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s := newIssuer(t, public(a, "a", ""))
	v, c := s.verifier(t, Policy{})
	byA, byB := sign(t, jose.ES256, a, "a", usual(c)), sign(t, jose.ES256, b, "b", usual(c))
	if _, err := v.Verify(t.Context(), byA); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if _, err := v.Verify(t.Context(), byB); err == nil {
			t.Fatal("a key that nobody has published")
		}
	}
	if n := s.fetches.Load(); n > 2 {
		t.Errorf("%d fetches for a key that nobody has", n)
	}
	s.publish(public(b, "b", ""))
	c.add(askEvery)
	if _, err := v.Verify(t.Context(), byB); err != nil {
		t.Error("a new key is not found:", err)
	}
	if _, err := v.Verify(t.Context(), byA); err == nil {
		t.Error("a token of a key that is gone is still taken")
	}
}

// TestInventedKeys: whoever invents keys keeps a real new one from being fetched for askEvery at most, and does not make the
// gateway hammer the issuer.
func TestInventedKeys(t *testing.T) {
	a, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	b, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s := newIssuer(t, public(a, "a", ""))
	v, c := s.verifier(t, Policy{})
	if _, err := v.Verify(t.Context(), sign(t, jose.ES256, a, "a", usual(c))); err != nil {
		t.Fatal(err)
	}
	byB := sign(t, jose.ES256, b, "b", usual(c))
	const step, spans = 50 * time.Millisecond, 10
	attack := func(i int) {
		if _, err := v.Verify(t.Context(), sign(t, jose.ES256, b, fmt.Sprint("invented ", i), usual(c))); err == nil {
			t.Fatal("an invented key")
		}
		c.add(step)
	}
	i := 0
	for ; i < int(spans*askEvery/step); i++ {
		attack(i)
	}
	if n := s.fetches.Load(); n > spans+2 {
		t.Errorf("%d fetches in %s under attack", n, spans*askEvery)
	}
	s.publish(public(a, "a", ""), public(b, "b", ""))
	published := c.now()
	for ; ; i++ {
		if _, err := v.Verify(t.Context(), byB); err == nil {
			break
		}
		if waited := c.now().Sub(published); waited > askEvery {
			t.Fatalf("the new key is unknown %s after it was published", waited)
		}
		attack(i)
	}
}

// TestStale: keys serve on while their issuer is broken, for as long as is borne, and not without an end; one that never
// answered leaves nobody in.
func TestStale(t *testing.T) {
	e, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s := newIssuer(t, public(e, "e", ""))
	v, c := s.verifier(t, Policy{})
	token := func() string { return sign(t, jose.ES256, e, "e", usual(c)) }
	if _, err := v.Verify(t.Context(), token()); err != nil {
		t.Fatal(err)
	}
	s.broken.Store(true)
	c.add(30 * time.Minute)
	if _, err := v.Verify(t.Context(), token()); err != nil {
		t.Error("stale keys do not serve:", err)
	}
	c.add(time.Hour)
	if _, err := v.Verify(t.Context(), token()); !errors.Is(err, ErrNoKeys) {
		t.Error("keys that are too old serve:", err)
	}
	s.broken.Store(false)
	c.add(tryEvery)
	if _, err := v.Verify(t.Context(), token()); err != nil {
		t.Error("the issuer is back:", err)
	}
	never := newIssuer(t)
	v, c = never.verifier(t, Policy{})
	if _, err := v.Verify(t.Context(), token()); !errors.Is(err, ErrNoKeys) {
		t.Error(err)
	}
}

// FuzzParseKeys: what is kept is public, strong enough and for signatures.
func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","kid":"e"},{"kty":"oct","k":"AAAA"},{"kty":"new"}]}`))
	f.Add([]byte(`{"keys":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := parseKeys(data)
		if err != nil {
			return
		}
		if len(keys) == 0 || len(keys) > maxKeys {
			t.Fatal(len(keys))
		}
		for _, k := range keys {
			if _, secret := k.Key.([]byte); secret || !k.IsPublic() || k.Use != "" && k.Use != "sig" {
				t.Fatalf("%+v", k)
			}
		}
	})
}

func BenchmarkVerifyKnown(b *testing.B) {
	e, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	set := &keySet{keys: []jose.JSONWebKey{public(e, "e", "")}, at: time.Now(), fresh: time.Hour}
	k := &Keys{o: KeysOptions{Now: time.Now}}
	k.set.Store(set)
	v := NewVerifier(k, Policy{Issuer: "i", Audiences: []string{"a"}})
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: e}, nil)
	if err != nil {
		b.Fatal(err)
	}
	token, err := jwt.Signed(s).Claims(map[string]any{"iss": "i", "aud": "a", "exp": time.Now().Add(time.Hour).Unix()}).Serialize()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}
