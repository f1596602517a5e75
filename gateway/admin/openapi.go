package admin

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// object is a JSON object of the document; encoding/json sorts its keys, so the document is the same each time.
type object = map[string]any

// openAPI builds the OpenAPI 3.1 document from the operations and the types of their bodies and answers.
func openAPI(operations []operation) []byte {
	s := &schemas{known: object{}}
	problemRef := s.of(reflect.TypeFor[Problem]())
	s.known["Problem"].(object)["properties"].(object)["type"].(object)["enum"] = problemTypes()
	paths := object{}
	for _, o := range operations {
		path := strings.TrimSuffix(o.path, "{$}")
		item, _ := paths[path].(object)
		if item == nil {
			item = object{}
			paths[path] = item
		}
		item[strings.ToLower(o.method)] = describe(o, s)
	}
	doc := object{
		"openapi": "3.1.0",
		"info": object{
			"title":   "Landfall admin API",
			"version": "1",
			"description": "The admin API of a Landfall node; any node answers for the whole fleet. Durations are strings such as 1.5s, times are RFC 3339, " +
				"sizes are numbers of bytes. Unknown fields and parameters are refused. A GET path answers HEAD too. Errors are problem documents (RFC 9457).",
		},
		"paths": paths,
		"components": object{
			"schemas": s.known,
			"responses": object{"Problem": object{
				"description": "What is wrong and what to do about it.",
				"content":     object{"application/problem+json": object{"schema": problemRef}},
			}},
			"securitySchemes": object{"bearer": object{
				"type": "http", "scheme": "bearer",
				"description": "A token of the config's admin.tokens. A loopback connection to the node needs none.",
			}},
		},
	}
	raw, err := encode(doc)
	if err != nil {
		panic("admin: the OpenAPI document can not be written: " + err.Error()) // it holds only strings, lists and maps
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		panic("admin: the OpenAPI document is not JSON: " + err.Error())
	}
	return out.Bytes()
}

func describe(o operation, s *schemas) object {
	op := object{"operationId": o.id, "summary": o.summary, "responses": responses(o, s)}
	if o.scope == scopeOpen {
		op["security"] = []any{}
	} else {
		op["security"] = []any{object{"bearer": []string{o.scope}}, object{}}
		op["description"] = "Needs the scope " + o.scope + ", or a loopback connection."
	}
	var parameters []any
	for _, name := range pathNames(o.path) {
		parameters = append(parameters, object{"name": name, "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	for _, p := range o.query {
		schema := object{"type": p.kind}
		if p.kind == "integer" {
			schema["minimum"] = 0
		}
		parameters = append(parameters, object{"name": p.name, "in": "query", "required": p.required, "description": p.doc, "schema": schema})
	}
	if parameters != nil {
		op["parameters"] = parameters
	}
	if o.body != nil {
		op["requestBody"] = object{
			"required": !hasZero(o.body),
			"content":  object{"application/json": object{"schema": s.ofRequest(reflect.TypeOf(o.body))}},
		}
	}
	return op
}

func responses(o operation, s *schemas) object {
	media, schema := o.media, object{"type": "string"}
	switch {
	case o.result != nil:
		media, schema = "application/json", s.of(reflect.TypeOf(o.result))
	case media == "application/json":
		schema = object{"type": "object"}
	}
	content := object{media: object{"schema": schema}}
	switch o.id {
	case "listEvents":
		content["text/event-stream"] = object{"schema": object{"type": "string", "description": "Each data line is an Event as JSON, each id its seq. An idle stream carries comments."}}
	case "getIndex":
		content["text/plain"] = object{"schema": schema}
	}
	all := object{"200": object{"description": o.summary + ".", "content": content}}
	if o.changes() {
		all["202"] = object{"description": "Done here; the nodes in missing follow as soon as they are heard again.", "content": content}
	}
	for _, status := range statuses(o) {
		all[strconv.Itoa(status)] = object{"$ref": "#/components/responses/Problem"}
	}
	return all
}

// statuses are those of the problems that an operation can have.
func statuses(o operation) []int {
	out := append([]int{http.StatusBadRequest, http.StatusInternalServerError}, o.errors...)
	if o.scope != scopeOpen {
		out = append(out, http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests)
	}
	if o.body != nil {
		out = append(out, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	if o.changes() {
		out = append(out, http.StatusNotFound, http.StatusServiceUnavailable, http.StatusGatewayTimeout)
	}
	if o.id == "listEvents" {
		out = append(out, http.StatusServiceUnavailable)
	}
	return out
}

// pathNames are the parameters in a path.
func pathNames(path string) []string {
	var names []string
	for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(path, -1) {
		names = append(names, m[1])
	}
	return names
}

// hasZero tells whether a body may be left out: nothing in it is required.
func hasZero(body any) bool {
	t := reflect.TypeOf(body)
	for i := range t.NumField() {
		if _, optional := jsonName(t.Field(i)); !optional {
			return false
		}
	}
	return true
}

// schemas collects the JSON Schemas of the types that it meets, by their names.
type schemas struct{ known object }

// of is the schema of t; a named struct's is a reference.
func (s *schemas) of(t reflect.Type) object {
	switch {
	case t == reflect.TypeFor[Duration]():
		return object{"type": "string", "examples": []string{"1.5s"}}
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem())
	case reflect.Slice:
		return object{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Struct:
		return s.ofStruct(t)
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.String:
		return object{"type": "string"}
	}
	panic("admin: no JSON Schema for " + t.String())
}

func (s *schemas) ofStruct(t reflect.Type) object {
	name := strings.ToUpper(t.Name()[:1]) + t.Name()[1:]
	ref := object{"$ref": "#/components/schemas/" + name}
	if _, met := s.known[name]; met {
		return ref
	}
	properties, required := object{}, []string{}
	s.known[name] = object{"type": "object", "properties": properties}
	for _, f := range reflect.VisibleFields(t) { // with those of embedded structs
		if f.Anonymous || !f.IsExported() {
			continue
		}
		field, optional := jsonName(f)
		schema := s.of(f.Type)
		if doc := f.Tag.Get("doc"); doc != "" {
			schema["description"] = doc // beside $ref too, as OpenAPI 3.1 allows
		}
		if enum := f.Tag.Get("enum"); enum != "" {
			schema["enum"] = strings.Split(enum, ",")
		}
		properties[field] = schema
		if !optional {
			required = append(required, field)
		}
	}
	if len(required) > 0 {
		s.known[name].(object)["required"] = required
	}
	return ref
}

// ofRequest is the schema of a body; what it does not name is refused.
func (s *schemas) ofRequest(t reflect.Type) object {
	ref := s.of(t)
	s.known[t.Name()].(object)["additionalProperties"] = false
	return ref
}

// jsonName is a field's name in JSON, and whether it may be absent.
func jsonName(f reflect.StructField) (name string, optional bool) {
	name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name, strings.Contains(options, "omit")
}
