package configs

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"path"
	"reflect"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// eachExample runs f for every example file.
func eachExample(t *testing.T, f func(t *testing.T, name string, data []byte)) {
	files, err := fs.Glob(Examples, "examples/*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	for _, file := range files {
		data, err := fs.ReadFile(Examples, file)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(path.Base(file), func(t *testing.T) { f(t, file, data) })
	}
}

func TestExamplesAreValid(t *testing.T) {
	eachExample(t, func(t *testing.T, name string, data []byte) {
		if _, err := Parse(name, data, "", environment); err != nil {
			t.Error(err)
		}
	})
}

func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("landfall.json", doc); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("landfall.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// asJSON is YAML as a schema checker sees it.
func asJSON(t *testing.T, data []byte) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestExamplesSatisfyTheSchema(t *testing.T) {
	compiled := compileSchema(t)
	eachExample(t, func(t *testing.T, name string, data []byte) {
		if err := compiled.Validate(asJSON(t, data)); err != nil {
			t.Errorf("%#v", err)
		}
		rendered := mustParse(t, string(data)).String()
		if err := compiled.Validate(asJSON(t, []byte(rendered))); err != nil {
			t.Errorf("as String prints it: %#v\n%s", err, rendered)
		}
	})
}

func TestSchemaRefuses(t *testing.T) {
	compiled := compileSchema(t)
	for name, text := range map[string]string{
		"no services":      "fleet: a",
		"unknown key":      service("flet: a"),
		"unknown deep key": service("    pool: {chekc: {}}"),
		"wrong kind":       service("listen: {http: 80}"),
		"not in the enum":  service("observe: {log_level: loud}"),
		"too large":        service("dns: {answers: 9}"),
		"bare percent":     service("health: {panic: 0.5}"),
		"no unit":          service("shutdown: {grace: 30}"),
		"latitude":         service("regions: {a: {location: [91, 0]}}"),
		"empty hosts":      `services: {web: {hosts: [], pools: {any: {origins: ["http://a:1"]}}}}`,
		"null check":       service("    pool: {check: }"),
	} {
		if err := compiled.Validate(asJSON(t, []byte(text))); err == nil {
			t.Errorf("%s: accepted\n%s", name, text)
		}
	}
}

func TestSchemaTakesTheEnvironmentAnywhere(t *testing.T) {
	text := service("dns: {answers: \"${NUMBER}\"}\nhealth: {panic: \"${P}\", quorum: \"${Q}\"}\ncache: {memory: \"${M}\"}")
	if err := compileSchema(t).Validate(asJSON(t, []byte(text))); err != nil {
		t.Errorf("%#v", err)
	}
}

func TestReferenceIsCurrent(t *testing.T) { golden(t, "REFERENCE.md", Reference()) }

// TestFullExampleHasEveryKey holds the full example to its promise: a new key must be shown there.
func TestFullExampleHasEveryKey(t *testing.T) {
	data, err := fs.ReadFile(Examples, "examples/three-regions.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	shown := make(map[string]bool)
	collectKeys(reflect.TypeFor[Config](), doc.Content[0], "", shown)
	var visit func(t reflect.Type, path string, visit2 func(string))
	visit = func(t reflect.Type, path string, each func(string)) {
		t = bare(t)
		switch {
		case isSection(t):
			for _, f := range fieldsOf(t) {
				each(join(path, f.name))
				visit(f.typ, join(path, f.name), each)
			}
		case t.Kind() == reflect.Map || t.Kind() == reflect.Slice:
			visit(t.Elem(), path+"[]", each)
		}
	}
	visit(reflect.TypeFor[Config](), "", func(path string) {
		if !shown[path] {
			t.Errorf("%s is not in the example", path)
		}
	})
}

// collectKeys notes the keys below n, with [] for the names and numbers in between.
func collectKeys(t reflect.Type, n *yaml.Node, path string, shown map[string]bool) {
	t = bare(t)
	switch {
	case isSection(t) && n.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			for _, f := range fieldsOf(t) {
				if f.name == n.Content[i].Value {
					shown[join(path, f.name)] = true
					collectKeys(f.typ, n.Content[i+1], join(path, f.name), shown)
				}
			}
		}
	case t.Kind() == reflect.Map:
		for i := 1; i < len(n.Content); i += 2 {
			collectKeys(t.Elem(), n.Content[i], path+"[]", shown)
		}
	case t.Kind() == reflect.Slice:
		for _, sub := range n.Content {
			collectKeys(t.Elem(), sub, path+"[]", shown)
		}
	}
}
