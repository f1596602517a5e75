package configs

import (
	"fmt"
	"regexp"
	"strings"
)

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expand fills ${NAME} in s from the environment; $$ is a literal $, and a $ before anything else stands for itself. A
// name for which keep is true stays as it is written. Line ends at the end of a value are dropped, as a shell does. It
// returns the text, whether the environment gave some of it, and what is wrong with s.
func expand(s string, lookup func(string) (string, bool), keep func(string) bool) (text string, used bool, faults []string) {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i == len(s)-1 {
			b.WriteString(s)
			return b.String(), used, faults
		}
		b.WriteString(s[:i])
		s = s[i:]
		switch s[1] {
		case '$':
			b.WriteByte('$')
			s = s[2:]
		case '{':
			name, rest, closed := strings.Cut(s[2:], "}")
			if !closed {
				return b.String(), used, append(faults, `"${" without its "}": close it, or write "$${" for a literal one`)
			}
			s = rest
			switch {
			case !envName.MatchString(name):
				faults = append(faults, fmt.Sprintf(`${%s} does not name an environment variable: use letters, digits and _, or write "$${" for a literal one`, name))
			case keep(name):
				b.WriteString("${" + name + "}")
			default:
				value, ok := lookup(name)
				if !ok {
					faults = append(faults, fmt.Sprintf("the environment variable %s is not set", name))
				}
				used = true
				b.WriteString(strings.TrimRight(value, "\r\n"))
			}
		default:
			b.WriteByte('$')
			s = s[1:]
		}
	}
}

// escape is the inverse of expand for a text that nothing is to be filled into.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if s[i] == '$' && i+1 < len(s) && (s[i+1] == '$' || s[i+1] == '{') {
			b.WriteByte('$')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// keepsNode tells whether ${NODE} in the value at path is left for the node to fill in: the config is the same on every
// node, but each has its own certificate.
func keepsNode(path string) func(string) bool {
	return func(name string) bool {
		return name == "NODE" && (path == "mesh.tls.cert" || path == "mesh.tls.key")
	}
}
