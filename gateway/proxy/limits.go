package proxy

import (
	"fmt"
	"strings"
	"time"

	"landfall/configs"
	"landfall/gateway/ratelimit"
)

// heldLimit is a rate limit that outlives reloads.
type heldLimit struct {
	*ratelimit.Limit
	terms ratelimit.Terms
	fleet bool
}

// limitNames are what the limits of a service's routes are known by, here and on other nodes: a route's path and methods in its
// service, and whom it counts. What it allows may change. Of routes that are alike in all of this each has a limit of its
// own, by their order; a route without a limit has no name.
func limitNames(service string, routes []configs.Route) []string {
	names, alike := make([]string, len(routes)), map[string]int{}
	for i := range routes {
		r, c := &routes[i], routes[i].RateLimit
		if c == nil {
			continue
		}
		name := fmt.Sprintf("%s %s %s flag=%s by=%s %s", service, strings.Join(r.Match.Methods, ","), r.Match.Path, r.Match.Flag, c.By, c.Scope)
		if alike[name]++; alike[name] > 1 {
			name = fmt.Sprintf("%s #%d", name, alike[name])
		}
		names[i] = name
	}
	return names
}

// limit is the rate limit of a route, by its name; nil where it has none. A new one allows what c says at once; one that is there does
// once InForce says so.
func (l *Lasting) limit(name string, c *configs.RateLimit) *ratelimit.Limit {
	if c == nil {
		return nil
	}
	terms, single := ratelimit.Terms{Rate: float64(c.Rate), Burst: c.Burst}, c.By == "route"
	l.mu.Lock()
	defer l.mu.Unlock()
	h, ok := l.limits[name]
	if !ok {
		h = heldLimit{terms: terms, fleet: c.Scope == "fleet"}
		if h.fleet {
			h.Limit = l.Limits.NewLimit(name, terms, single)
		} else {
			h.Limit = ratelimit.New(terms, single)
		}
		l.limits[name] = h
	}
	return h.Limit
}

// keepLimits brings the limits in step with a configuration that came into force. l.mu is held.
func (l *Lasting) keepLimits(c *configs.Config, now time.Time) {
	used := map[string]bool{}
	for service, s := range c.Services {
		for i, name := range limitNames(service, s.Routes) {
			r := &s.Routes[i]
			if name == "" {
				continue
			}
			if h, ok := l.limits[name]; ok {
				h.terms = ratelimit.Terms{Rate: float64(r.RateLimit.Rate), Burst: r.RateLimit.Burst}
				h.SetTerms(h.terms, now)
				l.limits[name] = h
			}
			used[name] = true
		}
	}
	for name, h := range l.limits {
		if !used[name] {
			if h.fleet {
				l.Limits.Drop(h.Limit)
			}
			delete(l.limits, name)
		}
	}
}
