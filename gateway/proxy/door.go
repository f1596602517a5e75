package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"landfall/configs"
	"landfall/gateway/upstream"
	"landfall/healthcheck"
	"landfall/routing"
)

// doorWithin bounds how long the pool may take behind the front door: less than any observer waits, so that a pool that
// hangs is told as one, and not as a silent door.
const doorWithin = time.Second

// doorTries is how many origins are asked before the pool counts as failing: one bad origin is the pool's own affair.
const doorTries = 3

// IsDoor tells a request for the reserved path of observers from all others.
func IsDoor(r *http.Request) bool {
	return r.URL.Path == healthcheck.DoorPath && r.Header.Get(healthcheck.DoorHeader) != ""
}

// ServeDoor answers an observer of another region that asks whether this front door serves a host: it goes the way of a
// client's request through the host's service, its routes and its pool, but isn't cached, limited, forwarded to another
// region or counted as a client's. It returns false for a request without a good pass, which is an ordinary one then.
func (p *Proxy) ServeDoor(w http.ResponseWriter, r *http.Request, passes *healthcheck.Passes) bool {
	host, ok := normalHost(r.Host)
	if !ok {
		return false
	}
	nonce, ok := passes.Admit(r, host, p.o.Now())
	if !ok {
		return false
	}
	a := healthcheck.DoorAnswer{Region: p.o.Region, Node: p.o.Node}
	if s := p.hosts.find(host); s != nil {
		a.Service = s.name
		a.State, a.Detail = p.throughPool(r.Context(), s, host)
	}
	body, seal := passes.Seal(nonce, a)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set(healthcheck.DoorHeader, seal)
	_, _ = w.Write(body)
	return true
}

// throughPool is what a request for the service meets behind the front door.
func (p *Proxy) throughPool(ctx context.Context, s *service, host string) (state, detail string) {
	first := s.config.Routes[0].Match
	method := http.MethodGet
	if len(first.Methods) > 0 {
		method = first.Methods[0]
	}
	if _, no := p.route(headResult{method: method, host: host, path: s.plans[0].pattern.text}, func(string) bool { return true }); no != nil {
		return routing.Down.String(), no.text
	}
	pool := p.o.Pools[s.name]
	if pool == nil {
		return routing.Unknown.String(), "the service has no origins in this region"
	}
	return s.door.ask(ctx, pool, s.config.Pool.Check, host, p.o.Now)
}

// door holds what was last found behind a service's front door, so that the origins' work doesn't grow with the number of
// observers.
type door struct {
	mu     sync.Mutex // held while the pool is asked: who comes meanwhile waits for the same answer
	at     time.Time
	state  string
	detail string
}

func (d *door) ask(ctx context.Context, pool *upstream.Pool, check *configs.Check, host string, now func() time.Time) (state, detail string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	hold := doorWithin
	if check != nil {
		hold = min(hold, check.Interval.D()/2)
	}
	if !d.at.IsZero() && now().Sub(d.at) < hold {
		return d.state, d.detail
	}
	found := pool.Usable()
	d.detail = ""
	switch {
	case found == routing.Down:
		d.detail = "its pool finds every origin down"
	case found == routing.Draining:
		found = routing.Up // they serve while nothing else is left
	case check != nil && check.Type == "http":
		found, d.detail = askPool(context.WithoutCancel(ctx), pool, check, host)
	}
	d.at, d.state = now(), found.String()
	return d.state, d.detail
}

// askPool sends the pool's own health check through it as a client's request goes: balancing, breakers and bounds.
func askPool(ctx context.Context, pool *upstream.Pool, check *configs.Check, host string) (state routing.State, detail string) {
	ctx, cancel := context.WithTimeout(ctx, min(doorWithin, check.Timeout.D()))
	defer cancel()
	for range doorTries {
		state, detail = askOrigin(ctx, pool, check, host)
		if state == routing.Up || ctx.Err() != nil || pool.Usable() == routing.Down {
			break
		}
	}
	return state, detail
}

func askOrigin(ctx context.Context, pool *upstream.Pool, check *configs.Check, host string) (routing.State, string) {
	if check.Host != "" {
		host = check.Host
	}
	u, err := url.ParseRequestURI(check.Path)
	if err != nil {
		return routing.Unknown, "the check's path can't be asked for"
	}
	r := (&http.Request{Method: http.MethodGet, URL: u, Host: host, Header: http.Header{"User-Agent": {"landfall-healthcheck"}}}).WithContext(ctx)
	resp, _, err := pool.RoundTrip(r, upstream.RetryPolicy{Total: doorWithin})
	if err != nil {
		cause := "no answer"
		var up *upstream.Error
		if errors.As(err, &up) {
			cause = up.Cause
		}
		if cause == upstream.CauseAtBound || cause == upstream.CauseShed {
			return routing.Up, "its pool is full" // too much to do is no failure: spilling and shedding see to it
		}
		return routing.Down, "through its pool: " + cause // the whole text holds addresses
	}
	_, _ = io.CopyN(io.Discard, resp.Body, maxDrain)
	_ = resp.Body.Close()
	if !check.Expect.Contains(resp.StatusCode) {
		return routing.Down, fmt.Sprintf("GET %s through its pool answered %d", check.Path, resp.StatusCode)
	}
	return routing.Up, ""
}
