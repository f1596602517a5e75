package feeds

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"landfall/configs"
)

const (
	maxEvent   = 256 << 10 // bytes of one event
	maxTargets = 10_000    // of one event
)

// Purge is what an event asks for.
type Purge struct {
	Service              string
	Keys, URLs, Prefixes []string
	Soft                 bool
	By                   string // where it came from, for the events
}

func (p *Purge) empty() bool { return len(p.Keys)+len(p.URLs)+len(p.Prefixes) == 0 }

// rule is a configs.PurgeRule, read.
type rule struct {
	service              string
	soft                 bool
	keys, urls, prefixes [][]configs.TemplatePart
}

func newRule(c configs.PurgeRule) rule {
	read := func(list []string) (out [][]configs.TemplatePart) {
		for _, s := range list {
			if parts, err := configs.ParseTemplate(s); err == nil { // validation lets only sound ones through
				out = append(out, parts)
			}
		}
		return out
	}
	return rule{c.Service, c.Soft, read(c.Keys), read(c.URLs), read(c.Prefixes)}
}

// apply is what an event purges; an empty Purge is one that it does not concern. An error says that it can't be read.
func (r rule) apply(event []byte) (Purge, error) {
	p := Purge{Service: r.service, Soft: r.soft}
	if len(event) > maxEvent {
		return p, fmt.Errorf("it has %d bytes, more than %d", len(event), maxEvent)
	}
	var members map[string]any
	d := json.NewDecoder(bytes.NewReader(event))
	d.UseNumber()
	if err := d.Decode(&members); err != nil {
		return p, fmt.Errorf("it is no JSON object: %w", err)
	}
	if d.More() {
		return p, errors.New("it is more than one JSON object")
	}
	for _, kind := range []struct {
		templates [][]configs.TemplatePart
		out       *[]string
		escape    func(string) string
	}{{r.keys, &p.Keys, verbatim}, {r.urls, &p.URLs, escaped}, {r.prefixes, &p.Prefixes, escaped}} {
		for _, t := range kind.templates {
			list, err := expand(t, members, kind.escape)
			if err != nil {
				return p, err
			}
			*kind.out = append(*kind.out, list...)
		}
		slices.Sort(*kind.out)
		*kind.out = slices.Compact(*kind.out)
	}
	return p, nil
}

func verbatim(s string) string { return s }

// escaped makes a value one segment of a path or one value of a query. Slashes in it stay: they tell folders apart.
func escaped(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(url.QueryEscape(s), "+", "%20"), "%2F", "/")
}

// expand fills a template in, once for each combination of the elements of lists; none where a member is missing.
func expand(parts []configs.TemplatePart, members map[string]any, escape func(string) string) ([]string, error) {
	out := []string{""}
	for _, part := range parts {
		values := []string{part.Text}
		if part.Member {
			values = values[:0]
			for _, v := range lookUp(members, part.Text) {
				values = append(values, escape(v))
			}
		}
		if len(values)*len(out) > maxTargets {
			return nil, fmt.Errorf("it names more than %d targets", maxTargets)
		}
		next := make([]string, 0, len(out)*len(values))
		for _, begin := range out {
			for _, v := range values {
				next = append(next, begin+v)
			}
		}
		out = next
	}
	return out, nil
}

// lookUp is the values of a member: of each element where a list lies on the way. What is neither text nor number is none.
func lookUp(v any, path string) (out []string) {
	if list, ok := v.([]any); ok {
		for _, e := range list {
			out = append(out, lookUp(e, path)...)
		}
		return out
	}
	if path == "" {
		switch v := v.(type) {
		case string:
			if v != "" {
				return []string{v}
			}
		case json.Number:
			return []string{v.String()}
		}
		return nil
	}
	members, ok := v.(map[string]any)
	if !ok {
		return nil
	}
	name, rest, _ := strings.Cut(path, ".")
	return lookUp(members[name], rest)
}
