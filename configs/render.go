package configs

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// redacted stands for a secret wherever a config is printed.
const redacted = "[redacted]"

// renderer turns configs back into what their file says, as a tree of YAML nodes.
type renderer struct {
	secrets bool // print secrets
	escape  bool // write a $ so that Parse reads it back
}

// String is the config as YAML with its defaults filled in and its secrets left out, for people. Like all that prints a
// config it is in the order of the reference.
func (c *Config) String() string {
	text, err := (renderer{escape: true}).yaml(reflect.ValueOf(c))
	if err != nil {
		return "the config can't be printed: " + err.Error()
	}
	return string(text)
}

// MarshalJSON is the config under the names of its file, with its defaults filled in and its secrets left out.
func (c *Config) MarshalJSON() ([]byte, error) { return (renderer{}).json(reflect.ValueOf(c)) }

// String is the mesh section without its keys.
func (m Mesh) String() string { return flat(m) }

// GoString is String, so that %#v shows no key either.
func (m Mesh) GoString() string { return flat(m) }

// MarshalJSON is the mesh section without its keys.
func (m Mesh) MarshalJSON() ([]byte, error) { return (renderer{}).json(reflect.ValueOf(m)) }

// String is the token without its hash.
func (t Token) String() string { return flat(t) }

// GoString is String, so that %#v does not show the hash either.
func (t Token) GoString() string { return flat(t) }

// MarshalJSON is the token without its hash.
func (t Token) MarshalJSON() ([]byte, error) { return (renderer{}).json(reflect.ValueOf(t)) }

// String is the user without the hash.
func (u BasicUser) String() string { return flat(u) }

// GoString is String, so that %#v does not show the hash either.
func (u BasicUser) GoString() string { return flat(u) }

// MarshalJSON is the user without the hash.
func (u BasicUser) MarshalJSON() ([]byte, error) { return (renderer{}).json(reflect.ValueOf(u)) }

func flat(v any) string {
	text, err := (renderer{}).json(reflect.ValueOf(v))
	if err != nil {
		return redacted
	}
	return string(text)
}

func (r renderer) yaml(v reflect.Value) ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(r.node(v, field{}, "")); err != nil {
		return nil, fmt.Errorf("writing the config as YAML: %w", err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("writing the config as YAML: %w", err)
	}
	return b.Bytes(), nil
}

func (r renderer) json(v reflect.Value) ([]byte, error) {
	var b bytes.Buffer
	if err := writeJSON(&b, r.node(v, field{}, "")); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// node is the value as its file would say it, or nil for what the file would leave out.
func (r renderer) node(v reflect.Value, f field, path string) *yaml.Node {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return nil
		}
		v = v.Elem()
	}
	switch value := v.Interface().(type) {
	case Location:
		return &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle, Content: []*yaml.Node{degrees(value.Lat), degrees(value.Lon)}}
	case RouteCache:
		if value.Off || value.plain() {
			return plain("!!str", value.String())
		}
	case encoding.TextMarshaler:
		text, err := value.MarshalText()
		if err != nil {
			return plain("!!str", err.Error())
		}
		return plain("", string(text)) // no quotes in YAML, a string in JSON
	}
	switch v.Kind() {
	case reflect.Struct:
		return r.section(v, path)
	case reflect.Map:
		return r.mapping(v, f, path)
	case reflect.Slice:
		out := &yaml.Node{Kind: yaml.SequenceNode}
		if isScalar(v.Type().Elem()) {
			out.Style = yaml.FlowStyle
		}
		for i := range v.Len() {
			out.Content = append(out.Content, r.node(v.Index(i), f, index(path, i)))
		}
		return out
	case reflect.Bool:
		return plain("!!bool", strconv.FormatBool(v.Bool()))
	case reflect.Int:
		return plain("!!int", strconv.FormatInt(v.Int(), 10))
	default:
		return plain("!!str", r.text(v.String(), f, path))
	}
}

func (r renderer) section(v reflect.Value, path string) *yaml.Node {
	out := &yaml.Node{Kind: yaml.MappingNode}
	for _, f := range fieldsOf(v.Type()) {
		value := v.Field(f.index)
		if r.absent(v, value, f) {
			continue
		}
		if sub := r.node(value, f, join(path, f.name)); sub != nil {
			out.Content = append(out.Content, plain("!!str", f.name), sub)
		}
	}
	return out
}

// absent tells whether a key means the same when it is left out.
func (r renderer) absent(section, value reflect.Value, f field) bool {
	if s, ok := section.Interface().(Shutdown); ok && f.name == "dns_wait" {
		return !s.DNSWaitSet
	}
	switch value.Kind() {
	case reflect.String, reflect.Slice, reflect.Map, reflect.Pointer:
		return value.IsZero() && !f.hasDefault
	default:
		return false
	}
}

func (r renderer) mapping(v reflect.Value, f field, path string) *yaml.Node {
	out := &yaml.Node{Kind: yaml.MappingNode}
	keys := v.MapKeys()
	sort.Slice(keys, func(i, j int) bool { return keys[i].String() < keys[j].String() })
	for _, k := range keys {
		if sub := r.node(v.MapIndex(k), f, join(path, k.String())); sub != nil {
			out.Content = append(out.Content, plain("!!str", k.String()), sub)
		}
	}
	return out
}

func (r renderer) text(s string, f field, path string) string {
	switch {
	case f.secret && !r.secrets:
		return redacted
	case !r.escape:
		return s
	}
	// What the node fills in stays as it is.
	const node = "${NODE}"
	if !keepsNode(path)("NODE") {
		return escape(s)
	}
	parts := strings.Split(s, node)
	last := len(parts) - 1
	for i, part := range parts[:last] { // a $ that stands before the node's must not pair up with it
		parts[i] = strings.TrimSuffix(escape(part+"$"), "$")
	}
	parts[last] = escape(parts[last])
	return strings.Join(parts, node)
}

func plain(tag, value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}
}

func degrees(f float64) *yaml.Node {
	return plain("!!float", strconv.FormatFloat(f, 'f', -1, 64))
}

// writeJSON writes a tree that a renderer made, in its order.
func writeJSON(b *bytes.Buffer, n *yaml.Node) error {
	switch {
	case n == nil:
		b.WriteString("null")
	case n.Kind == yaml.MappingNode:
		b.WriteByte('{')
		for i := 0; i+1 < len(n.Content); i += 2 {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := writeJSON(b, n.Content[i]); err != nil {
				return err
			}
			b.WriteByte(':')
			if err := writeJSON(b, n.Content[i+1]); err != nil {
				return err
			}
		}
		b.WriteByte('}')
	case n.Kind == yaml.SequenceNode:
		b.WriteByte('[')
		for i, sub := range n.Content {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := writeJSON(b, sub); err != nil {
				return err
			}
		}
		b.WriteByte(']')
	case n.Tag == "!!str" || n.Tag == "":
		text, err := json.Marshal(n.Value)
		if err != nil {
			return fmt.Errorf("writing the config as JSON: %w", err)
		}
		b.Write(text)
	default:
		b.WriteString(n.Value) // a number or a boolean reads the same in both
	}
	return nil
}
