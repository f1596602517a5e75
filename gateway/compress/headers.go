package compress

import (
	"net/http"
	"strings"
)

// addVary adds Accept-Encoding to Vary unless it says so already, or says * (RFC 9110 section 12.5.5).
func addVary(h http.Header) {
	for _, value := range h["Vary"] {
		if hasToken(value, "Accept-Encoding") || hasToken(value, "*") {
			return
		}
	}
	h.Add("Vary", "Accept-Encoding")
}

// hasToken tells whether a comma-separated list has the token, whatever its case.
func hasToken(list, token string) bool {
	for list != "" {
		var member string
		member, list, _ = strings.Cut(list, ",")
		if strings.EqualFold(strings.Trim(member, " \t"), token) {
			return true
		}
	}
	return false
}

// noTransform tells whether Cache-Control forbids to change the body (RFC 9111 section 5.2.2.6).
func noTransform(h http.Header) bool {
	for _, value := range h["Cache-Control"] {
		if hasToken(value, "no-transform") {
			return true
		}
	}
	return false
}

// encoded tells whether the body has a coding already. "identity" is not one (RFC 9110 section 12.5.3), but some
// origins send it.
func encoded(h http.Header) bool {
	for _, value := range h["Content-Encoding"] {
		if value != "" && !strings.EqualFold(strings.TrimSpace(value), "identity") {
			return true
		}
	}
	return false
}

// types is the set of media types that are compressed.
type types struct {
	exact  map[string]bool
	ranges []string // "text/" for text/*, "" for */*
}

func newTypes(list []string) types {
	t := types{exact: make(map[string]bool, len(list))}
	for _, name := range list {
		name = strings.ToLower(strings.TrimSpace(name))
		if main, ok := strings.CutSuffix(name, "*"); ok {
			t.ranges = append(t.ranges, strings.TrimPrefix(main, "*/"))
		} else {
			t.exact[name] = true
		}
	}
	return t
}

// has tells whether a response of this Content-Type may be compressed. Streams of events and of gRPC messages never
// are: their readers wait for each message, and gRPC compresses by itself.
func (t types) has(contentType string) bool {
	name, _, _ := strings.Cut(contentType, ";")
	name = strings.ToLower(strings.Trim(name, " \t"))
	switch {
	case name == "", name == "text/event-stream", strings.HasPrefix(name, "application/grpc"):
		return false
	case t.exact[name]:
		return true
	}
	for _, main := range t.ranges {
		if strings.HasPrefix(name, main) {
			return true
		}
	}
	return false
}
