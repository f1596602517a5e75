package cache

import (
	"net/http"
	"strings"
)

const (
	maxKeys     = 256     // surrogate keys of one response
	maxKeyBytes = 1 << 10 // of one key
)

// surrogateKeys are the keys that a response is to be purged by: those of Surrogate-Key, separated by spaces, those of
// Cache-Tag, separated by commas, and those that another cache of the fleet tells. They are case-sensitive. ok is false when there are more than are kept: a response
// that can't be purged as its origin means is not stored.
func surrogateKeys(h http.Header) (keys []string, ok bool) {
	var seen map[string]struct{}
	add := func(key string) bool {
		if key == "" {
			return true
		}
		if _, again := seen[key]; again {
			return true
		}
		if len(keys) == maxKeys || len(key) > maxKeyBytes {
			return false
		}
		if seen == nil {
			seen = make(map[string]struct{})
		}
		seen[key] = struct{}{}
		keys = append(keys, key)
		return true
	}
	for _, key := range h[HeaderKey] {
		if !add(key) {
			return nil, false
		}
	}
	for _, line := range h["Surrogate-Key"] {
		for key := range strings.FieldsSeq(line) {
			if !add(key) {
				return nil, false
			}
		}
	}
	for _, line := range h["Cache-Tag"] {
		for key := range strings.SplitSeq(line, ",") {
			if !add(strings.Trim(key, " \t")) {
				return nil, false
			}
		}
	}
	return keys, true
}

// isForCaches tells the fields that speak to caches like this one and end here.
func isForCaches(name string) bool {
	switch name {
	case "Surrogate-Key", "Cache-Tag", "Landfall-Cache-Control", HeaderKey, HeaderStale, HeaderCoded:
		return true
	}
	return false
}
