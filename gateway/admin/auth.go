package admin

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/time/rate"

	"landfall/configs"
)

// The scopes of an operation. An open operation needs no token from anywhere.
const (
	scopeOpen  = ""
	scopeRead  = "read"
	scopeDrain = "drain"
	scopePurge = "purge"
	scopeFleet = "fleet"
)

const (
	// maxToken is what bcrypt looks at; a longer token would be the same as its first 72 bytes.
	maxToken = 72
	// verifiedFor and refusedFor bound how long an answer of bcrypt, which costs tens of milliseconds, is remembered.
	verifiedFor = 10 * time.Minute
	refusedFor  = time.Minute
	// maxRemembered bounds the refused tokens that are remembered. (The verified ones are as many as the config has.)
	maxRemembered = 1024
	// attemptRate and attemptBurst bound how many unknown tokens a second are put to bcrypt, so that guessing can not
	// take the processor from the data path. Tokens verified lately are not held up by it.
	attemptRate  = 5
	attemptBurst = 20
)

// caller is who sends a request and what it may do.
type caller struct {
	name   string // a token's name, or loopback
	scopes []string
}

func (c caller) may(scope string) bool { return scope == scopeOpen || slices.Contains(c.scopes, scope) }

// gate decides who is let in, by one version of the config. A reload makes a new one, so that what was remembered of the
// old tokens goes with them.
type gate struct {
	tokens []configs.Token
	pprof  bool
	now    func() time.Time

	attempts *rate.Limiter
	checking chan struct{} // held while bcrypt runs: one at a time

	mu       sync.Mutex
	verified map[[sha256.Size]byte]remembered
	refused  map[[sha256.Size]byte]remembered
}

type remembered struct {
	caller caller
	until  time.Time
}

func newGate(c configs.Admin, now func() time.Time) *gate {
	return &gate{
		tokens: slices.Clone(c.Tokens), pprof: c.PProf, now: now,
		attempts: rate.NewLimiter(attemptRate, attemptBurst),
		checking: make(chan struct{}, 1),
		verified: map[[sha256.Size]byte]remembered{},
		refused:  map[[sha256.Size]byte]remembered{},
	}
}

// admit decides on a request that needs scope. On a loopback connection a token is not needed, but one that is sent is
// held to, so that a call can be tried with fewer rights; a config without tokens has nothing to hold it to.
func (g *gate) admit(r *http.Request, scope string) (caller, *Problem) {
	if scope == scopeOpen {
		return caller{name: "anyone"}, nil
	}
	local := isLocal(r)
	token, sent, malformed := bearer(r)
	if local && (!sent || len(g.tokens) == 0) {
		if p := checkHost(r.Host); p != nil {
			return caller{}, p
		}
		return caller{name: "loopback", scopes: []string{scopeRead, scopeDrain, scopePurge, scopeFleet}}, nil
	}
	switch {
	case len(g.tokens) == 0:
		return caller{}, unauthorized("", "the config holds no tokens, so only a loopback connection may call; add one under admin.tokens")
	case malformed:
		return caller{}, unauthorized("invalid_request", "the Authorization header is not of the form: Bearer TOKEN")
	case !sent:
		return caller{}, unauthorized("", "send a token of the config's admin.tokens: Authorization: Bearer TOKEN")
	}
	c, p := g.verify(r.Context(), token)
	if p != nil {
		return caller{}, p
	}
	if !c.may(scope) {
		p := problem(http.StatusForbidden, codeForbidden, "Forbidden",
			fmt.Sprintf("token %q may %s; this needs %s", c.name, strings.Join(c.scopes, ", "), scope))
		return caller{}, p.with("WWW-Authenticate", fmt.Sprintf(`Bearer realm="landfall", error="insufficient_scope", scope=%q`, scope))
	}
	return c, nil
}

