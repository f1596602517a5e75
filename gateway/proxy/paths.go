package proxy

import (
	"fmt"
	"net/url"
	"reflect"
	"strconv"
	"strings"

	"landfall/configs"
)

// normalPath is the escaped path with its dot segments removed, so that what a route matched is what the origin gets and
// what the cache is keyed by. Escaped dots count as dots, and what need not be escaped is not (RFC 3986 section 6.2.2.2), or
// /%61dmin would pass the route of /admin by and be /admin to the origin. An escaped slash stays what it is, here; a NUL is
// refused, since it ends the path for some.
func normalPath(u *url.URL) (string, bool) {
	path := u.EscapedPath()
	if u.Opaque != "" || strings.Contains(path, "%00") {
		return "", false
	}
	if path == "" {
		return "/", true
	}
	if path[0] != '/' {
		return path, path == "*" // OPTIONS *
	}
	return removeDots(unescapeNeedless(path)), true
}

// removeDots resolves the dot segments of an escaped path (RFC 3986 section 5.2.4).
func removeDots(path string) string {
	if !strings.Contains(path, "/.") && !strings.Contains(path, "/%2") {
		return path
	}
	var out []string
	segments := strings.Split(path[1:], "/")
	for i, s := range segments {
		last := i == len(segments)-1
		switch strings.ReplaceAll(strings.ReplaceAll(s, "%2e", "."), "%2E", ".") {
		case ".":
			if last {
				out = append(out, "")
			}
		case "..":
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, s)
		}
	}
	return "/" + strings.Join(out, "/")
}

// unescape decodes the escapes of a path that which says yes to, and writes the digits of the others in upper case when
// asked to. Without a change it allocates nothing.
func unescape(path string, which func(c byte) bool, upper bool) string {
	first := strings.IndexByte(path, '%')
	if first < 0 {
		return path
	}
	out := append(make([]byte, 0, len(path)), path[:first]...)
	for i := first; i < len(path); i++ {
		if path[i] == '%' && i+2 < len(path) {
			if n, err := strconv.ParseUint(path[i+1:i+3], 16, 8); err == nil {
				switch c := byte(n); {
				case which(c):
					out = append(out, c)
					i += 2
					continue
				case upper:
					out = append(append(out, '%'), strings.ToUpper(path[i+1:i+3])...)
					i += 2
					continue
				}
			}
		}
		out = append(out, path[i])
	}
	return string(out)
}

// unescapeNeedless decodes the unreserved characters of an escaped path (RFC 3986 section 2.3), but for dots: they are for
// whole segments only.
func unescapeNeedless(path string) string {
	return unescape(path, func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '~'
	}, false)
}

// matchForm is a path as routes compare it: nothing is escaped but what would not be the same path then, a slash and the
// percent sign itself. So /%40me, /@me and either case of hex digits are one, as they are to every origin.
func matchForm(path string) string {
	return unescape(path, func(c byte) bool { return c != '/' && c != '%' }, true)
}

// mergeSlashes takes // for /.
func mergeSlashes(path string) string {
	if !strings.Contains(path, "//") {
		return path
	}
	out := make([]byte, 0, len(path))
	for i := range len(path) {
		if path[i] != '/' || i == 0 || path[i-1] != '/' {
			out = append(out, path[i])
		}
	}
	return string(out)
}

// pathRules are how a service reads paths. The zero value only keeps them as they are.
type pathRules struct {
	merge, decode, refuse bool
	strict                bool // refuse what may be read in two ways with two guards
}

func pathRulesOf(c configs.Paths) pathRules {
	return pathRules{
		merge: c.MergeSlashes == nil || *c.MergeSlashes, decode: c.EscapedSlashes == "decode", refuse: c.EscapedSlashes == "refuse",
		strict: c.Ambiguous != "allow",
	}
}

// of is the form in which requests for a URL have its path; false: they are refused.
func (r pathRules) of(u *url.URL) (string, bool) {
	path, ok := normalPath(u)
	if !ok {
		return "", false
	}
	return r.normal(path)
}

// normal brings a normalPath into the service's form. It is false for a path that the service refuses.
func (r pathRules) normal(path string) (string, bool) {
	if (r.decode || r.refuse) && (strings.Contains(path, "%2f") || strings.Contains(path, "%2F")) {
		if r.refuse {
			return path, false
		}
		path = removeDots(unescape(path, func(c byte) bool { return c == '/' }, false))
	}
	if r.merge {
		path = mergeSlashes(path)
	}
	return path, true
}

// pattern is the path of a route, ready for comparison.
type pattern struct {
	text string // in matchForm
	wild bool   // and all below
}

