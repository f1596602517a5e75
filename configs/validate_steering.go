package configs

import (
	"maps"
	"slices"
	"strings"
)

// redirectNames puts the names that lead to regions in lower case, and holds them against the service's hosts.
func (v *validator) redirectNames(path string, s *Service) {
	r := s.Steering.Redirect
	if r == nil {
		return
	}
	regions := map[string]string{} // by name
	for _, region := range slices.Sorted(maps.Keys(r.Names)) {
		at, host := join(path+".names", region), strings.ToLower(r.Names[region])
		r.Names[region] = host
		v.region(at, region)
		if host == "" || v.badAbove(at) {
			continue // reported as unreadable
		}
		if fault := hostFault(host); fault != "" || strings.Contains(host, "*") {
			v.fault(at, "%s is not the name of one host", v.show(at, host))
			continue
		}
		if other, ok := regions[host]; ok {
			v.fault(at, "%s leads to %s already", v.show(at, host), other)
		}
		regions[host] = region
		if !slices.ContainsFunc(s.Hosts, func(h string) bool { return covers(h, host) }) {
			v.fault(at, "%s is not among the service's hosts: add it there, so that it is served", v.show(at, host))
		}
	}
	if r.Names != nil && len(r.Names) < 2 && !v.badAbove(path+".names") {
		v.fault(path+".names", "names fewer than two regions: there is none to be sent on to")
	}
	for i, m := range r.Methods {
		if at := index(path+".methods", i); !methodPattern.MatchString(m) || m == "CONNECT" || m == "PURGE" {
			v.fault(at, "%s is not a method that can be sent on", v.show(at, m))
		}
	}
	if r.By == "alt_svc" && v.written(path+".status") {
		v.fault(path+".status", "means nothing with by: alt_svc")
	}
}

// covers tells whether a service's host pattern takes a host.
func covers(pattern, host string) bool {
	suffix, wild := strings.CutPrefix(pattern, "*")
	return pattern == host || wild && strings.HasSuffix(host, suffix) && len(host) > len(suffix)
}

// rttHeader checks the field in which proxies tell round trips.
func (v *validator) rttHeader(path string) {
	name := v.c.DNS.RTT.Header
	switch {
	case name == "":
	case !tokenPattern.MatchString(name):
		v.fault(path, "%s is not a header field", v.show(path, name))
	case len(v.c.Listen.TrustedProxies) == 0 && !v.badAbove("listen.trusted_proxies"):
		v.fault(path, "is believed from listen.trusted_proxies alone, and none are named")
	case !v.c.DNS.RTT.Measure:
		v.fault(path, "means nothing with measure: false")
	}
}
