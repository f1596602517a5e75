package proxy

import (
	"net/http"
	"strings"

	"landfall/gateway/upstream"
)

// hashKey is what balance: hash keeps on one origin, of a request on its way there; 0: nothing, any origin will do.
func (x *exchange) hashKey(h http.Header) uint64 {
	pool := &x.p.hosts.named[x.target()].config.Pool
	if pool.Balance != "hash" {
		return 0
	}
	value, ok := x.sourced(pool.HashBy, h)
	if !ok {
		return 0
	}
	return max(upstream.HashKey(value, 0), 1)
}

// sourced is a value of the request by the name that a config gives it: client, url, header:NAME or cookie:NAME.
func (x *exchange) sourced(by string, h http.Header) (value string, ok bool) {
	kind, name, _ := strings.Cut(by, ":")
	switch kind {
	case "client":
		return x.head.client.String(), true
	case "url":
		return x.head.host + x.head.uri(), true
	case "header":
		value = h.Get(name)
		return value, value != ""
	case "cookie":
		return cookieOf(h, name)
	}
	return "", false
}

// cookieOf is the value of a cookie that has one.
func cookieOf(h http.Header, name string) (value string, ok bool) {
	for _, line := range h["Cookie"] {
		cookies, err := http.ParseCookie(line)
		if err != nil {
			continue
		}
		for _, c := range cookies {
			if c.Name == name && c.Value != "" {
				return c.Value, true
			}
		}
	}
	return "", false
}
