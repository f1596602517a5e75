package cache

import (
	"net/http"
	"slices"
	"strings"
)

const (
	maxVariants   = 64 // stored responses of one URL, all schemes, ports and Vary values together
	maxVaryFields = 16 // fields that one Vary may name
)

// varyNames are the fields that a response's Vary names, canonical, sorted, without those that cannot differ between
// requests of one key. ok is false when no key can be made of it: "*", too many, or a field that the gateway writes on
// the way to the origin, whose value is not known here.
func varyNames(header http.Header) (names []string, ok bool) {
	for _, line := range header["Vary"] {
		for name := range strings.SplitSeq(line, ",") {
			name = http.CanonicalHeaderKey(strings.Trim(name, " \t"))
			switch name {
			case "", "Host", "X-Forwarded-Host", "X-Forwarded-Proto":
				continue // in the key already
			case "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range", "Range",
				"Cache-Control", "Pragma":
				continue // never part of a fetch that is stored
			}
			if overrides(name) {
				continue
			}
			switch name {
			case "*", "X-Forwarded-For", "X-Real-Ip", "Forwarded", "Via", "Cdn-Loop", "X-Request-Id",
				"Traceparent", "Tracestate":
				return nil, false
			}
			if !slices.Contains(names, name) {
				if len(names) == maxVaryFields {
					return nil, false
				}
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names, true
}

// fieldValue is a field's value in the form that variants are compared in: lines joined, outer whitespace gone. An
// absent field is not the same as an empty one, but for Accept-Encoding, where both mean "no coding" to the gateway.
func fieldValue(h http.Header, name string) (value string, present bool) {
	if name == "Accept-Encoding" {
		return coding(h), true
	}
	lines, present := h[name]
	if len(lines) == 1 {
		return strings.Trim(lines[0], " \t"), present
	}
	return strings.Join(lines, ", "), present
}

// coding is the content coding that a request asks for, of a closed set. Anything else is as if none was acceptable;
// a fetch for it says so too (see prepare), or a coded answer would be stored where a plain one is expected.
func coding(h http.Header) string {
	if v := h["Accept-Encoding"]; len(v) == 1 {
		switch v[0] {
		case "gzip", "br", "zstd":
			return v[0]
		}
	}
	return ""
}

// variantOf is a text that differs for requests which the named fields tell apart: it keeps requests that cannot share
// an answer from waiting for each other.
func variantOf(names []string, request http.Header) string {
	if len(names) == 0 || (len(names) == 1 && names[0] == "Accept-Encoding") {
		return coding(request)
	}
	var b strings.Builder
	b.WriteString(coding(request))
	for _, name := range names {
		value, present := fieldValue(request, name)
		b.WriteByte('\n') // no field name or value holds a line feed
		b.WriteString(name)
		if present {
			b.WriteByte(':')
			b.WriteString(value)
		}
	}
	return b.String()
}
