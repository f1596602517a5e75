package configs

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// scalar is what every scalar of the config can do.
type scalar interface {
	encoding.TextMarshaler
	fmt.Stringer
}

func TestScalarsAreReadAndWritten(t *testing.T) {
	for _, c := range []struct {
		to   encoding.TextUnmarshaler
		text string
		want scalar
		back string // when it is written otherwise
	}{
		{new(Duration), "250ms", Duration(250 * time.Millisecond), ""},
		{new(Duration), "20s", Duration(20 * time.Second), ""},
		{new(Duration), "1m30s", Duration(90 * time.Second), ""},
		{new(Duration), "90s", Duration(90 * time.Second), "1m30s"},
		{new(Duration), "2h", Duration(2 * time.Hour), ""},
		{new(Duration), "7d", Duration(7 * day), ""},
		{new(Duration), "1d12h", Duration(36 * time.Hour), ""},
		{new(Duration), "36h", Duration(36 * time.Hour), "1d12h"},
		{new(Duration), "1h0m5s", Duration(time.Hour + 5*time.Second), ""},
		{new(Duration), "1.5s", Duration(1500 * time.Millisecond), ""},
		{new(Duration), "0", Duration(0), "0s"},
		{new(Duration), "0s", Duration(0), ""},
		{new(Duration), "10m", Duration(10 * time.Minute), ""},
		{new(Size), "512", Size(512), ""},
		{new(Size), "0", Size(0), ""},
		{new(Size), "32KiB", Size(32 << 10), ""},
		{new(Size), "32kib", Size(32 << 10), "32KiB"},
		{new(Size), "32Ki", Size(32 << 10), "32KiB"},
		{new(Size), "64 MiB", Size(64 << 20), "64MiB"},
		{new(Size), "1GiB", Size(1 << 30), ""},
		{new(Size), "2TiB", Size(2 << 40), ""},
		{new(Size), "10KB", Size(10_000), ""},
		{new(Size), "10k", Size(10_000), "10KB"},
		{new(Size), "5MB", Size(5_000_000), ""},
		{new(Size), "5M", Size(5_000_000), "5MB"},
		{new(Size), "1.5GiB", Size(3 << 29), "1536MiB"},
		{new(Size), "100B", Size(100), "100"},
		{new(Percent), "50%", Percent(0.5), ""},
		{new(Percent), "2.5%", Percent(0.025), ""},
		{new(Percent), "0.1%", Percent(0.001), ""},
		{new(Percent), "7%", Percent(0.07), ""},
		{new(Percent), "100%", Percent(1), ""},
		{new(Percent), "0%", Percent(0), ""},
		{new(Percent), "0", Percent(0), "0%"},
		{new(Factor), "1.5x", Factor(1.5), ""},
		{new(Factor), "2.0x", Factor(2), "2x"},
		{new(Rate), "50/s", Rate(50), ""},
		{new(Rate), "100/m", Rate(100.0 / 60), ""},
		{new(Rate), "1000/h", Rate(1000.0 / 3600), ""},
		{new(Rate), "0.5/s", Rate(0.5), "30/m"},
		{new(Rate), "0", Rate(0), ""},
		{new(Rate), "0/s", Rate(0), "0"},
		{new(StatusRange), "200", StatusRange{200, 200}, ""},
		{new(StatusRange), "200-299", StatusRange{200, 299}, ""},
		{new(Prefix), "10.0.0.0/8", nil, ""},
		{new(Prefix), "10.0.0.1", nil, ""},
		{new(Prefix), "10.0.0.1/32", nil, "10.0.0.1"},
		{new(Prefix), "::ffff:10.0.0.1", nil, "10.0.0.1"},
		{new(Prefix), "2001:DB8::/32", nil, "2001:db8::/32"},
	} {
		if err := c.to.UnmarshalText([]byte(c.text)); err != nil {
			t.Errorf("%T %q: %v", c.to, c.text, err)
			continue
		}
		got := reflect.ValueOf(c.to).Elem().Interface().(scalar)
		if c.want != nil && got != c.want {
			t.Errorf("%T %q is %#v, want %#v", got, c.text, got, c.want)
		}
		back := c.back
		if back == "" {
			back = c.text
		}
		if got.String() != back {
			t.Errorf("%T %q is written %q, want %q", got, c.text, got, back)
		}
		if text, err := json.Marshal(got); err != nil || string(text) != fmt.Sprintf("%q", back) {
			t.Errorf("%T %q as JSON is %s, %v", got, c.text, text, err)
		}
	}
}

