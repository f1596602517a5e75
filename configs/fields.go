package configs

import (
	"encoding"
	"fmt"
	"reflect"
	"sort"
	"strings"
)

// field is what a struct field's tags say of its key.
type field struct {
	index      int
	typ        reflect.Type
	name       string
	doc        string
	def        string
	hasDefault bool
	min, max   string
	least      int64 // min as a number, when hasLeast
	most       int64 // max as a number, when hasMost
	hasLeast   bool
	hasMost    bool
	enum       []string
	required   bool
	secret     bool
	path       bool
}

// fieldsOf lists the keys of a struct type, in the order of its fields.
func fieldsOf(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		sf := t.Field(i)
		name := sf.Tag.Get("yaml")
		if name == "" || name == "-" {
			continue
		}
		f := field{
			index: i, typ: sf.Type, name: name, doc: sf.Tag.Get("doc"), min: sf.Tag.Get("min"), max: sf.Tag.Get("max"),
			required: sf.Tag.Get("required") == "true", secret: sf.Tag.Get("secret") == "true", path: sf.Tag.Get("path") == "true",
		}
		f.least, f.hasLeast = limit(element(sf.Type), f.min)
		f.most, f.hasMost = limit(element(sf.Type), f.max)
		f.def, f.hasDefault = sf.Tag.Lookup("default")
		if enum := sf.Tag.Get("enum"); enum != "" {
			f.enum = strings.Split(enum, ",")
		}
		out = append(out, f)
	}
	return out
}

func names(fields []field) []string {
	out := make([]string, len(fields))
	for i := range fields {
		out[i] = fields[i].name
	}
	return out
}

// bare is the type behind a pointer.
func bare(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}

// element is the type of the values in a list or a mapping by name, and any other type itself.
func element(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Map || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return bare(t)
}

// isScalar tells whether a value of the type is written as one word.
func isScalar(t reflect.Type) bool {
	t = bare(t)
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return true
	}
	switch t.Kind() {
	case reflect.String, reflect.Int, reflect.Bool:
		return true
	default:
		return false
	}
}

// isSection tells whether a value of the type is written as a mapping of fixed keys.
func isSection(t reflect.Type) bool {
	t = bare(t)
	return t.Kind() == reflect.Struct && !isScalar(t) && t != reflect.TypeFor[Location]()
}

// walk calls visit for v and for every value that it holds, sections, lists and maps before what is in them; maps in the
// order of their names. An element of a list or of a map is visited with the field of its list or map.
func walk(v reflect.Value, f field, path string, visit func(v reflect.Value, f field, path string)) {
	w := walker{visit: visit, fields: make(map[reflect.Type][]field)}
	w.walk(v, f, path)
}

// walker is one walk, which reads the tags of each section once.
type walker struct {
	visit  func(v reflect.Value, f field, path string)
	fields map[reflect.Type][]field
}

func (w *walker) walk(v reflect.Value, f field, path string) {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return
		}
		v = v.Elem()
	}
	w.visit(v, f, path)
	switch {
	case v.Kind() == reflect.Struct && isSection(v.Type()):
		fields, ok := w.fields[v.Type()]
		if !ok {
			fields = fieldsOf(v.Type())
			w.fields[v.Type()] = fields
		}
		for _, sub := range fields {
			w.walk(v.Field(sub.index), sub, join(path, sub.name))
		}
	case v.Kind() == reflect.Map:
		keys := v.MapKeys()
		sort.Slice(keys, func(i, j int) bool { return keys[i].String() < keys[j].String() })
		for _, k := range keys {
			w.walk(v.MapIndex(k), f, join(path, k.String()))
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			w.walk(v.Index(i), f, index(path, i))
		}
	}
}

// keyIndex tells for every key in which sections it exists, as paths with NAME for the names that people choose: the
// hint for a key that stands in the wrong place.
func keyIndex() map[string][]string {
	out := make(map[string][]string)
	var visit func(t reflect.Type, path string)
	visit = func(t reflect.Type, path string) {
		t = bare(t)
		switch {
		case isSection(t):
			for _, f := range fieldsOf(t) {
				out[f.name] = append(out[f.name], path)
				visit(f.typ, join(path, f.name))
			}
		case t.Kind() == reflect.Map:
			visit(t.Elem(), path+".NAME")
		case t.Kind() == reflect.Slice:
			visit(t.Elem(), path+"[]")
		}
	}
	visit(reflect.TypeFor[Config](), "")
	return out
}

// belongs is the hint that a key which is unknown here is known elsewhere, as the end of an error text.
func belongs(key string) string {
	at := keyIndex()[key]
	if len(at) == 0 || len(at) > 3 {
		return ""
	}
	for i := range at {
		if at[i] == "" {
			at[i] = "the top of the file"
		}
	}
	return fmt.Sprintf("; %q belongs under %s", key, strings.Join(at, " or "))
}
