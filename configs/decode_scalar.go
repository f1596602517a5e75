package configs

import (
	"encoding"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// word is the text of a scalar with the environment filled in. When it reports false, the fault has been reported.
func (d *decoder) word(n *yaml.Node, path string) (string, bool) {
	if isNull(n) {
		d.spoil(n, path, "has no value: write one, or leave out the key")
		return "", false
	}
	text, used, faults := expand(n.Value, d.lookup, keepsNode(path))
	if p := d.places[path]; p != nil {
		p.raw, p.env = n.Value, used
	}
	for _, msg := range faults {
		d.spoil(n, path, "%s", msg)
	}
	if len(faults) > 0 {
		return "", false
	}
	if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		d.spoil(n, path, "holds a line break, another control character, or bytes that are not UTF-8")
		return "", false
	}
	return text, true
}

var wholeNumber = regexp.MustCompile(`^(0|-?[1-9][0-9]{0,17})$`)

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.ScalarNode {
		d.spoil(n, path, "expected %s, got %s", scalarForms(v.Type()), kindName(n))
		return
	}
	word, ok := d.word(n, path)
	if !ok {
		return
	}
	if to, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if len(word) > maxShown {
			d.spoil(n, path, "%s is too long for %s", d.show(path, word), scalarForms(v.Type()))
			return
		}
		if err := to.UnmarshalText([]byte(word)); err != nil && d.places[path].env {
			d.spoil(n, path, "%s is not %s", d.show(path, word), scalarForms(v.Type()))
		} else if err != nil {
			d.spoil(n, path, "%s", err)
		}
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(word)
	case reflect.Bool:
		switch word {
		case "true", "True", "TRUE":
			v.SetBool(true)
		case "false", "False", "FALSE":
			v.SetBool(false)
		default:
			d.spoil(n, path, "%s is neither true nor false", d.show(path, word))
		}
	default:
		if !wholeNumber.MatchString(word) {
			d.spoil(n, path, "%s is not a whole number in decimal", d.show(path, word))
			return
		}
		number, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			d.spoil(n, path, "%s is not a whole number in decimal", d.show(path, word))
			return
		}
		v.SetInt(number)
	}
}

// scalarForms says what a scalar of the type looks like.
func scalarForms(t reflect.Type) string {
	switch bare(t) {
	case reflect.TypeFor[Duration]():
		return durationForms
	case reflect.TypeFor[Size]():
		return sizeForms
	case reflect.TypeFor[Percent]():
		return percentForms
	case reflect.TypeFor[Rate]():
		return rateForms
	case reflect.TypeFor[Factor]():
		return factorForms
	case reflect.TypeFor[StatusRange]():
		return statusForms
	case reflect.TypeFor[Prefix]():
		return prefixForms
	}
	switch bare(t).Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	default:
		return "a single value"
	}
}