func TestScalarsAreRefused(t *testing.T) {
	for _, c := range []struct {
		to    encoding.TextUnmarshaler
		texts []string
	}{
		{new(Duration), []string{"", "1", "1.5", "-1s", "+1s", "1w", "s", "d", "-1d", "1.5d", "1d1", "1d-1h", "1h1d", "999999999999d", "106752d", "106751d24h", "9999999h", " 1s", "1 s", "1e3s", "NaN", "."}},
		{new(Size), []string{"", "-1", "1.5", "KiB", "1XB", "1KiBB", "8388608TiB", "99999999999999999999", "0.0000000001KiB", "1e3", "1/2", "0x10", " 1", "1  KiB"}},
		{new(Percent), []string{"", "%", "1", "0.5", "100.1%", "-1%", "+1%", "NaN%", "Inf%", "1e1%", "50 %", "50%%"}},
		{new(Factor), []string{"", "x", "1", "-1x", "1e3x", "1001x", "1.5", "NaNx", "1 x"}},
		{new(Rate), []string{"", "1", "/s", "1/", "1/d", "1/sec", "-1/s", "NaN/s", "1e3/s", "2000000000/s", "0.0001/h", "1/s/s"}},
		{new(StatusRange), []string{"", "2xx", "99", "600", "0200", "+20", "200-", "-299", "299-200", "200-600", "200-250-299"}},
		{new(Prefix), []string{"", "10.0.0.0/33", "10.0.0.1/8", "fe80::1%eth0", "::ffff:10.0.0.0/104", "host", "10.0.0", "10.0.0.0/8/8", "10.0.0.0/-1"}},
	} {
		for _, text := range c.texts {
			before := reflect.ValueOf(c.to).Elem().Interface()
			if err := c.to.UnmarshalText([]byte(text)); err == nil {
				t.Errorf("%T accepted %q as %v", c.to, text, c.to)
			}
			if after := reflect.ValueOf(c.to).Elem().Interface(); after != before {
				t.Errorf("%T: the refused %q changed the value", c.to, text)
			}
		}
	}
}

// TestScalarsRoundTrip holds that what is written reads back the same, for any value that the config can hold.
func TestScalarsRoundTrip(t *testing.T) {
	check := func(t *rapid.T, value scalar, to encoding.TextUnmarshaler) {
		text, err := value.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if err := to.UnmarshalText(text); err != nil {
			t.Fatalf("%#v is written %q, which is refused: %v", value, text, err)
		}
		if got := reflect.ValueOf(to).Elem().Interface(); got != value {
			t.Fatalf("%#v is written %q and read back as %#v", value, text, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		check(t, Duration(rapid.Int64Range(0, math.MaxInt64).Draw(t, "duration")), new(Duration))
		check(t, Duration(rapid.Int64Range(0, 1e6).Draw(t, "seconds"))*Duration(time.Second), new(Duration))
		check(t, Size(rapid.Int64Range(0, math.MaxInt64).Draw(t, "size")), new(Size))
		check(t, Percent(rapid.IntRange(0, 100_000).Draw(t, "percent"))/100_000, new(Percent))
		check(t, Rate(rapid.IntRange(0, 1e6).Draw(t, "rate"))/rapid.SampledFrom([]Rate{1, 7, 60, 3600}).Draw(t, "per"), new(Rate))
		from, to := rapid.IntRange(100, 599).Draw(t, "from"), rapid.IntRange(100, 599).Draw(t, "to")
		check(t, StatusRange{min(from, to), max(from, to)}, new(StatusRange))
	})
}

func TestStatusRangeContainsItsEnds(t *testing.T) {
	r := StatusRange{200, 299}
	for code, want := range map[int]bool{199: false, 200: true, 250: true, 299: true, 300: false} {
		if r.Contains(code) != want {
			t.Errorf("%s contains %d: %v", r, code, !want)
		}
	}
}

func TestRouteCachePrintsAsItIsWritten(t *testing.T) {
	ttl := Duration(30 * time.Second)
	for want, c := range map[string]RouteCache{"off": {Off: true}, "on": {}, "{ttl: 30s, stale_if_error: 30s}": {TTL: &ttl, StaleIfError: &ttl}} {
		if c.String() != want {
			t.Errorf("%+v prints %q, want %q", c, c.String(), want)
		}
	}
}
