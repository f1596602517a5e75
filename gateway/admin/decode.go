package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxBody bounds a request's body in bytes.
const maxBody = 1 << 20

// field is one member that a body may have. set stores its value, or says what is wrong with it.
type field struct {
	name string
	set  func(raw json.RawMessage) []FieldError
}

// later tells, of members that a future version takes, why this one does not: a clearer answer than "unknown".
type later map[string]string

// readBody reads the body of r, checked for its size and type. A body that is absent reads as nil.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, problem(http.StatusRequestEntityTooLarge, codeTooLarge, "Too large",
			fmt.Sprintf("the body is larger than %d bytes; send several smaller requests", maxBody))
	case err != nil:
		return nil, invalidBody("the body broke off while it was read: " + err.Error())
	case len(data) == 0:
		return nil, nil
	}
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset := strings.ToLower(params["charset"])
	if err != nil || media != "application/json" || (charset != "" && charset != "utf-8") {
		return nil, unsupportedMedia(fmt.Sprintf("the body's Content-Type is %q; send application/json", clip(r.Header.Get("Content-Type"), 80)))
	}
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return nil, unsupportedMedia(fmt.Sprintf("the body's Content-Encoding is %q; send it as it is", clip(coding, 80)))
	}
	return data, nil
}

func unsupportedMedia(detail string) *Problem {
	// The Accept header tells what would do (RFC 9110 section 15.5.16).
	return problem(http.StatusUnsupportedMediaType, codeMediaType, "Unsupported media type", detail).with("Accept", "application/json")
}

func invalidBody(detail string) *Problem {
	p := invalid()
	p.Detail = detail
	return p
}

// decodeObject reads one JSON object (RFC 8259) strictly: members must be known, spelt exactly and given once, null is
// no value, and nothing may follow. It reports all refused members together. encoding/json alone takes a member in any
// case, takes it twice and stops at the first unknown one.
func decodeObject(data []byte, fields []field, notYet later) error {
	if !utf8.Valid(data) {
		return invalidBody("the body is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return invalidBody("the body is not a JSON object" + syntaxDetail(err))
	}
	var refused []FieldError
	var names, seen []string
	for _, f := range fields {
		names = append(names, f.name)
	}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return invalidBody("the body is not JSON" + syntaxDetail(err))
		}
		name := tok.(string) // inside an object, before a value, the decoder yields only strings
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return invalidBody("the body is not JSON" + syntaxDetail(err))
		}
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
		switch {
		case i < 0:
			refused = append(refused, FieldError{clip(name, 80), unknownField(name, names, notYet)})
		case slices.Contains(seen, name):
			refused = append(refused, FieldError{name, "given twice"})
		default:
			refused = append(refused, fields[i].set(raw)...)
		}
		if len(refused) > maxKnown {
			break
		}
		seen = append(seen, name)
	}
	if len(refused) > 0 {
		p := invalid(refused...)
		p.Known = names
		return p
	}
	if _, err := dec.Token(); err != nil {
		return invalidBody("the body is not JSON" + syntaxDetail(err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return invalidBody("something follows the JSON object; send one object only")
	}
	return nil
}

func unknownField(name string, known []string, notYet later) string {
	if why, ok := notYet[name]; ok {
		return why
	}
	return "unknown field" + didYouMean(name, known)
}

func syntaxDetail(err error) string {
	var syntax *json.SyntaxError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &syntax):
		return fmt.Sprintf(": %s at byte %d", syntax.Error(), syntax.Offset)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return ": it ends too early"
	default:
		return ": " + err.Error()
	}
}

// kindOf is the kind of a JSON value in words.
func kindOf(raw json.RawMessage) string {
	switch raw[0] {
	case '"':
		return "a string"
	case '{':
		return "an object"
	case '[':
		return "a list"
	case 't', 'f':
		return "a truth value"
	case 'n':
		return "null"
	default:
		return "a number"
	}
}

func expected(name, want string, raw json.RawMessage) []FieldError {
	return []FieldError{{name, "expected " + want + ", got " + kindOf(raw)}}
}

func stringField(name string, set func(string) error) field {
	return field{name, func(raw json.RawMessage) []FieldError {
		var s string
		if raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
			return expected(name, "a string", raw)
		}
		if err := set(s); err != nil {
			return []FieldError{{name, err.Error()}}
		}
		return nil
	}}
}

func boolField(name string, into *bool) field {
	return field{name, func(raw json.RawMessage) []FieldError {
		if (raw[0] != 't' && raw[0] != 'f') || json.Unmarshal(raw, into) != nil {
			return expected(name, "true or false", raw)
		}
		return nil
	}}
}

// listField is a list of 1 to limit strings; check is asked about each.
func listField(name string, limit int, into *List[string], check func(string) error) field {
	return field{name, func(raw json.RawMessage) []FieldError {
		var items []json.RawMessage
		if raw[0] != '[' || json.Unmarshal(raw, &items) != nil {
			return expected(name, "a list of strings", raw)
		}
		if len(items) == 0 || len(items) > limit {
			return []FieldError{{name, fmt.Sprintf("has %d entries; give 1 to %d", len(items), limit)}}
		}
		var refused []FieldError
		for i, item := range items {
			at := fmt.Sprintf("%s[%d]", name, i)
			refused = append(refused, stringField(at, func(s string) error {
				*into = append(*into, s)
				return check(s)
			}).set(item)...)
			if len(refused) >= maxKnown {
				break
			}
		}
		return refused
	}}
}
