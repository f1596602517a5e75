package jwtauth

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// algorithms are those that are taken: of public keys only. A token that says HS256 would have the public key be the
// secret, one that says none no signature at all (RFC 8725 sections 2.1 and 3.1).
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// Policy is what a token must say.
type Policy struct {
	Issuer    string
	Audiences []string // one of them
	Leeway    time.Duration
	Require   map[string]string // claims that must have this value, or hold it as an element or a word
	Tell      []string          // claims whose values are wanted
}

const (
	maxToken      = 16 << 10
	maxRemembered = 4096
)

// Verifier checks tokens. What was found right is remembered by a digest until it expires or the keys change. Safe for
// concurrent use.
type Verifier struct {
	keys   *Keys
	policy Policy

	mu       sync.Mutex
	set      *keySet // that known is of
	verified map[[sha256.Size]byte]known
}

type known struct {
	expires time.Time
	told    map[string]string
}

// NewVerifier checks by keys that others may share.
func NewVerifier(keys *Keys, p Policy) *Verifier {
	return &Verifier{keys: keys, policy: p, verified: map[[sha256.Size]byte]known{}}
}

// ErrForbidden tells that a token is right but does not allow what its bearer asks for.
var ErrForbidden = errors.New("the token does not allow this")

// Verify checks a token and gives the claims that the policy wants, as text. Besides ErrNoKeys and ErrForbidden every error
// says what is wrong with the token.
func (v *Verifier) Verify(ctx context.Context, token string) (map[string]string, error) {
	if len(token) > maxToken {
		return nil, errors.New("the token is too long")
	}
	now, digest := v.keys.o.Now(), sha256.Sum256([]byte(token))
	if k, ok := v.recall(digest, now); ok {
		return k.told, nil
	}
	parsed, err := jwt.ParseSigned(token, algorithms)
	if err != nil || len(parsed.Headers) != 1 {
		return nil, errors.New("the token is malformed, or signed by an algorithm that is not taken")
	}
	set := v.keys.set.Load()
	keys, err := v.keys.candidates(ctx, parsed.Headers[0].KeyID, parsed.Headers[0].Algorithm)
	if err != nil {
		return nil, err
	}
	var claims jwt.Claims
	var all map[string]any
	if !slices.ContainsFunc(keys, func(key jose.JSONWebKey) bool { return parsed.Claims(key.Key, &claims, &all) == nil }) {
		return nil, errors.New("the token is not signed by a key of the issuer")
	}
	if err := v.check(claims, now); err != nil {
		return nil, err
	}
	for name, want := range v.policy.Require {
		if !holds(all[name], want) {
			return nil, fmt.Errorf("%w: its claim %s lacks %s", ErrForbidden, name, want)
		}
	}
	told := map[string]string{}
	for _, name := range v.policy.Tell {
		if text, ok := asText(all[name]); ok {
			told[name] = text
		}
	}
	v.remember(set, digest, known{claims.Expiry.Time().Add(v.policy.Leeway), told})
	return told, nil
}

func (v *Verifier) check(c jwt.Claims, now time.Time) error {
	if c.Expiry == nil {
		return errors.New("the token never expires")
	}
	err := c.ValidateWithLeeway(jwt.Expected{Issuer: v.policy.Issuer, AnyAudience: v.policy.Audiences, Time: now}, v.policy.Leeway)
	switch {
	case errors.Is(err, jwt.ErrExpired):
		return errors.New("the token has expired")
	case errors.Is(err, jwt.ErrNotValidYet), errors.Is(err, jwt.ErrIssuedInTheFuture):
		return errors.New("the token is not valid yet")
	case errors.Is(err, jwt.ErrInvalidIssuer):
		return errors.New("the token is of another issuer")
	case err != nil:
		return errors.New("the token is for another audience")
	}
	return nil
}

func (v *Verifier) recall(digest [sha256.Size]byte, now time.Time) (known, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	set := v.keys.set.Load()
	if set == nil || set != v.set {
		return known{}, false // a key may be gone
	}
	if now.Sub(set.at) > set.fresh {
		v.keys.refresh(tryEvery)
		if now.Sub(set.at) > set.fresh+v.keys.o.Stale {
			return known{}, false
		}
	}
	k, ok := v.verified[digest]
	return k, ok && now.Before(k.expires)
}

// remember keeps what was found right by a set of keys, if it is still the one in use.
func (v *Verifier) remember(set *keySet, digest [sha256.Size]byte, k known) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if set == nil || set != v.keys.set.Load() {
		return
	}
	if v.set != set || len(v.verified) >= maxRemembered {
		v.set = set
		clear(v.verified)
	}
	v.verified[digest] = k
}

// holds tells whether a claim is a value, or has it as an element, or as a word as scope does (RFC 8693 section 4.2).
func holds(claim any, want string) bool {
	switch c := claim.(type) {
	case string:
		return c == want || slices.Contains(strings.Fields(c), want)
	case []any:
		return slices.ContainsFunc(c, func(e any) bool { return e == want })
	}
	text, ok := asText(claim)
	return ok && text == want
}

// asText is a claim as one line: text, a number, a truth value, or a list of texts with commas.
func asText(claim any) (string, bool) {
	switch c := claim.(type) {
	case string:
		return c, true
	case bool:
		return strconv.FormatBool(c), true
	case float64:
		return strconv.FormatFloat(c, 'f', -1, 64), true
	case json.Number:
		return c.String(), true
	case []any:
		var parts []string
		for _, e := range c {
			s, ok := e.(string)
			if !ok {
				return "", false
			}
			parts = append(parts, s)
		}
		return strings.Join(parts, ","), true
	}
	return "", false
}
