package configs

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"
)

// Error is one fault of a config file. Line and Col count from 1; 0 means that the fault has no such place (an empty file,
// or a syntax error of which only the line is known). Path names the key, as in services.shop.hosts[0]; a name that holds
// other than letters, digits, - and _ stands in brackets: dns.zones["edge.example.com"].ttl. Msg never holds a secret nor
// what ${ENV} was replaced by.
type Error struct {
	File string
	Line int
	Col  int
	Path string
	Msg  string
}

// Error is the fault on one line: fleet.yaml:12:5: services.shop.pool.chekc: unknown key; did you mean "check"?
func (e Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
		if e.Col > 0 {
			fmt.Fprintf(&b, ":%d", e.Col)
		}
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	if e.Path != "" {
		b.WriteString(e.Path)
		b.WriteString(": ")
	}
	b.WriteString(e.Msg)
	return b.String()
}

// Errors is every fault found in a config, in the order of the file.
type Errors []Error

// Error is one fault a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Bounds on what one Parse reports: a file that is not a config at all would otherwise bury the reason.
const (
	maxErrors  = 1000
	maxMessage = 1000 // bytes of one fault's text
	maxShown   = 120  // bytes of a value that is repeated in a text
)

// place is where a key stands in the file, and what decoding learned of it.
type place struct {
	keyLine, keyCol int
	line, col       int
	raw             string // the scalar as written, before ${ENV} was filled in
	env             bool   // some of the value came from the environment
	bad             bool   // it could not be decoded, so what stands in its stead says nothing
}

// report collects faults and knows the place of each path. Decoding fills it, validation reads it. Not safe for
// concurrent use.
type report struct {
	file    string
	errs    Errors
	dropped int
	places  map[string]*place
	bad     []string // the paths of the places that are bad
}

func newReport(file string) *report {
	return &report{file: file, places: make(map[string]*place)}
}

func (r *report) add(line, col int, path, msg string) {
	if r.full() {
		r.dropped++
		return
	}
	msg = shorten(msg, maxMessage)
	r.errs = append(r.errs, Error{File: r.file, Line: line, Col: col, Path: path, Msg: msg})
}

// full tells whether further faults are only counted.
func (r *report) full() bool { return len(r.errs) >= maxErrors }

// shorten cuts s to about limit bytes, between characters.
func shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "..."
}

// fault reports a fault of the value at path. It says nothing when decoding already complained of that value or of one
// that it lies in: the second complaint would be about what we put there ourselves.
func (r *report) fault(path, format string, args ...any) {
	if r.badAbove(path) {
		return
	}
	if r.full() {
		r.dropped++
		return
	}
	line, col := r.where(path)
	r.add(line, col, path, fmt.Sprintf(format, args...))
}

// where is the place of path's value, or, for a key that is absent, of the nearest mapping that should hold it.
func (r *report) where(path string) (line, col int) {
	if p, ok := r.places[path]; ok {
		return p.line, p.col
	}
	for path != "" {
		path = parent(path)
		if p, ok := r.places[path]; ok {
			return p.keyLine, p.keyCol
		}
	}
	return 1, 1
}

// written tells whether the file has the key, rather than a default.
func (r *report) written(path string) bool {
	_, ok := r.places[path]
	return ok
}

func (r *report) badAbove(path string) bool {
	for {
		if p, ok := r.places[path]; ok && p.bad {
			return true
		}
		if path == "" {
			return false
		}
		path = parent(path)
	}
}

// unsure tells whether anything at, above or below one of the paths could not be decoded, so that a rule that relates it
// to another key can't be judged. With very many such values it is always true.
func (r *report) unsure(paths ...string) bool {
	if len(r.bad) > maxErrors {
		return true
	}
	for _, path := range paths {
		if r.badAbove(path) {
			return true
		}
		for _, at := range r.bad {
			if strings.HasPrefix(at, path+".") || strings.HasPrefix(at, path+"[") {
				return true
			}
		}
	}
	return false
}

// spoiled marks the value at path, which has a place, as one that could not be decoded.
func (r *report) spoiled(path string) {
	r.places[path].bad = true
	r.bad = append(r.bad, path)
}

// elementPath is the path of a list's element i; when a single value stood in for the list, it is the path of that.
func (r *report) elementPath(path string, i int) string {
	if at := index(path, i); i > 0 || r.written(at) {
		return at
	}
	return path
}

// show quotes the value at path as the file has it: what came from the environment is not printed.
func (r *report) show(path, value string) string {
	if p, ok := r.places[path]; ok && p.env {
		return fmt.Sprintf("%q (filled in from the environment)", shorten(p.raw, maxShown))
	}
	return fmt.Sprintf("%q", shorten(value, maxShown))
}

// fix is a suggestion that repeats part of the value at path; empty when the value came from the environment.
func (r *report) fix(path, format string, args ...any) string {
	if p, ok := r.places[path]; ok && p.env {
		return ""
	}
	return "; " + fmt.Sprintf(format, args...)
}

// result is the faults in the order of the file, or nil when there are none.
func (r *report) result() error {
	if len(r.errs) == 0 {
		return nil
	}
	slices.SortStableFunc(r.errs, func(a, b Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col), cmp.Compare(a.Path, b.Path))
	})
	if r.dropped > 0 {
		last := r.errs[len(r.errs)-1]
		r.errs = append(r.errs, Error{File: r.file, Line: last.Line, Msg: fmt.Sprintf("and %d more faults", r.dropped)})
	}
	return r.errs
}

// join is the path of key inside the mapping at path.
func join(path, key string) string {
	if !plainName(key) {
		return fmt.Sprintf("%s[%q]", path, key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// parent is the path without its last step. A quoted step is found by its opening quote, as a quote inside is escaped.
func parent(path string) string {
	if strings.HasSuffix(path, `"]`) {
		for i := len(path) - 2; i > 0; i-- {
			if path[i-1] == '[' && path[i] == '"' {
				if _, err := strconv.Unquote(path[i : len(path)-1]); err == nil {
					return path[:i-1]
				}
			}
		}
		return ""
	}
	return path[:max(strings.LastIndexAny(path, ".["), 0)]
}

func plainName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return s != ""
}

// nearest is the candidate that word was probably meant to be, or "": one within a few slips, where two letters swapped
// count as two, else one that begins like it (warning, warn).
func nearest(word string, candidates []string) string {
	if len(word) > 64 || strings.Trim(word, "0123456789") == "" {
		return ""
	}
	slips := 1
	if len(word) > 3 {
		slips = max(2, len(word)/3)
	}
	best, bestDistance := "", slips+1
	for _, c := range candidates {
		if len(c) > 64 {
			continue
		}
		if d := levenshtein.ComputeDistance(strings.ToLower(word), strings.ToLower(c)); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	for _, c := range candidates {
		if best == "" && min(len(word), len(c)) > 3 && (strings.HasPrefix(word, c) || strings.HasPrefix(c, word)) {
			best = c
		}
	}
	return best
}

// meant is the suggestion for word as the end of an error text.
func meant(word string, candidates []string) string {
	if best := nearest(word, candidates); best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return ""
}
