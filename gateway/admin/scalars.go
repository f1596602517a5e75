package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time. In JSON a string of the form 250ms, 1.5s, 10m, 1h30m; days are read (7d) and written as hours.
type Duration time.Duration

// ParseDuration reads a duration as people write it: what time.ParseDuration takes, with whole days in front (7d, 1d12h).
func ParseDuration(s string) (Duration, error) {
	rest := s
	var days time.Duration
	if head, tail, found := strings.Cut(s, "d"); found {
		n, err := strconv.ParseUint(head, 10, 16)
		if err != nil {
			return 0, durationError(s)
		}
		days, rest = time.Duration(n)*24*time.Hour, tail
		if rest == "" {
			return Duration(days), nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || (days > 0 && d < 0) || days+d < days && d > 0 {
		return 0, durationError(s)
	}
	return Duration(days + d), nil
}

func durationError(s string) error {
	return fmt.Errorf("%q is not a duration; write it like 250ms, 90s, 1h30m or 7d", clip(s, 40))
}

// D is the duration as the standard library's type.
func (d Duration) D() time.Duration { return time.Duration(d) }

// String is the duration without empty trailing units: 1h, not 1h0m0s.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText writes the duration as String does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what ParseDuration takes.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := ParseDuration(string(text))
	if err != nil {
		return err
	}
	*d = v
	return nil
}

// List is a slice that is [] in JSON when it is nil, so that a reader never meets null where it expects a list.
type List[T any] []T

// MarshalJSON writes the list.
func (l List[T]) MarshalJSON() ([]byte, error) {
	if l == nil {
		return []byte("[]"), nil
	}
	return encode([]T(l))
}

// Map is a map by name that is {} in JSON when it is nil.
type Map[T any] map[string]T

// MarshalJSON writes the map, its keys sorted.
func (m Map[T]) MarshalJSON() ([]byte, error) {
	if m == nil {
		return []byte("{}"), nil
	}
	return encode(map[string]T(m))
}

// encode is json.Marshal without the escapes for HTML: URLs stay readable in a terminal, and no answer of this API is
// ever taken for HTML (its Content-Type says JSON, and sniffing is switched off).
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// clip shortens s to at most n bytes for an error text, on a character boundary.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
