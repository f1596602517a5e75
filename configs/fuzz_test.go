package configs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// FuzzParse holds, of what is refused, that the faults are in order and leak nothing; of what is accepted, that it passes
// validation again, and that it reads back the same when it is written out with its defaults.
func FuzzParse(f *testing.F) {
	f.Add(smallestFile)
	for _, pattern := range []string{"examples/*.yaml", "testdata/bad/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(data))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("fuzz.yaml", []byte(text), "", environment)
		if err != nil {
			checkRefused(t, err)
			return
		}
		r := newReport("")
		if validate(c, r); r.result() != nil {
			t.Fatalf("accepted, but not when validated again: %v", r.result())
		}
		for name, s := range c.Services {
			if len(s.Hosts) == 0 || len(s.Pools) == 0 || len(s.Routes) == 0 || !labelPattern.MatchString(name) {
				t.Fatalf("service %q was accepted: %+v", name, s)
			}
			for _, route := range s.Routes {
				if route.Cache == nil || !strings.HasPrefix(route.Match.Path, "/") {
					t.Fatalf("route %+v was accepted", route)
				}
			}
		}
		if again := reparse(t, c); !reflect.DeepEqual(c, again) {
			t.Fatalf("read   %s\nreread %s", c, again)
		}
	})
}

func checkRefused(t *testing.T, err error) {
	var all Errors
	if !errors.As(err, &all) || len(all) == 0 || len(all) > maxErrors+1 {
		t.Fatalf("%d faults in a %T", len(all), err)
	}
	for i, e := range all {
		if e.Msg == "" || i > 0 && e.Line < all[i-1].Line {
			t.Fatalf("fault %d: %+v", i, e)
		}
	}
	secret, _ := environment("SECRET")
	if strings.Contains(err.Error(), secret) {
		t.Fatalf("the error prints what the environment holds: %v", err)
	}
}

// FuzzScalars holds that each scalar that is accepted is in range and reads back the same when it is written.
func FuzzScalars(f *testing.F) {
	for _, s := range []string{"1m30s", "7d", "64MiB", "1.5GiB", "50%", "0.1%", "100/m", "200-299", "10.0.0.0/8", "::1", "0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var d, d2 Duration
		if d.UnmarshalText([]byte(text)) == nil && (d < 0 || d2.UnmarshalText([]byte(d.String())) != nil || d != d2) {
			t.Errorf("duration %q: %v, %v", text, d, d2)
		}
		var z, z2 Size
		if z.UnmarshalText([]byte(text)) == nil && (z < 0 || z2.UnmarshalText([]byte(z.String())) != nil || z != z2) {
			t.Errorf("size %q: %v, %v", text, z, z2)
		}
		var p, p2 Percent
		if p.UnmarshalText([]byte(text)) == nil && (!(p >= 0 && p <= 1) || p2.UnmarshalText([]byte(p.String())) != nil || p != p2) {
			t.Errorf("percent %q: %v, %v", text, p, p2)
		}
		var r, r2 Rate
		if r.UnmarshalText([]byte(text)) == nil && (!(r >= 0 && r <= 1e9) || r2.UnmarshalText([]byte(r.String())) != nil || r != r2) {
			t.Errorf("rate %q: %v, %v", text, r, r2)
		}
		var s, s2 StatusRange
		if s.UnmarshalText([]byte(text)) == nil && (s.From > s.To || s2.UnmarshalText([]byte(s.String())) != nil || s != s2) {
			t.Errorf("status %q: %v, %v", text, s, s2)
		}
		var x, x2 Prefix
		if x.UnmarshalText([]byte(text)) == nil && (!x.IsValid() || x2.UnmarshalText([]byte(x.String())) != nil || x != x2) {
			t.Errorf("prefix %q: %v, %v", text, x, x2)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	data := []byte(exampleText(b))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("x", data, "", environment); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParseThousandServices is a config of a thousand services, some 240 KB.
func BenchmarkParseThousandServices(b *testing.B) {
	data := thousandServices()
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Parse("x", data, "", environment); err != nil {
			b.Fatal(err)
		}
	}
}

func thousandServices() []byte {
	var text strings.Builder
	text.WriteString("services:\n")
	for i := range 1000 {
		fmt.Fprintf(&text, `  service-%d:
    hosts: [s%d.example.com, "*.s%d.example.com"]
    pools: {any: {origins: ["http://10.0.0.1:8080", "http://10.0.0.2:8080"]}}
    routes:
      - match: {path: /api/*}
        cache: off
      - cache: {ttl: 1m}
`, i, i, i)
	}
	return []byte(text.String())
}
