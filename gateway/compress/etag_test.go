package compress

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestTags(t *testing.T) {
	tests := []struct {
		list string
		want []string
	}{
		{`"a"`, []string{`"a"`}},
		{`W/"a"`, []string{`W/"a"`}},
		{`"a", W/"b,c" ,"d"`, []string{`"a"`, `W/"b,c"`, `"d"`}},
		{`,"a",,`, []string{`"a"`}},
		{`""`, []string{`""`}},
		{"\"\xe9\"", []string{"\"\xe9\""}},
		{"", nil},
		{"*", nil},
		{"a", nil},
		{`"a`, nil},
		{`w/"a"`, nil},
		{`"a" "b"`, nil},
		{`"a b"`, nil},
		{`"a", b`, nil},
	}
	for _, tt := range tests {
		got, ok := tags(tt.list)
		if ok != (tt.want != nil) || ok && !slices.Equal(got, tt.want) {
			t.Errorf("tags(%q) = %q, %v, want %q", tt.list, got, ok, tt.want)
		}
	}
}

func TestPrepareRequest(t *testing.T) {
	tests := []struct {
		name, coding, field, value, want string
	}{
		{"single", "gzip", "If-None-Match", `"x-gzip"`, `"x"`},
		{"weak", "br", "If-None-Match", `W/"x-br"`, `W/"x"`},
		{"another coding's variant does not satisfy this client", "br", "If-None-Match", `"x-gzip"`, `"x-gzip"`},
		{"identity", "", "If-None-Match", `"x-gzip"`, `"x-gzip"`},
		{"list", "zstd", "If-None-Match", `"y", "x-zstd"`, `"y", "x-zstd", "x"`},
		{"plain", "gzip", "If-None-Match", `"x"`, `"x"`},
		{"star", "gzip", "If-None-Match", `*`, `*`},
		{"malformed", "gzip", "If-None-Match", `x-gzip`, `x-gzip`},
		{"suffix outside the quotes", "gzip", "If-None-Match", `"x"-gzip`, `"x"-gzip`},
		{"only a suffix", "gzip", "If-None-Match", `"-gzip"`, `""`},
		{"write precondition", "br", "If-Match", `"x-gzip", "y"`, `"x", "y"`},
		{"write precondition without coding", "", "If-Match", `"x-zstd"`, `"x"`},
		{"range precondition", "gzip", "If-Range", `"x-gzip"`, `"x-gzip"`},
	}
	c := all()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{tt.field: {tt.value}, stripped: {"from a client"}}
			if tt.coding != "" {
				h.Set("Accept-Encoding", tt.coding)
			}
			c.PrepareRequest(h)
			if got := h.Get(tt.field); got != tt.want {
				t.Errorf("%s: %s became %s, want %s", tt.field, tt.value, got, tt.want)
			}
			if h[stripped] != nil {
				t.Error("the mark has a value: it would be sent")
			}
		})
	}
}

func FuzzPrepareRequest(f *testing.F) {
	for _, s := range []string{`"x-gzip"`, `W/"a", "b-gzip-gzip"`, `*`, `"a`, `"",W/""`} {
		f.Add(s)
	}
	c := all()
	f.Fuzz(func(t *testing.T, value string) {
		h := http.Header{"Accept-Encoding": {"gzip"}, "If-None-Match": {value}, "If-Match": {value}}
		c.PrepareRequest(h)
		before, ok := tags(value)
		for _, field := range []string{"If-None-Match", "If-Match"} {
			got := h.Get(field)
			if !ok {
				if got != value {
					t.Fatalf("%s: malformed %q became %q", field, value, got)
				}
				continue
			}
			after, ok := tags(got)
			if !ok {
				t.Fatalf("%s: %q became malformed: %q", field, value, got)
			}
			if len(after) < len(before) {
				t.Fatalf("%s: %q lost tags: %q", field, value, got)
			}
			for _, tag := range before {
				plain, _ := cutSuffix(tag, "-gzip")
				if !slices.Contains(after, tag) && !slices.Contains(after, plain) && field == "If-None-Match" {
					t.Fatalf("%s: %q has no successor in %q", field, tag, got)
				}
			}
		}
		for _, tag := range before {
			suffixed := addSuffix(tag, "-gzip")
			if !validTag(suffixed) || strings.HasPrefix(tag, "W/") != strings.HasPrefix(suffixed, "W/") {
				t.Fatalf("addSuffix(%q) = %q", tag, suffixed)
			}
			if plain, cut := cutSuffix(suffixed, "-gzip"); !cut || addSuffix(plain, "-gzip") != suffixed && !hasSuffix(plain, "-gzip") {
				t.Fatalf("%q does not come back from %q: %q", tag, suffixed, plain)
			}
		}
	})
}
