package proxy

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"landfall/cache"
	"landfall/configs"
	"landfall/gateway/homes"
	"landfall/gateway/upstream"
)

// service is a service of the configuration with its routes.
type service struct {
	name   string
	config *configs.Service
	plans  []plan // of each route

	paths  pathRules
	pathOf func(*url.URL) (string, bool) // by these rules, for the cache

	homes   *homes.Directory // nil without an affinity
	writers writers
	door    door
	waits   *Waits
}

// plan is what a route means for its requests, worked out once.
type plan struct {
	route    *configs.Route
	pattern  pattern
	guards   int // routes of the service that are guarded alike have the same number
	policy   upstream.RetryPolicy
	meter    *meter
	gate     *gatekeeper
	key      *cache.KeyPolicy
	keyed    string // its digest
	negative map[int]time.Duration
	canary   *canaryPlan
	variant  string // in the cache's key: who has the flag must not get what others do
}

// routeResult is what the route phase found.
type routeResult struct {
	service *service
	plan
}

// hostTable finds a service by host: an exact name, else the longest *.suffix, else "*". It is immutable.
type hostTable struct {
	exact  map[string]*service
	suffix map[string]*service // ".example.com" for *.example.com
	any    *service
	named  map[string]*service
}

func newHostTable(c *configs.Config, p *Proxy) (hostTable, error) {
	l := p.o.Lasting
	t := hostTable{exact: map[string]*service{}, suffix: map[string]*service{}, named: map[string]*service{}}
	for _, name := range ServiceNames(c) {
		s := &service{name: name, config: c.Services[name], paths: pathRulesOf(c.Services[name].Paths)}
		s.pathOf = s.paths.of
		t.named[name] = s
		classes, limits := guardClasses(s.config.Routes), limitNames(name, s.config.Routes)
		for i := range s.config.Routes {
			r := &s.config.Routes[i]
			policy, err := upstream.PolicyFrom(*r)
			if err != nil {
				return t, fmt.Errorf("service %s, route %s: %w", name, r.Match.Path, err)
			}
			key := keyPolicy(r)
			s.plans = append(s.plans, plan{
				route: r, pattern: s.paths.pattern(r.Match.Path), guards: classes[i], policy: policy, meter: new(meter), gate: l.gatekeeper(limits[i], s.config, r, p),
				key: key, keyed: key.Digest() + s.paths.digest(), negative: negativeTTLs(r.Cache),
				canary: l.canaryPlan(name, r.Canary, p.o.Metrics), variant: flagVariant(r.Match.Flag),
			})
		}
		for _, h := range s.config.Hosts {
			switch {
			case h == "*":
				t.any = s
			case strings.HasPrefix(h, "*."):
				t.suffix[h[1:]] = s
			default:
				t.exact[h] = s
			}
		}
	}
	return t, nil
}