// verify finds whose token it is.
func (g *gate) verify(ctx context.Context, token string) (caller, *Problem) {
	sum := sha256.Sum256([]byte(token))
	if c, p, known := g.recall(sum); known {
		return c, p
	}
	select {
	case g.checking <- struct{}{}:
		defer func() { <-g.checking }()
	case <-ctx.Done():
		return caller{}, Unavailable("the request ended before its token could be checked")
	}
	// Another request may have brought the same token while this one waited.
	if c, p, known := g.recall(sum); known {
		return c, p
	}
	if len(token) > maxToken {
		return g.remember(sum, caller{}, false)
	}
	if !g.attempts.AllowN(g.now(), 1) {
		p := problem(http.StatusTooManyRequests, codeTooManyAttempts, "Too many attempts",
			"too many unknown tokens were tried lately; wait a second and try again")
		return caller{}, p.with("Retry-After", "1")
	}
	for _, t := range g.tokens {
		if bcrypt.CompareHashAndPassword([]byte(t.Hash), []byte(token)) == nil {
			return g.remember(sum, caller{name: t.Name, scopes: t.Allow}, true)
		}
	}
	return g.remember(sum, caller{}, false)
}

func (g *gate) recall(sum [sha256.Size]byte) (caller, *Problem, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if m, ok := g.verified[sum]; ok && now.Before(m.until) {
		return m.caller, nil, true
	}
	if m, ok := g.refused[sum]; ok && now.Before(m.until) {
		return caller{}, unknownToken(), true
	}
	return caller{}, nil, false
}

func (g *gate) remember(sum [sha256.Size]byte, c caller, ok bool) (caller, *Problem) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if ok {
		g.verified[sum] = remembered{c, g.now().Add(verifiedFor)}
		return c, nil
	}
	if len(g.refused) >= maxRemembered {
		clear(g.refused) // forgetting costs the guesser's own next attempt, no more
	}
	g.refused[sum] = remembered{until: g.now().Add(refusedFor)}
	return caller{}, unknownToken()
}

func unknownToken() *Problem {
	return unauthorized("invalid_token", "this token is not one of the config's admin.tokens")
}

// unauthorized is a 401 with its challenge (RFC 6750 section 3).
func unauthorized(code, detail string) *Problem {
	challenge := `Bearer realm="landfall"`
	if code != "" {
		challenge += fmt.Sprintf(`, error=%q`, code)
	}
	return problem(http.StatusUnauthorized, codeUnauthorized, "Unauthorized", detail).with("WWW-Authenticate", challenge)
}

// bearer is the token that a request sends (RFC 6750 section 2.1).
func bearer(r *http.Request) (token string, sent, malformed bool) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return "", false, false
	}
	scheme, token, found := strings.Cut(values[0], " ")
	token = strings.TrimSpace(token)
	if len(values) > 1 || !found || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", true, true
	}
	return token, true, false
}

// isLocal tells whether both ends of the connection are on this machine's loopback. A proxy on this machine would bring
// strangers over such a connection, so what a proxy forwarded is not local.
func isLocal(r *http.Request) bool {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via"} {
		if _, forwarded := r.Header[name]; forwarded {
			return false
		}
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && isLoopback(local.String()) && isLoopback(r.RemoteAddr)
}

func isLoopback(addr string) bool {
	ap, err := netip.ParseAddrPort(addr)
	return err == nil && ap.Addr().Unmap().IsLoopback()
}

// checkHost refuses a tokenless request whose Host is a name: a page in a browser reaches loopback under a name of its
// own by DNS rebinding, but it can neither rebind an address nor localhost (RFC 6761 section 6.3).
func checkHost(host string) *Problem {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.TrimSuffix(strings.Trim(name, "[]"), "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return nil
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return nil
	}
	return problem(http.StatusForbidden, codeHost, "Host refused",
		fmt.Sprintf("without a token the Host must be an address or localhost, not %q", clip(host, 80)))
}
