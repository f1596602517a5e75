package compress

import (
	"strings"
	"testing"
)

func all() *Compressor { return New(Options{Algorithms: []string{"zstd", "br", "gzip"}}) }

func TestNegotiate(t *testing.T) {
	tests := []struct {
		accept string
		want   string
	}{
		{"", ""},
		{"gzip", "gzip"},
		{"x-gzip", "gzip"},
		{"GZIP", "gzip"},
		{"gzip, deflate, br, zstd", "zstd"}, // Chrome and Firefox
		{"gzip, deflate, br", "br"},         // Safari
		{"deflate", ""},
		{"identity", ""},
		{"*", "zstd"},
		{"*;q=0", ""},
		{"*;q=0, gzip", "gzip"},
		{"zstd;q=0, *", "br"},
		{"gzip;q=1.0, br;q=0.5", "gzip"},
		{"gzip;q=0.5, br;q=0.501", "br"},
		{"br;q=0", ""},
		{"gzip;q=0.000", ""},
		{"gzip;q=0.001", "gzip"},
		{"identity;q=0", ""},
		{"identity;q=0, gzip;q=0.1", "gzip"},
		{"identity;q=0.5, gzip;q=0.4", ""},
		{"identity;q=0.5, gzip;q=0.5", "gzip"},
		{"identity, gzip;q=0.9", ""},
		{" gzip ; Q=0.8 ,\tbr ; q=0.9", "br"},
		{",,gzip,,", "gzip"},
		{"gzip;q=2", ""},
		{"gzip;q=1.001", ""},
		{"gzip;q=0.1234", ""},
		{"gzip;q=-1", ""},
		{"gzip;q=", ""},
		{"gzip;q", ""},
		{"gzip;level=9", ""},
		{"gzip;q=0.5;q=1", ""},
		{";q=1", ""},
		{"gz ip", ""},
	}
	c := all()
	for _, tt := range tests {
		if got := c.Negotiate([]string{tt.accept}); got != tt.want {
			t.Errorf("Negotiate(%q) = %q, want %q", tt.accept, got, tt.want)
		}
	}
	if got := c.Negotiate(nil); got != "" {
		t.Errorf("Negotiate(no field) = %q, want identity", got)
	}
	if got := c.Negotiate([]string{"gzip", "br"}); got != "br" {
		t.Errorf("two fields: %q, want br", got)
	}
}

func TestNegotiateOffersOnlyWhatIsConfigured(t *testing.T) {
	for _, tt := range []struct {
		algorithms []string
		want       string
	}{
		{nil, ""},
		{[]string{"lz4"}, ""},
		{[]string{"gzip", "zstd"}, "gzip"},
		{[]string{"br"}, "br"},
	} {
		c := New(Options{Algorithms: tt.algorithms})
		if got := c.Negotiate([]string{"gzip, br, zstd, *"}); got != tt.want {
			t.Errorf("%v: got %q, want %q", tt.algorithms, got, tt.want)
		}
	}
}

func FuzzNegotiate(f *testing.F) {
	for _, s := range []string{"", "gzip, br;q=0.5", "*;q=0, identity", "gzip;q=0.5;x=1", "\x00,\xff;q=1."} {
		f.Add(s)
	}
	c := all()
	f.Fuzz(func(t *testing.T, accept string) {
		got := c.Negotiate([]string{accept})
		lower := strings.ToLower(accept)
		switch got {
		case "":
		case "zstd", "br", "gzip":
			if !strings.Contains(lower, got) && !strings.Contains(lower, "*") {
				t.Fatalf("Negotiate(%q) = %q, which the client did not name", accept, got)
			}
		default:
			t.Fatalf("Negotiate(%q) = %q", accept, got)
		}
		// Splitting a field at its commas changes nothing (RFC 9110 section 5.3), nor does space around a member.
		if again := c.Negotiate(strings.Split(accept, ",")); again != got {
			t.Fatalf("Negotiate(%q) = %q, split into fields %q", accept, got, again)
		}
		if spaced := c.Negotiate([]string{strings.ReplaceAll(accept, ",", " ,\t")}); spaced != got {
			t.Fatalf("Negotiate(%q) = %q, spaced %q", accept, got, spaced)
		}
		// A client that adds that it refuses a coding does not get it.
		if got != "" {
			if refused := c.Negotiate([]string{accept, got + ";q=0"}); refused == got {
				t.Fatalf("Negotiate(%q, %s;q=0) = %q", accept, got, refused)
			}
		}
	})
}

func TestNegotiateDoesNotAllocate(t *testing.T) {
	c, accept := all(), []string{"gzip, deflate, br;q=0.9, zstd;q=0.8"}
	if n := testing.AllocsPerRun(100, func() { c.Negotiate(accept) }); n != 0 {
		t.Errorf("Negotiate allocates %v times", n)
	}
}

func BenchmarkNegotiate(b *testing.B) {
	c, accept := all(), []string{"gzip, deflate, br, zstd"}
	b.ReportAllocs()
	for b.Loop() {
		c.Negotiate(accept)
	}
}
