package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"landfall/configs"
	"landfall/gateway/jwtauth"
)

// jwtGate is a route's check of bearer tokens.
type jwtGate struct {
	config   *configs.JWT
	verifier *jwtauth.Verifier
}

// keysName is what an issuer's keys are known by over reloads.
type keysName struct {
	url            string
	refresh, stale time.Duration
}

func nameOfKeys(c *configs.JWT) keysName { return keysName{c.JWKS, c.Refresh.D(), c.Stale.D()} }

func (l *Lasting) jwtGate(r *configs.Route, p *Proxy) *jwtGate {
	if r.Auth == nil || r.Auth.JWT == nil {
		return nil
	}
	c := r.Auth.JWT
	name := nameOfKeys(c)
	l.mu.Lock()
	keys := l.keys[name]
	if keys == nil {
		keys = jwtauth.NewKeys(jwtauth.KeysOptions{
			URL: name.url, Refresh: name.refresh, Stale: name.stale, Client: l.client, Logger: p.o.Logger, Fetches: p.o.Metrics.jwks, Now: p.o.Now,
		})
		l.keys[name] = keys
	}
	l.mu.Unlock()
	policy := jwtauth.Policy{Issuer: c.Issuer, Audiences: c.Audience, Leeway: c.Leeway.D(), Require: c.Require}
	for _, claim := range c.Headers {
		policy.Tell = append(policy.Tell, claim)
	}
	return &jwtGate{c, jwtauth.NewVerifier(keys, policy)}
}

// keepKeys closes the keys that a configuration that came into force does not need. l.mu is held.
func (l *Lasting) keepKeys(c *configs.Config) {
	used := map[keysName]bool{}
	for _, s := range c.Services {
		for _, r := range s.Routes {
			if r.Auth != nil && r.Auth.JWT != nil {
				used[nameOfKeys(r.Auth.JWT)] = true
			}
		}
	}
	for name, keys := range l.keys {
		if !used[name] {
			delete(l.keys, name)
			l.running.Go(keys.Close) // requests in flight may still ask it, and are told no
		}
	}
}

