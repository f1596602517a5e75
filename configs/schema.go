package configs

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// object is a JSON object under construction.
type object = map[string]any

// Schema is the JSON Schema (draft 2020-12) of a config, for editors and other checkers. It is made from the types and
// their tags. It knows the shape of a config, not the rules between its keys: what Parse accepts it accepts too, save
// for text that reads as a number or boolean and for either of them in quotes; the reverse does not hold.
func Schema() ([]byte, error) {
	s := &schema{defs: object{
		"env": object{"type": "string", "pattern": `\$\{[A-Za-z_][A-Za-z0-9_]*\}`, "description": "Filled in from the environment."},
	}}
	root := s.section(reflect.TypeFor[Config]())
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Landfall fleet"
	root["$defs"] = s.defs
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("making the JSON Schema: %w", err)
	}
	return append(out, '\n'), nil
}

// schema collects the definitions that the keys refer to.
type schema struct{ defs object }

func ref(name string) object { return object{"$ref": "#/$defs/" + name} }

// section is the schema of a mapping of fixed keys.
func (s *schema) section(t reflect.Type) object {
	properties := object{}
	var required []string
	for _, f := range fieldsOf(t) {
		properties[f.name] = s.key(f)
		if f.required {
			required = append(required, f.name)
		}
	}
	out := object{"type": "object", "properties": properties, "additionalProperties": false}
	if required != nil {
		out["required"] = required
	}
	return out
}

// key is the schema of one key: its value, and what its tags say of it.
func (s *schema) key(f field) object {
	out := s.value(f.typ, f)
	out["description"] = f.doc
	if f.hasDefault {
		var v any
		if err := yaml.Unmarshal([]byte(f.def), &v); err == nil {
			out["default"] = v
		}
	}
	if f.required {
		switch f.typ.Kind() {
		case reflect.String:
			out["minLength"] = 1
		case reflect.Slice:
			out["minItems"] = 1
		case reflect.Map:
			out["minProperties"] = 1
		}
	}
	return out
}

// value is the schema of a value of type t under field f. It is a new object with each call.
func (s *schema) value(t reflect.Type, f field) object {
	pointer := t.Kind() == reflect.Pointer
	t = bare(t)
	switch {
	case t == reflect.TypeFor[Location]():
		return s.define("Location", object{
			"type": "array", "minItems": 2, "maxItems": 2,
			"prefixItems": []any{coordinate(90), coordinate(180)},
		})
	case t == reflect.TypeFor[RouteCache]():
		s.define("RouteCacheKeys", s.section(t))
		return object{"anyOf": []any{object{"enum": []any{"on", "off", true, false}}, ref("RouteCacheKeys"), ref("env")}}
	case t == reflect.TypeFor[StringList]():
		return object{"anyOf": []any{object{"type": "string"}, object{"type": "array", "items": object{"type": "string"}}}}
	case isScalar(t):
		return s.scalar(t, f)
	case t.Kind() == reflect.Struct:
		out := s.define(t.Name(), s.section(t))
		if pointer || f.required {
			return out
		}
		return object{"anyOf": []any{out, object{"type": "null"}}}
	case t.Kind() == reflect.Map:
		elements := s.value(t.Elem(), elementOf(t, f))
		if f.required {
			return object{"type": "object", "additionalProperties": elements}
		}
		return object{"type": []string{"object", "null"}, "additionalProperties": elements}
	default:
		return object{"type": "array", "items": s.value(t.Elem(), f)}
	}
}

// elementOf is the field that an element of a map is under: sections among them may be empty, so their own keys decide.
func elementOf(t reflect.Type, f field) field {
	if isSection(t.Elem()) {
		f.required = false
	}
	return f
}

func (s *schema) define(name string, schema object) object {
	s.defs[name] = schema
	return ref(name)
}

func coordinate(most float64) object {
	return object{"anyOf": []any{object{"type": "number", "minimum": -most, "maximum": most}, ref("env")}}
}

// scalarPatterns are the forms that UnmarshalText reads, and whether a bare number is one of them.
var scalarPatterns = map[reflect.Type]struct {
	pattern string
	number  object
}{
	reflect.TypeFor[Duration]():    {`^(0|[0-9]+d|([0-9]+d)?([0-9]+(\.[0-9]*)?(ns|us|µs|μs|ms|s|m|h))+|\.[0-9]+(us|µs|μs|ms|s|m|h))$`, object{"const": 0}},
	reflect.TypeFor[Size]():        {`^[0-9]+(\.[0-9]+)? ?([KkMmGgTt][Ii]?)?[Bb]?$`, object{"type": "integer", "minimum": 0}},
	reflect.TypeFor[Percent]():     {`^(0|[0-9]+(\.[0-9]+)?%)$`, object{"const": 0}},
	reflect.TypeFor[Rate]():        {`^(0|[0-9]+(\.[0-9]+)?/[smh])$`, object{"const": 0}},
	reflect.TypeFor[Factor]():      {`^[0-9]+(\.[0-9]+)?x$`, nil},
	reflect.TypeFor[StatusRange](): {`^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$`, object{"type": "integer", "minimum": 100, "maximum": 599}},
	reflect.TypeFor[Prefix]():      {`^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$`, nil},
}

// scalar is the schema of a scalar, or of a ${NAME} in its place.
func (s *schema) scalar(t reflect.Type, f field) object {
	var forms []any
	form, known := scalarPatterns[t]
	switch {
	case f.enum != nil:
		forms = append(forms, enumValues(f.enum))
	case known:
		name := t.Name()
		text := object{"type": "string", "pattern": form.pattern}
		if form.number != nil {
			forms = append(forms, form.number)
		}
		s.define(name, object{"anyOf": append(forms, text, ref("env")), "description": strings.ToUpper(scalarForms(t)[:1]) + scalarForms(t)[1:] + "."})
		return ref(name)
	case t.Kind() == reflect.Bool:
		forms = append(forms, object{"type": "boolean"})
	case t.Kind() == reflect.Int:
		number := object{"type": "integer"}
		if f.hasLeast {
			number["minimum"] = f.least
		}
		if f.hasMost {
			number["maximum"] = f.most
		}
		forms = append(forms, number)
	default:
		return object{"type": "string"}
	}
	return object{"anyOf": append(forms, ref("env"))}
}

var looksNumeric = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`)

// enumValues lists the words, those that read as a number also as one: YAML without quotes makes 1.2 a number.
func enumValues(words []string) object {
	var out []any
	for _, w := range words {
		out = append(out, w)
		if number, err := strconv.ParseFloat(w, 64); err == nil && looksNumeric.MatchString(w) {
			out = append(out, number)
		}
	}
	return object{"enum": out}
}