// ServiceNames are the services in the order of every routing snapshot made from c.
func ServiceNames(c *configs.Config) []string {
	names := make([]string, 0, len(c.Services))
	for name := range c.Services {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (t *hostTable) find(host string) *service {
	if s := t.exact[host]; s != nil {
		return s
	}
	for i := strings.IndexByte(host, '.'); i >= 0; {
		if s := t.suffix[host[i:]]; s != nil {
			return s
		}
		next := strings.IndexByte(host[i+1:], '.')
		if next < 0 {
			break
		}
		i += 1 + next
	}
	return t.any
}

func flagVariant(flag string) string {
	if flag == "" {
		return ""
	}
	return "=flag " + flag
}

// route is the second phase: the service by host, then the first route that matches. on tells which flags are on for the
// request.
func (p *Proxy) route(h headResult, on func(flag string) bool) (routeResult, *refusal) {
	s := p.hosts.find(h.host)
	if h.hop > 0 {
		s = p.hosts.named[h.service] // the first node matched the host; during a rollout the two may differ
	}
	if s == nil {
		return routeResult{}, refused(unknownHost, "no service has this host")
	}
	if h.path == "*" && h.method == http.MethodOptions {
		return routeResult{service: s, plan: s.plans[0]}, nil
	}
	i, allow := s.take(matchForm(h.path), h, on)
	switch {
	case i >= 0 && s.ambiguous(h, i, on):
		return routeResult{service: s}, refused(malformed, "the path can be read in more than one way; write it plainly")
	case i >= 0:
		return routeResult{service: s, plan: s.plans[i]}, nil
	case len(allow) > 0:
		no := refused(methodNotAllowed, "no route takes this method here")
		no.allow = slices.Sorted(maps.Keys(allow))
		return routeResult{service: s}, no
	}
	return routeResult{service: s}, refused(noRoute, "no route matches this path")
}

// take is the index of the first route that takes a request for a path in matchForm; -1: none does, and allow are the
// methods that some would take it with.
func (s *service) take(form string, h headResult, on func(flag string) bool) (at int, allow map[string]bool) {
	for i := range s.plans {
		r := s.plans[i].route
		if !s.plans[i].pattern.matches(form) || r.Match.Flag != "" && !on(r.Match.Flag) {
			continue
		}
		if takesMethod(r, h) {
			return i, nil
		}
		if allow == nil {
			allow = map[string]bool{}
		}
		for _, m := range r.Match.Methods {
			allow[m] = true
		}
	}
	return -1, allow
}

// takesMethod tells whether a route takes the request's method. A preflight is about another one (Fetch standard, section
// 3.2.2), and belongs to the route that this will take.
func takesMethod(r *configs.Route, h headResult) bool {
	return len(r.Match.Methods) == 0 || slices.Contains(r.Match.Methods, h.method) || h.method == methodPurge ||
		r.CORS != nil && h.asks != "" && slices.Contains(r.Match.Methods, h.asks)
}

// ServiceOf is the name of the service that has a host (lower case, without port).
func (p *Proxy) ServiceOf(host string) (name string, ok bool) {
	s := p.hosts.find(host)
	if s == nil {
		return "", false
	}
	return s.name, true
}

// RouteOf is the index of the route that a method and a normalised path take in a service, for clients whom only flags are
// on for that are on for all.
func (p *Proxy) RouteOf(service, method, path string) (index int, ok bool) {
	s := p.hosts.named[service]
	if s == nil {
		return 0, false
	}
	form := matchForm(path)
	for i, r := range s.config.Routes {
		if r.Match.Flag != "" && p.o.Lasting.FlagWeight(p.o.Config, r.Match.Flag) < 1 {
			continue
		}
		if s.plans[i].pattern.matches(form) && (len(r.Match.Methods) == 0 || slices.Contains(r.Match.Methods, method)) {
			return i, true
		}
	}
	return 0, false
}

func keyPolicy(r *configs.Route) *cache.KeyPolicy {
	c := r.Cache
	if c == nil {
		return &cache.KeyPolicy{Headers: identityHeaders(r)}
	}
	k := &cache.KeyPolicy{Headers: identityHeaders(r), Ignore: c.Key.Query.Ignore, Keep: c.Key.Query.Keep, Sort: c.Key.Query.Sort, Cookies: c.Key.Cookies}
	for _, name := range c.Key.Headers {
		k.Headers = append(k.Headers, http.CanonicalHeaderKey(name))
	}
	return k
}

func negativeTTLs(c *configs.RouteCache) map[int]time.Duration {
	if c == nil || len(c.Negative) == 0 {
		return nil
	}
	out := map[int]time.Duration{}
	for code, d := range c.Negative {
		if n, err := strconv.Atoi(code); err == nil { // validation lets only numbers through
			out[n] = d.D()
		}
	}
	return out
}

// KeyQueries are the forms under which the cache may hold a query of a path: that of each route that takes the path, as
// a purge does not say by which method the page was asked for.
func (p *Proxy) KeyQueries(service, path, query string) []string {
	out := []string{query}
	s := p.hosts.named[service]
	if s == nil {
		return out
	}
	form := matchForm(path)
	for i := range s.plans {
		if q := s.plans[i].key.Query(query); s.plans[i].pattern.matches(form) && !slices.Contains(out, q) {
			out = append(out, q)
		}
	}
	return out
}

// NormalURL reads an absolute http or https URL the way that a request for it is normalised, so that what is purged or
// explained is what is served.
func (p *Proxy) NormalURL(raw string) (host, path, query string, err error) {
	if host, path, query, err = parseURL(raw); err != nil {
		return "", "", "", err
	}
	if s := p.hosts.find(host); s != nil {
		ok := false
		if path, ok = s.paths.normal(path); !ok {
			return "", "", "", fmt.Errorf("service %s refuses paths with an escaped slash", s.name)
		}
	}
	return host, path, query, nil
}

// parseURL is NormalURL without what a service says of paths.
func parseURL(raw string) (host, path, query string, err error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", "", "", errors.New("not a URL: write it like https://shop.example.com/path")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Opaque != "" {
		return "", "", "", errors.New("not an absolute http or https URL: write it like https://shop.example.com/path")
	}
	host, ok := normalHost(u.Host)
	if !ok {
		return "", "", "", fmt.Errorf("%q is not a host name", u.Host)
	}
	if path, ok = normalPath(u); !ok {
		return "", "", "", errors.New("the path is not an absolute path")
	}
	return host, path, u.RawQuery, nil
}
