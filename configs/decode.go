package configs

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds on aliases: with them, a file of a few lines can stand for billions of values.
const (
	maxExpanded = 100_000 // values decoded beyond those that the file holds itself
	maxNested   = 100     // aliases within what an alias stands for
)

// decoder fills a Config from the nodes of a YAML document, and reports every fault and the place of every key. What it
// can't read it leaves at its default and marks as bad, so that validation may go on with the rest.
type decoder struct {
	*report
	lookup func(string) (string, bool)
	shapes map[reflect.Type]shape

	following map[*yaml.Node]bool // the anchors whose values are being decoded
	budget    int                 // values that may still be decoded
}

// shape is a section's keys and the section as it is when none of them is given.
type shape struct {
	fields []field
	blank  reflect.Value
}

// newDecoder makes a decoder of one document.
func newDecoder(r *report, lookup func(string) (string, bool), document *yaml.Node) *decoder {
	return &decoder{
		report: r, lookup: lookup, shapes: make(map[reflect.Type]shape),
		following: make(map[*yaml.Node]bool), budget: count(document) + maxExpanded,
	}
}

// count is the number of values and keys that a node holds, itself included, without following aliases.
func count(n *yaml.Node) int {
	total := 1
	for _, sub := range n.Content {
		total += count(sub)
	}
	return total
}

// value decodes n into v, which already holds its default.
func (d *decoder) value(n *yaml.Node, v reflect.Value, f field, path string) {
	if !d.spend(n, 1) {
		return
	}
	if n.Kind == yaml.AliasNode {
		if d.following[n.Alias] || len(d.following) > maxNested {
			d.spoil(n, path, "the alias *%s stands inside its own anchor, or more than %d anchors deep", n.Value, maxNested)
			return
		}
		n = n.Alias
	}
	if n.Anchor != "" {
		d.following[n] = true
		defer delete(d.following, n)
	}
	d.note(n, path)
	if n.Style&yaml.TaggedStyle != 0 && !strings.HasPrefix(n.Tag, "!!") {
		d.spoil(n, path, "the tag %s means nothing here: leave it out", n.Tag)
		return
	}
	if v.Kind() == reflect.Pointer {
		if isNull(n) {
			d.spoil(n, path, "has no value: write one, %sor leave out the key", emptyForm(v.Type()))
			return
		}
		v.Set(d.blank(v.Type().Elem()))
		v = v.Elem()
	}
	d.kind(n, v, f, path)
}

// spend takes count values from the budget, and reports once when it has run out.
func (d *decoder) spend(n *yaml.Node, count int) bool {
	if d.budget < 0 {
		return false
	}
	if d.budget -= count; d.budget < 0 {
		d.spoiled("") // the rest would be faults of what was not decoded
		d.add(n.Line, n.Column, "", fmt.Sprintf("the aliases of this file stand for more than %d values: write them out, or use fewer", maxExpanded))
	}
	return d.budget >= 0
}

// kind decodes n, which is no alias, into v, which is no pointer.
func (d *decoder) kind(n *yaml.Node, v reflect.Value, f field, path string) {
	switch to := v.Addr().Interface().(type) {
	case *RouteCache:
		d.routeCache(n, to, path)
		return
	case *Location:
		d.location(n, to, path)
		return
	case *StringList:
		if n.Kind == yaml.ScalarNode && !isNull(n) {
			*to = make(StringList, 1)
			d.scalar(n, reflect.ValueOf(to).Elem().Index(0), path)
			return
		}
	}
	switch {
	case isScalar(v.Type()):
		d.scalar(n, v, path)
	case v.Kind() == reflect.Struct:
		d.section(n, v, path)
	case v.Kind() == reflect.Map:
		d.mapping(n, v, f, path)
	default:
		d.list(n, v, f, path)
	}
}

