package cache

import (
	"net/http"
	"strings"
	"time"
)

// validETag is an entity-tag as it was sent, or "" for what is none (RFC 9110 section 8.8.3).
func validETag(s string) string {
	s = strings.Trim(s, " \t")
	if tag, rest := cutETag(s); tag != "" && rest == "" {
		return tag
	}
	return ""
}

// cutETag cuts the entity-tag off the begin of s; tag is "" where there is none.
func cutETag(s string) (tag, rest string) {
	start := 0
	if strings.HasPrefix(s, "W/") {
		start = 2
	}
	if len(s) < start+2 || s[start] != '"' {
		return "", s
	}
	for i := start + 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return s[:i+1], s[i+1:]
		case c < 0x21 || c == 0x7f:
			return "", s
		}
	}
	return "", s
}

// weakEqual is the weak comparison of RFC 9110 section 8.8.3.2.
func weakEqual(a, b string) bool { return strings.TrimPrefix(a, "W/") == strings.TrimPrefix(b, "W/") }

// strongEqual is the strong comparison.
func strongEqual(a, b string) bool { return a != "" && a == b && !strings.HasPrefix(a, "W/") }

// listsETag tells whether an If-None-Match names the tag, or is "*". It reads up to the first thing that is no tag.
func listsETag(lines []string, tag string) bool {
	for _, line := range lines {
		for {
			line = strings.TrimLeft(line, " \t,")
			if strings.HasPrefix(line, "*") {
				return true
			}
			var listed string
			if listed, line = cutETag(line); listed == "" {
				break
			}
			if tag != "" && weakEqual(listed, tag) {
				return true
			}
		}
	}
	return false
}

// validators are what conditions are compared with.
type validators struct {
	status             int
	etag               string
	lastModified, date time.Time
}

func (m *meta) validators() validators {
	return validators{status: m.status, etag: m.etag, lastModified: m.lastModified, date: m.date}
}

// notModified tells whether a client that sent these conditions already has the response (RFC 9110 section 13.2.2 and
// RFC 9111 section 4.3.2). If-Match and If-Unmodified-Since are for the origin alone.
func notModified(m validators, request http.Header) bool {
	if m.status < 200 || m.status > 299 {
		return false
	}
	if lines := request["If-None-Match"]; len(lines) > 0 {
		return listsETag(lines, m.etag)
	}
	lines := request["If-Modified-Since"]
	if len(lines) != 1 {
		return false
	}
	since, err := parseDate(lines[0])
	if err != nil {
		return false
	}
	modified := m.lastModified
	if modified.IsZero() {
		modified = m.date
	}
	return !modified.After(since)
}

// asksIfModified tells whether a request has conditions that a cache evaluates.
func asksIfModified(h http.Header) bool {
	return len(h["If-None-Match"]) > 0 || len(h["If-Modified-Since"]) > 0
}

// isConditional tells whether a request has conditions of its own.
func isConditional(h http.Header) bool {
	for _, name := range [...]string{"If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since"} {
		if len(h[name]) > 0 {
			return true
		}
	}
	return false
}

// rangeApplies evaluates If-Range (RFC 9110 section 13.1.5): it wants a strong validator.
func rangeApplies(m validators, request http.Header) bool {
	lines := request["If-Range"]
	if len(lines) == 0 {
		return true
	}
	if len(lines) > 1 {
		return false
	}
	if tag := validETag(lines[0]); tag != "" {
		return strongEqual(tag, m.etag)
	}
	at, err := parseDate(lines[0])
	return err == nil && !m.lastModified.IsZero() && at.Equal(m.lastModified) &&
		m.date.Sub(m.lastModified) >= time.Second // section 8.8.2.2
}
