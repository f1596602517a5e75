package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"landfall/configs"
	"landfall/gateway/upstream"
)

// service is a service of the configuration with its routes.
type service struct {
	name   string
	config *configs.Service
	routes []upstream.RetryPolicy // of each route
	meters []meter                // of each route
	gates  []*gatekeeper          // of each route
}

// routeResult is what the route phase found.
type routeResult struct {
	service *service
	route   *configs.Route
	policy  upstream.RetryPolicy
	meter   *meter
	gate    *gatekeeper
}

// hostTable finds a service by host: an exact name, else the longest *.suffix, else "*". It is immutable.
type hostTable struct {
	exact  map[string]*service
	suffix map[string]*service // ".example.com" for *.example.com
	any    *service
	named  map[string]*service
}

func newHostTable(c *configs.Config) (hostTable, error) {
	t := hostTable{exact: map[string]*service{}, suffix: map[string]*service{}, named: map[string]*service{}}
	for _, name := range ServiceNames(c) {
		s := &service{name: name, config: c.Services[name]}
		t.named[name] = s
		for i := range s.config.Routes {
			r := &s.config.Routes[i]
			policy, err := upstream.PolicyFrom(*r)
			if err != nil {
				return t, fmt.Errorf("service %s, route %s: %w", name, r.Match.Path, err)
			}
			s.routes, s.gates = append(s.routes, policy), append(s.gates, newGatekeeper(r))
		}
		s.meters = make([]meter, len(s.routes))
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

// route is the second phase: the service by host, then the first route that matches.
func (p *Proxy) route(h headResult) (routeResult, *refusal) {
	s := p.hosts.find(h.host)
	if h.hop > 0 {
		s = p.hosts.named[h.service] // the first node matched the host; during a rollout the two may differ
	}
	if s == nil {
		return routeResult{}, refused(unknownHost, "no service has this host")
	}
	if h.path == "*" && h.method == http.MethodOptions {
		return routeResult{service: s, route: &s.config.Routes[0], policy: s.routes[0]}, nil
	}
	allow := map[string]bool{}
	for i := range s.config.Routes {
		r := &s.config.Routes[i]
		if !matchPath(r.Match.Path, h.path) {
			continue
		}
		if len(r.Match.Methods) == 0 || slices.Contains(r.Match.Methods, h.method) || h.method == methodPurge {
			return routeResult{service: s, route: r, policy: s.routes[i], meter: &s.meters[i], gate: s.gates[i]}, nil
		}
		for _, m := range r.Match.Methods {
			allow[m] = true
		}
	}
	if len(allow) > 0 {
		no := refused(methodNotAllowed, "no route takes this method here")
		for m := range allow {
			no.allow = append(no.allow, m)
		}
		slices.Sort(no.allow)
		return routeResult{service: s}, no
	}
	return routeResult{service: s}, refused(noRoute, "no route matches this path")
}

// matchPath matches an exact path, or a prefix that ends in /*: /api/* matches /api/ and all below it, but not /api.
func matchPath(pattern, path string) bool {
	if prefix, wild := strings.CutSuffix(pattern, "*"); wild {
		return strings.HasPrefix(path, prefix)
	}
	return path == pattern
}

// ServiceOf is the name of the service that has a host (lower case, without port).
func (p *Proxy) ServiceOf(host string) (name string, ok bool) {
	s := p.hosts.find(host)
	if s == nil {
		return "", false
	}
	return s.name, true
}

// RouteOf is the index of the route that a method and a normalised path take in a service.
func (p *Proxy) RouteOf(service, method, path string) (index int, ok bool) {
	s := p.hosts.named[service]
	if s == nil {
		return 0, false
	}
	for i, r := range s.config.Routes {
		if matchPath(r.Match.Path, path) && (len(r.Match.Methods) == 0 || slices.Contains(r.Match.Methods, method)) {
			return i, true
		}
	}
	return 0, false
}

// NormalURL reads an absolute http or https URL the way that a request for it is normalised, so that what is purged or
// explained is what is served.
func NormalURL(raw string) (host, path, query string, err error) {
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