// section decodes a mapping of fixed keys. Nothing at all, as in "mesh:", is a section without keys.
func (d *decoder) section(n *yaml.Node, v reflect.Value, path string) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.spoil(n, path, "expected a mapping (key: value), got %s", kindName(n))
		return
	}
	fields := d.shape(v.Type()).fields
	for _, e := range d.entries(n, path) {
		at := join(path, e.key.Value)
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == e.key.Value })
		if i < 0 {
			d.unknown(e.key, path, names(fields))
			continue
		}
		d.places[at] = &place{keyLine: e.key.Line, keyCol: e.key.Column, line: e.value.Line, col: e.value.Column}
		d.value(e.value, v.Field(fields[i].index), fields[i], at)
	}
}

// unknown reports a key that its section does not have. The key that was probably meant counts as given, so that nobody
// reads of it a second time as missing.
func (d *decoder) unknown(key *yaml.Node, path string, known []string) {
	if d.full() {
		d.dropped++
		return
	}
	hint := meant(key.Value, known)
	if best := nearest(key.Value, known); best != "" {
		if at := join(path, best); !d.written(at) {
			d.places[at] = &place{keyLine: key.Line, keyCol: key.Column, line: key.Line, col: key.Column}
			d.spoiled(at)
		}
	} else {
		hint = belongs(key.Value)
	}
	d.add(key.Line, key.Column, join(path, key.Value), "unknown key"+hint+" (known: "+strings.Join(known, ", ")+")")
}

// mapping decodes a mapping whose keys are names that people choose.
func (d *decoder) mapping(n *yaml.Node, v reflect.Value, f field, path string) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.spoil(n, path, "expected a mapping (name: value), got %s", kindName(n))
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for _, e := range d.entries(n, path) {
		at := join(path, e.key.Value)
		d.places[at] = &place{keyLine: e.key.Line, keyCol: e.key.Column, line: e.value.Line, col: e.value.Column}
		element := reflect.New(v.Type().Elem()).Elem()
		if element.Kind() == reflect.Struct {
			element.Set(d.shape(element.Type()).blank)
		}
		d.value(e.value, element, f, at)
		if element.Kind() == reflect.Pointer && element.IsNil() {
			element.Set(d.blank(element.Type().Elem()))
		}
		v.SetMapIndex(reflect.ValueOf(e.key.Value), element)
	}
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, f field, path string) {
	if isNull(n) {
		d.spoil(n, path, "has no value: write [] for an empty list, or leave out the key")
		return
	}
	if n.Kind != yaml.SequenceNode {
		hint := ""
		if n.Kind == yaml.ScalarNode {
			hint = ": put it in [ ]"
		}
		d.spoil(n, path, "expected a list, got %s%s", kindName(n), hint)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, sub := range n.Content {
		if element := v.Index(i); element.Kind() == reflect.Struct && isSection(element.Type()) {
			element.Set(d.shape(element.Type()).blank)
		}
		d.value(sub, v.Index(i), f, index(path, i))
	}
}

// entry is a key of a mapping and its value.
type entry struct{ key, value *yaml.Node }

// entries lists a mapping's keys, of bounded length as they are part of every path below; those that "<<" merges in after its own and only where it has none of that name.
func (d *decoder) entries(n *yaml.Node, path string) []entry {
	var out, merged []entry
	seen := make(map[string]*yaml.Node)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			d.add(key.Line, key.Column, path, "a key must be a word, got "+kindName(key))
			continue
		}
		if len(key.Value) > maxName {
			d.add(key.Line, key.Column, path, fmt.Sprintf("a key of %d bytes: the most is %d", len(key.Value), maxName))
			continue
		}
		if key.Tag == "!!merge" {
			merged = append(merged, d.merged(value, path)...)
			continue
		}
		if first, ok := seen[key.Value]; ok {
			d.add(key.Line, key.Column, join(path, key.Value), fmt.Sprintf("the key stands twice; the first is in line %d", first.Line))
			continue
		}
		seen[key.Value] = key
		out = append(out, entry{key, value})
	}
	for _, e := range merged {
		if _, ok := seen[e.key.Value]; !ok {
			seen[e.key.Value] = e.key
			out = append(out, e)
		}
	}
	return out
}