// pattern prepares what a route says, read as the requests' paths are.
func (r pathRules) pattern(path string) pattern {
	text, wild := strings.CutSuffix(path, "*")
	if normal, ok := r.normal(removeDots(unescapeNeedless(text))); ok {
		text = normal
	}
	return pattern{matchForm(text), wild}
}

// matches tells whether a path in matchForm is the pattern's, or lies below it: /api/* matches /api/ and all below it, but
// not /api.
func (p pattern) matches(form string) bool {
	if p.wild {
		return strings.HasPrefix(form, p.text)
	}
	return form == p.text
}

// suspicious tells whether an origin may read a path otherwise than its form says.
func suspicious(path string) bool {
	if strings.Contains(path, "//") || strings.IndexByte(path, ';') >= 0 {
		return true
	}
	for rest := path; ; {
		i := strings.IndexByte(rest, '%')
		if i < 0 || i+2 >= len(rest) {
			return false
		}
		switch strings.ToUpper(rest[i+1 : i+3]) {
		case "2F", "5C", "25", "3B":
			return true
		}
		rest = rest[i+3:]
	}
}

// readings are the paths, in matchForm, that origins are known to make of a path: they decode it once or twice, before or
// after they cut off parameters (Java's servlets), take backslashes for slashes (Windows), and merge slashes.
func readings(path string, visit func(form string) bool) bool {
	seen := map[string]bool{}
	one := func(s string) bool {
		s = strings.ReplaceAll(s, "%", "%25") // it is decoded: what is left of them are names
		for _, s := range [...]string{s, strings.ReplaceAll(s, `\`, "/")} {
			for _, s := range [...]string{removeDots(s), removeDots(mergeSlashes(s)), mergeSlashes(removeDots(s))} {
				if !seen[s] {
					seen[s] = true
					if !visit(s) {
						return false
					}
				}
			}
		}
		return true
	}
	all := func(byte) bool { return true }
	for _, from := range [...]string{path, cutParameters(path)} {
		for range 2 {
			from = unescape(from, all, false)
			if !one(from) || !one(cutParameters(from)) {
				return false
			}
		}
	}
	return true
}

// cutParameters cuts what follows a ; off each segment (RFC 3986 section 3.3, as servlets read it).
func cutParameters(path string) string {
	if strings.IndexByte(path, ';') < 0 {
		return path
	}
	segments := strings.Split(path, "/")
	for i, s := range segments {
		segments[i], _, _ = strings.Cut(s, ";")
	}
	return strings.Join(segments, "/")
}

// guards is what stands between clients and what a route leads to.
type guards struct {
	allow, deny []configs.Prefix
	limit       *configs.RateLimit
	auth        *configs.Auth
	basic       *configs.BasicAuth
	redirect    *configs.Redirect
	respond     *configs.Respond
}

func guardsOf(r *configs.Route) guards {
	return guards{r.Allow, r.Deny, r.RateLimit, r.Auth, r.BasicAuth, r.Redirect, r.Respond}
}

// guardClasses numbers the routes of a service: two have the same number when they are guarded alike.
func guardClasses(routes []configs.Route) []int {
	classes := make([]int, len(routes))
	for i := range routes {
		classes[i] = i
		for j := range i {
			if reflect.DeepEqual(guardsOf(&routes[i]), guardsOf(&routes[j])) {
				classes[i] = classes[j]
				break
			}
		}
	}
	return classes
}

// ambiguous tells whether an origin may take a request for one that would have been guarded otherwise, or kept from it. at
// is the index of its route.
func (s *service) ambiguous(h headResult, at int, on func(flag string) bool) bool {
	if !s.paths.strict || h.hop > 0 || len(s.plans) == 1 && s.plans[0].pattern == (pattern{"/", true}) || !suspicious(h.path) {
		return false
	}
	return !readings(h.path, func(form string) bool {
		other, _ := s.take(form, h, on)
		return other >= 0 && s.plans[other].guards == s.plans[at].guards
	})
}

// cutPrefix takes a prefix off an escaped path, however its characters are escaped.
func cutPrefix(path, prefix string) (rest string, ok bool) {
	if rest, ok = strings.CutPrefix(path, prefix); ok || strings.IndexByte(path, '%') < 0 && strings.IndexByte(prefix, '%') < 0 {
		return rest, ok
	}
	at, n := len(path), strings.Count(prefix, "/") // slashes are never decoded, so both have as many
	for i := range len(path) {
		if path[i] == '/' {
			if n == 0 {
				at = i
				break
			}
			n--
		}
	}
	if matchForm(path[:at]) == matchForm(prefix) {
		return path[at:], true
	}
	return path, false
}

// digest is a short text that tells rules apart by which one request, or one purge, has different paths.
func (r pathRules) digest() string {
	return fmt.Sprintf("-%t-%t-%t", r.merge, r.decode, r.refuse)
}
