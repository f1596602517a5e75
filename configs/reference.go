package configs

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
)

const referenceIntro = `# Config reference

One YAML file describes the whole fleet and is the same on every node. This page is generated from the types in
this folder. Complete files to start from are in [examples](examples); ` + "`landfall schema`" + ` prints a JSON Schema for editors, and
` + "`landfall validate FILE`" + ` reports every fault at once.

The file is one document of at most 4 MiB. An unknown key, a key that stands twice and a value of the wrong kind are errors. Anchors,
aliases and ` + "`<<`" + ` work. A key without a value is an error, save for a whole section.

` + "`${NAME}`" + ` anywhere in a value is filled in from the environment; a variable that is not set is an error, and what it holds is
never read as YAML. ` + "`$$`" + ` is a literal ` + "`$`" + `. Inside ` + "`[ ]`" + ` and ` + "`{ }`" + ` YAML wants it in quotes: ` + "`{key: \"${KEY}\"}`" + `.

| kind | written |
|---|---|
| duration | %s; 0 needs no unit |
| size | %s; KiB is 1024, KB is 1000, letter case does not matter |
| percent | %s; only 0 needs no %% |
| rate | %s; 0 is no limit |
| status | %s |
| prefix | %s |
| one or list | a single value, or a list of them |

NAME stands for a name that you choose, [] for each element of a list. Required keys are marked with *. Relative paths are
resolved against the folder of the config.
`

// Reference is the config reference in Markdown, made from the types and their tags. REFERENCE.md in this folder is its
// output.
func Reference() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, referenceIntro, durationForms, sizeForms, percentForms, rateForms, statusForms, prefixForms)
	referenceSection(&b, reflect.TypeFor[Config](), "")
	return b.Bytes()
}

// referenceSection writes the table of a section, then those of the sections in it.
func referenceSection(b *bytes.Buffer, t reflect.Type, path string) {
	title := "The file"
	if path != "" {
		title = path
	}
	fmt.Fprintf(b, "\n## %s\n\n| key | value | default | meaning |\n|---|---|---|---|\n", title)
	fields := fieldsOf(t)
	for _, f := range fields {
		star := ""
		if f.required {
			star = "*"
		}
		def := ""
		if f.hasDefault {
			def = "`" + f.def + "`"
		}
		fmt.Fprintf(b, "| `%s`%s | %s | %s | %s |\n", f.name, star, cell(valueForm(f.typ, f)), cell(def), cell(f.doc))
	}
	for _, f := range fields {
		t, at := element(f.typ), join(path, f.name)
		switch f.typ.Kind() {
		case reflect.Map:
			at += ".NAME"
		case reflect.Slice:
			at += "[]"
		}
		if isSection(t) {
			referenceSection(b, t, at)
		}
	}
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// valueForm says what a value of the type may be.
func valueForm(t reflect.Type, f field) string {
	t = bare(t)
	switch {
	case t == reflect.TypeFor[Location]():
		return "[latitude, longitude]"
	case t == reflect.TypeFor[RouteCache]():
		return "off, on or section"
	case t == reflect.TypeFor[StringList]():
		return "one or list"
	case isSection(t):
		return "section"
	case t.Kind() == reflect.Map:
		return "mapping by name: " + valueForm(t.Elem(), f)
	case t.Kind() == reflect.Slice:
		return "list of " + valueForm(t.Elem(), f)
	case f.enum != nil:
		return strings.Join(f.enum, ", ")
	default:
		return scalarName(t) + rangeForm(f)
	}
}

func scalarName(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[StatusRange]():
		return "status"
	case t.PkgPath() == reflect.TypeFor[Config]().PkgPath():
		return strings.ToLower(t.Name())
	case t.Kind() == reflect.Bool:
		return "true, false"
	case t.Kind() == reflect.Int:
		return "number"
	default:
		return "text"
	}
}

func rangeForm(f field) string {
	switch {
	case f.min != "" && f.max != "":
		return ", " + f.min + " to " + f.max
	case f.min != "" && f.min != "0" && f.min != "0s":
		return ", at least " + f.min
	case f.max != "":
		return ", at most " + f.max
	default:
		return ""
	}
}
