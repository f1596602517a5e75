package configs

import (
	"net/netip"
	"net/url"
	"strings"
)

// flags checks the flags, whose names stand in commands and paths.
func (v *validator) flags() {
	for name, f := range v.c.Flags {
		path := join("flags", name)
		v.name(path, "flag", name)
		if kind, _, _ := strings.Cut(f.By, ":"); !sourceKnown(f.By) || kind == "url" {
			v.fault(path+".by", "%s is not one of client, header:NAME or cookie:NAME", v.show(path+".by", f.By))
		}
	}
}

// flagged checks that a route's flag exists.
func (v *validator) flagged(path, flag string) {
	if _, ok := v.c.Flags[flag]; flag != "" && !ok && !v.badAbove("flags") {
		v.fault(path, "%s is not a flag of this file: add it under flags", v.show(path, flag))
	}
}

// canaries checks the canaries of a service's routes, and that those to one service say the same.
func (v *validator) canaries(path, service string, routes []Route) {
	first := map[string]int{}
	for i := range routes {
		c, at := routes[i].Canary, index(path, i)+".canary"
		if c == nil {
			continue
		}
		v.canary(at, c)
		v.target(at+".to", service, c.To)
		stable := routes[i].To
		if stable != "" && stable == c.To {
			v.fault(at+".to", "%s is the stable side too", v.show(at+".to", c.To))
		}
		if routes[i].Redirect != nil || routes[i].Respond != nil {
			v.fault(at, "means nothing on a route that answers by itself")
		}
		j, again := first[c.To]
		if !again {
			first[c.To] = i
		} else if o := routes[j].Canary; !v.unsure(at) && (o.Weight != c.Weight || o.Sticky != c.Sticky || o.Rollback != c.Rollback) {
			line, _ := v.where(index(path, j) + ".canary")
			v.fault(at, "says other than the canary to the same service in line %d: they are one, and so must agree in weight, sticky and rollback", line)
		}
	}
}

func (v *validator) canary(path string, c *Canary) {
	if name, _, _ := strings.Cut(c.Header, ":"); c.Header != "" && (!tokenPattern.MatchString(name) || !fieldValue(c.Header)) {
		v.fault(path+".header", "%s is not a header field: write NAME, or NAME: VALUE", v.show(path+".header", c.Header))
	}
	if name, _, _ := strings.Cut(c.Cookie, "="); c.Cookie != "" && (!tokenPattern.MatchString(name) || strings.ContainsAny(c.Cookie, "; \",\\")) {
		v.fault(path+".cookie", "%s is not a cookie: write NAME, or NAME=VALUE", v.show(path+".cookie", c.Cookie))
	}
	if r := c.Rollback; r.Confidence < 0.5 || r.Confidence > 0.99999 {
		v.fault(path+".rollback.confidence", "%s is not from 50%% to 99.999%%", r.Confidence)
	}
}

// maxFaults bounds the faults of a file; each is looked at for each attempt.
const maxFaults = 64

func (v *validator) chaos() {
	faults := v.c.Chaos.Faults
	if len(faults) > 0 && !v.c.Chaos.Enabled && !v.unsure("chaos.enabled") {
		v.fault("chaos.faults", "means nothing without chaos.enabled: true")
	}
	if len(faults) > maxFaults {
		v.fault("chaos.faults", "has %d faults; the most is %d", len(faults), maxFaults)
	}
	for name, f := range faults {
		path := join("chaos.faults", name)
		v.name(path, "fault", name)
		if s := v.c.Services[f.Service]; f.Service != "" && s == nil && !v.badAbove("services") {
			v.fault(path+".service", "%s is not a service of this file", v.show(path+".service", f.Service))
		}
		if f.Route != "" && pathFault(f.Route) != "" {
			v.fault(path+".route", "%s %s", v.show(path+".route", f.Route), pathFault(f.Route))
		}
		if f.Origin != "" && originFault(f.Origin) != "" {
			v.fault(path+".origin", "%s %s", v.show(path+".origin", f.Origin), originFault(f.Origin))
		}
		if why := f.Wrong(); why != "" && !v.unsure(path) {
			v.fault(path, "%s", why)
		}
	}
}

// Wrong says why a fault can't be made; empty: it can.
func (f Fault) Wrong() string {
	switch {
	case f.Delay == 0 && f.Abort == 0 && !f.Reset && f.SlowBody == 0:
		return "does nothing: give delay, abort, reset or slow_body"
	case f.Abort != 0 && f.Abort < 200:
		return "abort must be a final status, 200 to 599"
	case f.Abort != 0 && f.Reset, f.SlowBody != 0 && (f.Abort != 0 || f.Reset):
		return "can only do one of abort, reset and slow_body"
	}
	return ""
}

func (v *validator) auth(path string, a *Auth) {
	if a == nil {
		return
	}
	if j := a.JWT; j != nil {
		at := path + ".jwt"
		if u, err := url.Parse(j.JWKS); j.JWKS != "" && (err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || !loopbackHost(u.Hostname()))) {
			v.fault(at+".jwks", "%s is not an https URL, nor http on loopback: whoever can change the keys on their way can sign tokens", v.show(at+".jwks", j.JWKS))
		}
		for claim := range j.Require {
			v.claim(join(at+".require", claim), claim)
		}
		for name, claim := range j.Headers {
			v.settable(join(at+".headers", name), name)
			v.claim(join(at+".headers", name), claim)
		}
		if j.Issuer != "" && !fieldValue(j.Issuer) {
			v.fault(at+".issuer", "holds a control character")
		}
	}
	if f := a.Forward; f != nil {
		at := path + ".forward"
		if u, err := url.Parse(f.URL); f.URL != "" && (err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http") {
			v.fault(at+".url", "%s is not an http or https URL", v.show(at+".url", f.URL))
		}
		for i, name := range f.RequestHeaders {
			if !tokenPattern.MatchString(name) {
				v.fault(index(at+".request_headers", i), "%s is not the name of a header field", v.show(index(at+".request_headers", i), name))
			}
		}
		for i, name := range f.ResponseHeaders {
			v.settable(index(at+".response_headers", i), name)
		}
	}
}

func loopbackHost(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

func (v *validator) claim(path, name string) {
	if name == "" || len(name) > 256 || !fieldValue(name) {
		v.fault(path, "%q is not the name of a claim", name)
	}
}
