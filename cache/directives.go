package cache

import "strings"

const (
	absent     = -1      // a directive with seconds that was not given
	maxSeconds = 1 << 31 // what a larger number of seconds counts as (RFC 9111 section 1.2.2)
)

// directives is what Cache-Control says, of a request or a response. Where it contradicts itself, the most restrictive
// reading holds (RFC 9111 section 4.2.1): the least of repeated seconds, and 0 for seconds that cannot be read. private
// and no-cache with field names count as without, which that RFC allows and which cannot leak a field.
type directives struct {
	noStore, noCache, private, public  bool
	mustRevalidate, proxyRevalidate    bool
	onlyIfCached                       bool
	mustUnderstand, immutable          bool
	maxAge, sMaxAge                    int64 // seconds or absent
	staleWhileRevalidate, staleIfError int64 // seconds or absent
}

// parseDirectives reads all lines of a Cache-Control field. It accepts any bytes.
func parseDirectives(lines []string) directives {
	d := directives{maxAge: absent, sMaxAge: absent, staleWhileRevalidate: absent, staleIfError: absent}
	for _, line := range lines {
		for line != "" {
			var one directive
			one, line = nextDirective(line)
			d.add(one)
		}
	}
	return d
}

// directive is one member of the list. A malformed argument is one that no number can be read from.
type directive struct {
	name, arg string
	malformed bool
}

// nextDirective reads one directive and returns what follows its comma.
func nextDirective(s string) (d directive, rest string) {
	end := strings.IndexAny(s, ",=")
	if end < 0 {
		return directive{name: strings.Trim(s, " \t")}, ""
	}
	name := s[:end]
	d.name = strings.Trim(name, " \t")
	if s[end] == ',' {
		return d, s[end+1:]
	}
	d.malformed = strings.HasSuffix(name, " ") || strings.HasSuffix(name, "\t")
	s = s[end+1:]
	if !strings.HasPrefix(s, `"`) {
		d.arg, rest, _ = strings.Cut(s, ",")
		d.malformed = d.malformed || strings.HasPrefix(d.arg, " ") || strings.HasPrefix(d.arg, "\t")
		d.arg = strings.Trim(d.arg, " \t")
		return d, rest
	}
	var closed bool
	d.arg, rest, closed = quoted(s[1:])
	tail, rest, _ := strings.Cut(rest, ",")
	d.malformed = d.malformed || !closed || strings.Trim(tail, " \t") != ""
	return d, rest
}

// quoted reads a quoted-string after its opening quote. Escapes are left in: no argument that is read has any.
func quoted(s string) (text, rest string, closed bool) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

func (d *directives) add(one directive) {
	switch lowerASCII(one.name) {
	case "no-store":
		d.noStore = true
	case "no-cache":
		d.noCache = true
	case "private":
		d.private = true
	case "public":
		d.public = true
	case "must-revalidate":
		d.mustRevalidate = true
	case "proxy-revalidate":
		d.proxyRevalidate = true
	case "must-understand":
		d.mustUnderstand = true
	case "immutable":
		d.immutable = true
	case "only-if-cached":
		d.onlyIfCached = true
	case "max-age":
		least(&d.maxAge, one)
	case "s-maxage":
		least(&d.sMaxAge, one)
	case "stale-while-revalidate":
		least(&d.staleWhileRevalidate, one)
	case "stale-if-error":
		least(&d.staleIfError, one)
	}
}

// least lowers *seconds to what the directive says, 0 if that cannot be read.
func least(seconds *int64, d directive) {
	n, ok := parseSeconds(d.arg)
	if !ok || d.malformed {
		n = 0
	}
	if *seconds == absent || n < *seconds {
		*seconds = n
	}
}

// parseSeconds reads delta-seconds (RFC 9111 section 1.2.2): digits only, capped.
func parseSeconds(s string) (n int64, ok bool) {
	if s == "" {
		return 0, false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = min(n*10+int64(s[i]-'0'), maxSeconds)
	}
	return n, true
}
