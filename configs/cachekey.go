package configs

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// plain tells a policy that says nothing but on.
func (c RouteCache) plain() bool {
	return !c.Off && c.TTL == nil && c.StaleWhileRevalidate == nil && c.StaleIfError == nil && len(c.Negative) == 0 &&
		c.Jitter == 0 && c.RefreshAhead == 0 && !c.RangeFill && c.Key.empty()
}

func (k CacheKey) empty() bool {
	return len(k.Query.Ignore)+len(k.Query.Keep)+len(k.Headers)+len(k.Cookies) == 0 && !k.Query.Sort
}

// String is off, on, or the mapping: {ttl: 30s, stale_if_error: 1h}.
func (c RouteCache) String() string {
	if c.Off {
		return "off"
	}
	if c.plain() {
		return "on"
	}
	var parts []string
	duration := func(name string, d *Duration) {
		if d != nil {
			parts = append(parts, name+": "+d.String())
		}
	}
	duration("ttl", c.TTL)
	duration("stale_while_revalidate", c.StaleWhileRevalidate)
	duration("stale_if_error", c.StaleIfError)
	if len(c.Negative) > 0 {
		var codes []string
		for _, code := range slices.Sorted(maps.Keys(c.Negative)) {
			codes = append(codes, code+": "+c.Negative[code].String())
		}
		parts = append(parts, "negative: {"+strings.Join(codes, ", ")+"}")
	}
	if c.Jitter > 0 {
		parts = append(parts, "jitter: "+c.Jitter.String())
	}
	if c.RangeFill {
		parts = append(parts, "range_fill: true")
	}
	if c.RefreshAhead > 0 {
		parts = append(parts, "refresh_ahead: "+c.RefreshAhead.String())
	}
	if !c.Key.empty() {
		parts = append(parts, "key: "+c.Key.String())
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// String is the mapping: {query: {ignore: [utm_*]}, headers: [X-Plan]}.
func (k CacheKey) String() string {
	list := func(name string, values []string) string {
		if len(values) == 0 {
			return ""
		}
		return fmt.Sprintf("%s: [%s]", name, strings.Join(values, ", "))
	}
	sort := ""
	if k.Query.Sort {
		sort = "sort: true"
	}
	query := joined(list("ignore", k.Query.Ignore), list("keep", k.Query.Keep), sort)
	if query != "" {
		query = "query: {" + query + "}"
	}
	return "{" + joined(query, list("headers", k.Headers), list("cookies", k.Cookies)) + "}"
}

func joined(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}

// routeCache checks a route's cache policy.
func (v *validator) routeCache(path string, c *RouteCache) {
	if c == nil {
		return
	}
	for _, code := range slices.Sorted(maps.Keys(c.Negative)) {
		if !slices.Contains([]string{"404", "405", "410", "414", "451", "501"}, code) {
			v.fault(join(path+".negative", code), "%s is not one of 404, 405, 410, 414, 451 and 501: other errors pass, or carry freshness of their own", code)
		}
	}
	key := path + ".key"
	for i, name := range c.Key.Headers {
		at := index(key+".headers", i)
		switch fault := tokenFault(name); {
		case fault != "":
			v.fault(at, "%s is not a header's name", v.show(at, name))
		case strings.EqualFold(name, "Cookie"):
			v.fault(at, "a key by the whole Cookie header is one of a single client: name the cookies that count in key.cookies")
		case strings.EqualFold(name, "Authorization"):
			v.fault(at, "Authorization can't be part of the key: what is stored for it would lie about for its holder alone")
		}
	}
	for i, name := range c.Key.Cookies {
		if at := index(key+".cookies", i); tokenFault(name) != "" {
			v.fault(at, "%s is not a cookie's name", v.show(at, name))
		}
	}
	for list, names := range map[string][]string{"ignore": c.Key.Query.Ignore, "keep": c.Key.Query.Keep} {
		for i, name := range names {
			at := index(key+".query."+list, i)
			if name == "" || strings.ContainsAny(name, "&= #") || strings.Contains(strings.TrimSuffix(name, "*"), "*") {
				v.fault(at, "%s is not a parameter's name, or the begin of one and *", v.show(at, name))
			}
		}
	}
}

// tokenFault tells what is no token (RFC 9110 section 5.6.2).
func tokenFault(s string) string {
	if s == "" {
		return "it is empty"
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return "it has characters that no name has"
		}
	}
	return ""
}
