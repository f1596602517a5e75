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

// limitName is what a limit is known by, here and on other nodes: a route's path and methods in its service, and whom it
// counts. What it allows may change.
func limitName(service string, r *configs.Route) string {
	c := r.RateLimit
	return fmt.Sprintf("%s %s %s flag=%s by=%s %s", service, strings.Join(r.Match.Methods, ","), r.Match.Path, r.Match.Flag, c.By, c.Scope)
}

// limit is the rate limit of a route; nil where it has none. A new one allows what c says at once; one that is there does
// once InForce says so.
func (l *Lasting) limit(service string, r *configs.Route) *ratelimit.Limit {
	c := r.RateLimit
	if c == nil {
		return nil
	}
	name, terms, single := limitName(service, r), ratelimit.Terms{Rate: float64(c.Rate), Burst: c.Burst}, c.By == "route"
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
		for i := range s.Routes {
			r := &s.Routes[i]
			if r.RateLimit == nil {
				continue
			}
			name := limitName(service, r)
			if h, ok := l.limits[name]; ok && !used[name] {
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
