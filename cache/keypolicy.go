package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// KeyPolicy says what of a request tells its key apart, beside service, scheme, host, port and path. What it leaves out of
// the query is left out of the request that a stored answer comes from, too, so that it can't change what others get. It
// is immutable once used.
type KeyPolicy struct {
	Ignore  []string // query parameters that don't count; NAME, or PREFIX* for all that begin so
	Keep    []string // if any: the only ones that count
	Sort    bool     // the order of parameters with different names doesn't count
	Headers []string // request fields that count, in canonical form
	Cookies []string // cookies that count
}

// Query is the part of a query that counts. Without Ignore, Keep and Sort it is the query to the letter.
func (p *KeyPolicy) Query(query string) string {
	if p == nil || query == "" || len(p.Ignore) == 0 && len(p.Keep) == 0 && !p.Sort {
		return query
	}
	var kept []string
	for pair := range strings.SplitSeq(query, "&") {
		// The name as it stands: escapes are not undone, so that no two spellings which an origin might tell apart become
		// one. A semicolon is no separator (WHATWG URL), so it can't hide a parameter.
		name, _, _ := strings.Cut(pair, "=")
		if matchesName(p.Ignore, name) || len(p.Keep) > 0 && !matchesName(p.Keep, name) {
			continue
		}
		kept = append(kept, pair)
	}
	if p.Sort {
		slices.SortStableFunc(kept, func(a, b string) int {
			x, _, _ := strings.Cut(a, "=")
			y, _, _ := strings.Cut(b, "=")
			return strings.Compare(x, y)
		})
	}
	return strings.Join(kept, "&")
}

func matchesName(patterns []string, name string) bool {
	for _, p := range patterns {
		prefix, wild := strings.CutSuffix(p, "*")
		if p == name || wild && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// extra is a text that differs exactly when the header fields and cookies that count differ: each is written with its
// value's length, or as absent, and its name, as another policy (before a reload, or of another node) has others.
func (p *KeyPolicy) extra(h http.Header) string {
	if p == nil || len(p.Headers) == 0 && len(p.Cookies) == 0 {
		return ""
	}
	var b strings.Builder
	write := func(value string, present bool, name, end string) {
		if present {
			b.WriteString(strconv.Itoa(len(value)))
			b.WriteByte(':')
			b.WriteString(value)
		} else {
			b.WriteByte('-')
		}
		b.WriteString(name)
		b.WriteString(end)
	}
	for _, name := range p.Headers {
		value, present := fieldValue(h, name)
		write(value, present, name, ";")
	}
	for _, name := range p.Cookies {
		value, present := cookie(h, name)
		write(value, present, name, "=;")
	}
	return b.String()
}

// Digest is a short text that tells policies apart which may make different keys of one request. Caches that share what
// they store must have the same; nil has that of the empty policy.
func (p *KeyPolicy) Digest() string {
	if p == nil {
		p = &KeyPolicy{}
	}
	var text packer
	for _, list := range [...][]string{p.Ignore, p.Keep, p.Headers, p.Cookies} {
		text.lines(list)
	}
	if p.Sort {
		text.number(1)
	}
	sum := sha256.Sum256(text.b)
	return hex.EncodeToString(sum[:8])
}

// cookie is the value of the first cookie of a name (RFC 6265 section 5.4).
func cookie(h http.Header, name string) (value string, present bool) {
	for _, line := range h["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			n, v, ok := strings.Cut(strings.Trim(pair, " \t"), "=")
			if ok && n == name {
				return v, true
			}
		}
	}
	return "", false
}

// overrides are fields by which a client could make an origin answer another request than the key tells of. They are not
// in the key, so a fetch that may be stored doesn't carry them.
func overrides(name string) bool {
	switch name {
	case "X-Original-Url", "X-Rewrite-Url", "X-Original-Uri", "X-Http-Method-Override", "X-Http-Method", "X-Method-Override",
		"X-Forwarded-Scheme", "X-Forwarded-Ssl", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Path",
		"X-Forwarded-Server", "X-Forwarded-Uri", "X-Host", "X-Original-Host", "X-Url-Scheme", "Front-End-Https":
		return true
	}
	return false
}
