package configs

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// bounds checks what the tags say of each key: required, min, max and enum, and that a list of words from an enum names
// none twice.
func (r *report) bounds(c *Config) {
	walk(reflect.ValueOf(c), field{}, "", func(v reflect.Value, f field, path string) {
		switch {
		case v.Kind() == reflect.String || v.Kind() == reflect.Slice || v.Kind() == reflect.Map:
			if v.Len() == 0 && f.required {
				r.missing(f, path)
				return
			}
			if f.enum != nil && v.Kind() == reflect.String {
				r.oneOf(v.String(), f.enum, path)
			} else if f.enum != nil && v.Kind() == reflect.Slice {
				r.distinct(path, v.Len(), func(i int) string { return v.Index(i).String() })
			}
		case v.CanInt() && isScalar(v.Type()):
			r.inRange(v, f, path)
		}
	})
}

func (r *report) missing(f field, path string) {
	what := "is required"
	if r.written(path) {
		what = "must not be empty"
	}
	r.fault(path, "%s. %s", what, f.doc)
}

func (r *report) oneOf(word string, known []string, path string) {
	if slices.Contains(known, word) {
		return
	}
	hint := ""
	if best := nearest(word, known); best != "" {
		hint = r.fix(path, "did you mean %q?", best)
	}
	r.fault(path, "%s is not one of %s%s", r.show(path, word), strings.Join(known, ", "), hint)
}

// distinct reports the elements of a list that stand in it before. Empty ones are reported elsewhere.
func (r *report) distinct(path string, length int, element func(i int) string) {
	first := make(map[string]int)
	for i := range length {
		word := element(i)
		if before, ok := first[word]; ok && word != "" {
			line, _ := r.where(index(path, before))
			r.fault(index(path, i), "%s stands in the list twice; the first is in line %d", r.show(index(path, i), word), line)
			continue
		}
		first[word] = i
	}
}

func (r *report) inRange(v reflect.Value, f field, path string) {
	if (!f.hasLeast || v.Int() >= f.least) && (!f.hasMost || v.Int() <= f.most) {
		return
	}
	got := r.show(path, fmt.Sprint(v.Interface()))
	switch {
	case f.hasLeast && f.hasMost:
		r.fault(path, "%s is out of range: write %s to %s", got, f.min, f.max)
	case f.hasLeast:
		r.fault(path, "%s is out of range: the least is %s", got, f.min)
	default:
		r.fault(path, "%s is out of range: the most is %s", got, f.max)
	}
}

// limit reads a min or max tag for a whole number, a size or a duration.
func limit(t reflect.Type, tag string) (int64, bool) {
	v := reflect.New(t)
	if tag == "" || !v.Elem().CanInt() {
		return 0, false
	}
	if text, ok := v.Interface().(encoding.TextUnmarshaler); ok {
		err := text.UnmarshalText([]byte(tag))
		return v.Elem().Int(), err == nil
	}
	n, err := strconv.ParseInt(tag, 10, 64)
	return n, err == nil
}