// identityHeaders are the fields by which a route tells its origin who the client is. What is stored must not mix them.
func identityHeaders(r *configs.Route) []string {
	var names []string
	if r.Auth == nil {
		return nil
	}
	if j := r.Auth.JWT; j != nil {
		for name := range j.Headers {
			names = append(names, http.CanonicalHeaderKey(name))
		}
	}
	if f := r.Auth.Forward; f != nil {
		for _, name := range f.ResponseHeaders {
			names = append(names, http.CanonicalHeaderKey(name))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// stripIdentity removes what a client wrote where only the gateway may write, and what an origin could take for it.
func stripIdentity(h http.Header, names []string) {
	for name := range h {
		if slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(strings.ReplaceAll(name, "_", "-"), n) }) {
			delete(h, name)
		}
	}
}

// authorised asks the route's JWT check and forward auth.
func (x *exchange) authorised() *refusal {
	g := x.match.gate
	stripIdentity(x.in.Header, g.identity)
	if g.jwt != nil {
		if no := x.bearer(g.jwt); no != nil {
			return no
		}
	}
	if g.forward != nil {
		return g.forward.ask(x)
	}
	return nil
}

// bearer checks the request's token (RFC 6750 sections 2.1 and 3).
func (x *exchange) bearer(g *jwtGate) *refusal {
	count := func(result string) { x.p.o.Metrics.auths.WithLabelValues(x.match.service.name, "jwt", result).Inc() }
	scheme, token, _ := strings.Cut(x.in.Header.Get("Authorization"), " ")
	if token = strings.TrimSpace(token); !strings.EqualFold(scheme, "Bearer") || token == "" || len(x.in.Header["Authorization"]) > 1 {
		count("refused")
		return &refusal{reason: unauthorised, text: "a bearer token is needed", challenge: "Bearer"}
	}
	told, err := g.verifier.Verify(x.in.Context(), token)
	switch {
	case errors.Is(err, jwtauth.ErrNoKeys):
		count("error")
		return &refusal{reason: authUnavailable, text: "tokens can't be checked now", cause: err}
	case errors.Is(err, jwtauth.ErrForbidden):
		count("refused")
		return &refusal{reason: forbidden, text: "this token does not allow it", cause: err, challenge: `Bearer error="insufficient_scope"`}
	case err != nil:
		count("refused")
		return &refusal{reason: unauthorised, text: err.Error(), cause: err, challenge: `Bearer error="invalid_token"`}
	}
	count("ok")
	for name, claim := range g.config.Headers {
		if value, ok := told[claim]; ok && httpguts.ValidHeaderFieldValue(value) {
			x.in.Header.Set(name, value)
		}
	}
	return nil
}

// forwardGate asks another server about the requests of a route.
type forwardGate struct {
	config *configs.ForwardAuth
	client *http.Client
	slots  chan struct{}
}

// maxRelayed bounds the body of a server's "no" that goes to the client.
const maxRelayed = 64 << 10

func (l *Lasting) forwardGate(r *configs.Route) *forwardGate {
	if r.Auth == nil || r.Auth.Forward == nil {
		return nil
	}
	return &forwardGate{r.Auth.Forward, l.client, make(chan struct{}, r.Auth.Forward.Concurrent)}
}

// newAuthClient asks for keys and about requests. It follows no redirect: that is the client's to do.
func newAuthClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext, TLSHandshakeTimeout: 5 * time.Second, ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: 64, MaxIdleConns: 256, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// ask puts the request to the server.
func (g *forwardGate) ask(x *exchange) *refusal {
	count := func(result string) {
		x.p.o.Metrics.auths.WithLabelValues(x.match.service.name, "forward", result).Inc()
	}
	resp, err := g.answer(x)
	if err != nil {
		if x.in.Context().Err() != nil {
			return &refusal{reason: clientGone, text: "the client went away", cause: err}
		}
		count("error")
		if g.config.OnError == "allow" {
			return nil
		}
		return &refusal{reason: authUnavailable, text: "whether you may come can't be told now", cause: err}
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		count("ok")
		for _, name := range g.config.ResponseHeaders {
			if values := resp.Header.Values(name); len(values) > 0 {
				x.in.Header[http.CanonicalHeaderKey(name)] = values
			}
		}
		return nil
	}
	count("refused")
	return &refusal{reason: forbidden, text: "refused by the service's own check", relay: resp}
}

// relayed is another server's answer, read to its end.
type relayed struct {
	StatusCode int
	Header     http.Header
	Body       []byte
}

var (
	errAuthBusy  = errors.New("as many questions as auth.forward.concurrent allows are under way")
	errAuthFails = errors.New("the server that was asked failed")
)

func (g *forwardGate) answer(x *exchange) (*relayed, error) {
	select {
	case g.slots <- struct{}{}:
		defer func() { <-g.slots }()
	default:
		return nil, errAuthBusy
	}
	ctx, cancel := context.WithTimeout(x.in.Context(), g.config.Timeout.D())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.config.URL, nil)
	if err != nil {
		return nil, err
	}
	for _, name := range g.config.RequestHeaders {
		if values := x.in.Header.Values(name); len(values) > 0 {
			req.Header[http.CanonicalHeaderKey(name)] = values
		}
	}
	for name, value := range map[string]string{
		"X-Forwarded-Method": x.head.method, "X-Forwarded-Proto": x.head.scheme, "X-Forwarded-Host": x.head.authority,
		"X-Forwarded-Uri": x.head.uri(), "X-Forwarded-For": x.head.client.String(), "X-Request-Id": x.head.id,
	} {
		req.Header.Set(name, value)
	}
	resp, err := g.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 500 {
		return nil, errAuthFails
	}
	out := &relayed{StatusCode: resp.StatusCode, Header: resp.Header}
	if out.Body, err = io.ReadAll(io.LimitReader(resp.Body, maxRelayed)); err != nil {
		return nil, err
	}
	return out, nil
}

// relay hands another server's "no" to the client: what a browser needs to log in, and nothing that could be stored.
func (x *exchange) relay(r *relayed) {
	h := x.w.Header()
	for _, name := range []string{"Content-Type", "Location", "Set-Cookie", "Www-Authenticate"} {
		if values := r.Header.Values(name); len(values) > 0 {
			h[name] = values
		}
	}
	h.Set("Cache-Control", "no-store")
	x.w.WriteHeader(r.StatusCode)
	if x.in.Method != http.MethodHead && r.StatusCode != http.StatusNotModified {
		_, _ = x.w.Write(r.Body) // the client may be gone; the account says so
	}
}
