package lab

import (
	"strings"
	"testing"
	"time"
)

func TestParseLatency(t *testing.T) {
	for _, c := range []struct {
		in       string
		from, to string
		want     time.Duration
		known    bool
		err      string
	}{
		{in: "", from: "eu-west", to: "us-east"},
		{in: "off", from: "eu-west", to: "us-east", known: true},
		{in: "off", from: "ap-south", to: "us-west", known: true},
		{in: "eu-west:us-east=80ms", from: "eu-west", to: "us-east", want: 80 * time.Millisecond, known: true},
		{in: "eu-west:us-east=80ms", from: "us-east", to: "eu-west", want: 80 * time.Millisecond, known: true},
		{in: "eu-west:us-east=80ms", from: "us-east", to: "ap-southeast"},
		{in: "eu-west:us-east=0s", from: "us-east", to: "eu-west", known: true},
		{in: "eu-west:us-east=1ms,us-east:ap-southeast=2ms", from: "ap-southeast", to: "us-east", want: 2 * time.Millisecond, known: true},
		{in: "eu-west:us-east=1ms,us-east:eu-west=2ms", from: "eu-west", to: "us-east", want: 2 * time.Millisecond, known: true},
		{in: "eu-west:us-east=5s", from: "eu-west", to: "us-east", want: 5 * time.Second, known: true},
		{in: "eu-west:us-east=5001ms", err: "at most 5s"},
		{in: "eu-west:us-east=-1ms", err: "expected REGION:REGION=DURATION"},
		{in: "eu-west:us-east", err: "expected REGION:REGION=DURATION"},
		{in: "eu-west=80ms", err: "expected REGION:REGION=DURATION"},
		{in: "eu-west:us-east=80", err: "expected REGION:REGION=DURATION"},
		{in: "eu-west:us-east=80ms,", err: "expected REGION:REGION=DURATION"},
		{in: "eu-west:mars=80ms", err: `"mars" is not a region of the lab`},
		{in: "eu-west:eu-west=80ms", err: "a region is no distance from itself"},
	} {
		l, err := ParseLatency(c.in)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: error %v, want one with %q", c.in, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
			continue
		}
		if d, ok := l.between(c.from, c.to); d != c.want || ok != c.known {
			t.Errorf("%q: %s to %s is %s (%t), want %s (%t)", c.in, c.from, c.to, d, ok, c.want, c.known)
		}
	}
}

// What is accepted is symmetrical, bounded, and between regions that exist.
func FuzzParseLatency(f *testing.F) {
	for _, s := range []string{"", "off", "eu-west:us-east=80ms", "eu-west:us-east=80ms,us-east:ap-southeast=200ms", "a:b=1s", ",", "=:"} {
		f.Add(s)
	}
	known := map[string]bool{}
	for _, p := range places() {
		known[p.name] = true
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLatency(s)
		if err != nil {
			return
		}
		for pair, d := range l {
			back, ok := l.between(pair[1], pair[0])
			if !known[pair[0]] || !known[pair[1]] || d < 0 || d > 5*time.Second || !ok || back != d {
				t.Errorf("%q: accepted %v = %s, back %s (%t)", s, pair, d, back, ok)
			}
		}
	})
}

func TestDistance(t *testing.T) {
	all := places()
	for i, a := range all {
		for j, b := range all {
			d := distanceRTT(a, b)
			if d != distanceRTT(b, a) || d < time.Millisecond || d > 100*time.Millisecond {
				t.Errorf("%s to %s: %s", a.name, b.name, d)
			}
			if km := greatCircleKM(a, b); i == j && km > 0.001 || km > 20040 {
				t.Errorf("%s to %s: %f km", a.name, b.name, km)
			}
		}
	}
	if km := greatCircleKM(all[0], all[1]); km < 5300 || km > 5700 {
		t.Errorf("Dublin to Virginia is %f km", km)
	}
}
