package configs

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tokenPattern is a field name or a cookie name (RFC 9110 section 5.1, RFC 6265 section 4.1.1).
var tokenPattern = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}$")

// policy checks what the pools of a service have in common.
func (v *validator) policy(path string, p *PoolPolicy) {
	if !sourceKnown(p.HashBy) {
		v.fault(path+".hash_by", "%s is not one of client, url, header:NAME or cookie:NAME", v.show(path+".hash_by", p.HashBy))
	} else if p.HashBy != "client" && p.Balance != "hash" && !v.unsure(path+".balance") {
		v.fault(path+".hash_by", "means nothing with balance: %s; write balance: hash, or leave it out", p.Balance)
	}
	v.originTLS(path+".tls", p.TLS)
	c := string(p.Concurrency)
	if n, err := strconv.Atoi(c); c != "off" && c != "adaptive" && (err != nil || n < 1 || n > 1_000_000) {
		v.fault(path+".concurrency", "%s is not a number from 1 to 1000000, adaptive or off", v.show(path+".concurrency", c))
	}
}

var serverNamePattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?$`)

// originTLS checks TLS towards origins; that the files can be read is seen where they are used.
func (v *validator) originTLS(path string, t *OriginTLS) {
	if t == nil {
		return
	}
	if t.ServerName != "" && !serverNamePattern.MatchString(t.ServerName) {
		v.fault(path+".server_name", "%s is not a host name", v.show(path+".server_name", t.ServerName))
	}
	if (t.Cert == "") != (t.Key == "") {
		v.fault(path, "cert and key belong together: give both or none")
	}
}

// sourceKnown tells whether a value of the request has a name that the gateway knows.
func sourceKnown(by string) bool {
	kind, name, named := strings.Cut(by, ":")
	switch kind {
	case "client", "url":
		return !named
	case "header", "cookie":
		return tokenPattern.MatchString(name)
	}
	return false
}

// weights holds the weights to the origins that they are of.
func (v *validator) weights(path string, pool Pool) {
	for origin := range pool.Weights {
		if !slices.Contains(pool.Origins, origin) {
			at := join(path, origin)
			v.fault(at, "%s is not one of the pool's origins", v.show(at, origin))
		}
	}
}

func (v *validator) hedge(path string, h *Hedge) {
	if h == nil {
		return
	}
	if _, _, ok := h.When(); !ok {
		v.fault(path+".after", "%s is not one of p50, p90, p95, p99, nor a duration from 1ms to 1m", v.show(path+".after", h.After))
	}
}

// When is after how long a hedge is sent: a share of the route's requests that are faster (0.95), or a fixed time.
func (h Hedge) When() (quantile float64, fixed time.Duration, ok bool) {
	switch h.After {
	case "p50", "p90", "p95", "p99":
		n, _ := strconv.Atoi(h.After[1:]) // two digits
		return float64(n) / 100, 0, true
	}
	d, err := time.ParseDuration(h.After)
	return 0, d, err == nil && d >= time.Millisecond && d <= time.Minute
}
