package cache

import (
	"net/http"

	"github.com/dunglas/httpsfv"
)

// responseDirectives is what a response says to this cache: the first of its targeted fields that is there and well-formed
// (RFC 9213 section 2.2), which Cache-Control and Expires then don't add to, or else Cache-Control.
func responseDirectives(h http.Header) (cc directives, targeted bool) {
	for _, name := range [...]string{"Landfall-Cache-Control", "Cdn-Cache-Control"} {
		lines := h[name]
		if len(lines) == 0 {
			continue
		}
		if cc, ok := parseTargeted(lines); ok {
			return cc, true
		}
	}
	return parseDirectives(h["Cache-Control"]), false
}

// parseTargeted reads a targeted field: a Dictionary of structured fields (RFC 9651) with the directives as its keys. A
// member whose value is of another type than its directive has is not recognised, as that RFC says; ok is false for a
// field that is empty or is no Dictionary.
func parseTargeted(lines []string) (d directives, ok bool) {
	d = directives{maxAge: absent, sMaxAge: absent, staleWhileRevalidate: absent, staleIfError: absent}
	dict, err := httpsfv.UnmarshalDictionary(lines)
	if err != nil || len(dict.Names()) == 0 {
		return d, false
	}
	for _, name := range dict.Names() {
		member, _ := dict.Get(name)
		item, isItem := member.(httpsfv.Item)
		if !isItem {
			continue
		}
		switch value := item.Value.(type) {
		case bool:
			if value && !takesSeconds(name) {
				d.add(directive{name: name})
			}
		case string: // no-cache and private with field names count as without
			if name == "no-cache" || name == "private" {
				d.add(directive{name: name})
			}
		case int64:
			d.addSeconds(name, value)
		}
	}
	return d, true
}

func takesSeconds(name string) bool {
	switch name {
	case "max-age", "s-maxage", "stale-while-revalidate", "stale-if-error":
		return true
	}
	return false
}

func (d *directives) addSeconds(name string, n int64) {
	n = max(0, min(n, maxSeconds))
	switch name {
	case "max-age":
		d.maxAge = n
	case "s-maxage":
		d.sMaxAge = n
	case "stale-while-revalidate":
		d.staleWhileRevalidate = n
	case "stale-if-error":
		d.staleIfError = n
	}
}

const (
	maxGroups     = 32 // of one response, as RFC 9875 section 2 wants to be taken at least
	maxGroupBytes = 128
)

// groups reads Cache-Groups or Cache-Group-Invalidation: a List of Strings (RFC 9875). What is no such list names none, and
// so do members of another type.
func groups(lines []string) (names []string) {
	list, err := httpsfv.UnmarshalList(lines)
	if err != nil {
		return nil
	}
	for _, member := range list {
		item, ok := member.(httpsfv.Item)
		if !ok {
			continue
		}
		if name, ok := item.Value.(string); ok && name != "" && len(name) <= maxGroupBytes && len(names) < maxGroups {
			names = append(names, name)
		}
	}
	return names
}

// group is a cache group's cell: groups are of one origin, so of a scheme, host and port.
func (k Key) group(name string) cellName {
	return groupCell(k.Service, k.origin(), name)
}

// origin is the scheme, host and port of what the key is of.
func (k Key) origin() string { return k.Scheme + "://" + k.authority() }

func groupCell(service, origin, name string) cellName {
	return cellName{service, ofGroup, origin + "\n" + name}
}