// merged lists the keys that "<<" brings in: those of an alias to a mapping, or of a list of such, the first winning.
func (d *decoder) merged(n *yaml.Node, path string) []entry {
	sources := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		sources = n.Content
	}
	var out []entry
	for _, s := range sources {
		if s.Kind == yaml.AliasNode {
			s = s.Alias
		}
		switch {
		case !d.spend(n, len(s.Content)):
			return nil
		case s.Kind != yaml.MappingNode:
			d.add(n.Line, n.Column, path, "<< merges mappings only, got "+kindName(s))
		case d.following[s] || len(d.following) > maxNested:
			d.add(n.Line, n.Column, path, fmt.Sprintf("<< merges a mapping into itself, or more than %d anchors deep", maxNested))
		default:
			d.following[s] = true // an anchor's mapping, if it is not written out after the <<
			out = append(out, d.entries(s, path)...)
			delete(d.following, s)
		}
	}
	return out
}

func (d *decoder) routeCache(n *yaml.Node, to *RouteCache, path string) {
	if n.Kind != yaml.ScalarNode {
		d.section(n, reflect.ValueOf(to).Elem(), path)
		return
	}
	word, ok := d.word(n, path)
	if !ok {
		return
	}
	// Tools that speak YAML 1.1 turn off and on into booleans.
	switch word {
	case "off", "false":
		to.Off = true
	case "on", "true":
	default:
		d.spoil(n, path, "%s is neither off, on nor a mapping such as {ttl: 30s}", d.show(path, word))
	}
}

func (d *decoder) location(n *yaml.Node, to *Location, path string) {
	if n.Kind != yaml.SequenceNode || len(n.Content) != 2 {
		d.spoil(n, path, "expected [latitude, longitude] in degrees, such as [53.35, -6.26]")
		return
	}
	for i, part := range []struct {
		name string
		most float64
		to   *float64
	}{{"latitude", 90, &to.Lat}, {"longitude", 180, &to.Lon}} {
		at := index(path, i)
		if sub := n.Content[i]; sub.Kind != yaml.ScalarNode {
			d.spoil(sub, path, "the %s must be a number from -%g to %g, got %s", part.name, part.most, part.most, kindName(sub))
			continue
		}
		d.note(n.Content[i], at)
		word, ok := d.word(n.Content[i], at)
		if !ok {
			continue
		}
		degrees, err := strconv.ParseFloat(word, 64)
		if err != nil || math.IsNaN(degrees) || math.Abs(degrees) > part.most {
			d.spoil(n.Content[i], at, "the %s must be a number from -%g to %g, got %s", part.name, part.most, part.most, d.show(at, word))
			continue
		}
		*part.to = degrees
	}
}

// note records where the value at path stands; its key was recorded before, if it has one.
func (d *decoder) note(n *yaml.Node, path string) {
	p, ok := d.places[path]
	if !ok {
		p = &place{keyLine: n.Line, keyCol: n.Column}
		d.places[path] = p
	}
	p.line, p.col = n.Line, n.Column
}

// spoil reports that n can't be the value at path.
func (d *decoder) spoil(n *yaml.Node, path, format string, args ...any) {
	if d.places[path] == nil {
		d.note(n, path)
	}
	d.spoiled(path)
	d.add(n.Line, n.Column, path, fmt.Sprintf(format, args...))
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// emptyForm is how the default of an optional value is asked for, as part of an error text.
func emptyForm(t reflect.Type) string {
	if t = bare(t); isSection(t) && t != reflect.TypeFor[RouteCache]() {
		return "{} for the defaults, "
	}
	return ""
}

func kindName(n *yaml.Node) string {
	switch {
	case isNull(n):
		return "nothing"
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return kindName(n.Alias)
	default:
		return "a single value"
	}
}
