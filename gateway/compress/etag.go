package compress

import "strings"

// nextTag splits the first entity tag (RFC 9110 section 8.8.3) off a list: the tag with its quotes and W/, and what
// follows it. ok is false when the list does not begin with one.
func nextTag(list string) (tag, rest string, ok bool) {
	body := strings.TrimPrefix(list, "W/")
	if len(body) < 2 || body[0] != '"' {
		return "", list, false
	}
	for i := 1; i < len(body); i++ {
		switch b := body[i]; {
		case b == '"':
			end := len(list) - len(body) + i + 1
			return list[:end], list[end:], true
		case b <= ' ' || b == 0x7f:
			return "", list, false
		}
	}
	return "", list, false
}

// validTag tells whether s is one entity tag and nothing else.
func validTag(s string) bool {
	_, rest, ok := nextTag(s)
	return ok && rest == ""
}

// tags splits a list of entity tags. ok is false when any of it is malformed, and for *.
func tags(list string) (all []string, ok bool) {
	const space = " \t"
	for {
		list = strings.TrimLeft(list, space+",")
		if list == "" {
			return all, len(all) > 0
		}
		tag, rest, ok := nextTag(list)
		if !ok {
			return nil, false
		}
		rest = strings.TrimLeft(rest, space)
		if rest != "" && rest[0] != ',' {
			return nil, false
		}
		all, list = append(all, tag), rest
	}
}

// addSuffix turns "x" into "x-gzip". A tag that has the suffix, or is none, stays as it is.
func addSuffix(tag, suffix string) string {
	if !validTag(tag) || hasSuffix(tag, suffix) {
		return tag
	}
	return tag[:len(tag)-1] + suffix + `"`
}

// hasSuffix tells whether the tag ends with suffix inside its quotes.
func hasSuffix(tag, suffix string) bool {
	return strings.HasSuffix(strings.TrimSuffix(tag, `"`), suffix)
}

// cutSuffix turns "x-gzip" into "x"; cut is false when the tag does not end so.
func cutSuffix(tag, suffix string) (plain string, cut bool) {
	if !hasSuffix(tag, suffix) {
		return tag, false
	}
	return strings.TrimSuffix(tag, suffix+`"`) + `"`, true
}
