package simulate

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"landfall/configs"
)

func global(t testing.TB) *configs.Config {
	t.Helper()
	c, err := configs.Load("examples/global.yaml", os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestLargestLostAtPeak holds what the shipped scenario promises: the excess goes to where room is, nothing swings, and
// what is overloaded is so only until clients have followed.
func TestLargestLostAtPeak(t *testing.T) {
	c := global(t)
	s, err := Load("examples/largest-lost-at-peak.yaml", c)
	if err != nil {
		t.Fatal(err)
	}
	s.Step, s.Duration = Time(30*time.Second), Time(28*time.Hour)
	r := Run(c, s)
	if r.Users < 10e6 || len(r.Regions) != 12 || len(r.Events) != 4 {
		t.Errorf("%g users, %d regions, %d events", r.Users, len(r.Regions), len(r.Events))
	}
	if r.Spilled == 0 || r.OverloadedFor > 120 {
		t.Errorf("spilled %g, overloaded for %g s", r.Spilled, r.OverloadedFor)
	}
	sum := 0.0
	for _, g := range r.Regions {
		sum += g.Requests
	}
	if sum < 0.99*r.Requests || sum > 1.01*r.Requests {
		t.Errorf("the regions served %g of %g requests", sum, r.Requests)
	}
	steady(t, r)
	var text, page bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteHTML(&page); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text.String(), "us-east goes down") || strings.Count(page.String(), "<polyline") != 14 || strings.Contains(page.String(), "NaN") {
		t.Errorf("the reports lack something:\n%s", text.String())
	}
}

// steady holds that no region's load swings while its neighbour is gone, once clients have followed.
func steady(t *testing.T, r *Result) {
	t.Helper()
	for i, g := range r.Regions {
		turns, last, least, most := 0, 0.0, 2.0, 0.0
		for k, s := range r.Samples {
			if k == 0 || s.At < 25.3*3600 || s.At > 26.9*3600 {
				continue
			}
			load := s.Load[i] / g.Capacity
			least, most = min(least, load), max(most, load)
			move := load - r.Samples[k-1].Load[i]/g.Capacity
			if move*last < -1e-6 {
				turns++
			}
			last = move
		}
		if turns > 4 && most-least > 0.05 || most > 0.82 {
			t.Errorf("%s turned %d times between %.2f and %.2f", g.Name, turns, least, most)
		}
	}
}

func TestDeterministic(t *testing.T) {
	c := global(t)
	var texts [2]bytes.Buffer
	for i := range texts {
		s, err := Load("examples/largest-lost-at-peak.yaml", c)
		if err != nil {
			t.Fatal(err)
		}
		s.Step, s.Duration = Time(time.Minute), Time(6*time.Hour)
		if err := Run(c, s).WriteText(&texts[i]); err != nil {
			t.Fatal(err)
		}
	}
	if texts[0].String() != texts[1].String() {
		t.Error("the same scenario came out otherwise")
	}
}

func TestBadScenarios(t *testing.T) {
	c := global(t)
	const good = "service: shop\nrequests_per_user: 1\nclients: [{place: X, at: [1, 2], users: 3}]\n"
	for text, want := range map[string]string{
		"":                                         "is no scenario",
		"servise: shop\n":                          "field servise not found",
		"service: web\nclients: []\n":              `no service "web"`,
		good + "events: [{at: 1h}]\n":              "give one of down, up, drain and undrain",
		good + "events: [{down: mars}]\n":          `no region "mars"`,
		good + "step: 1ms\n":                       "at most 200000 steps",
		good + "night: .nan\n":                     "night from 0 to 1",
		strings.Replace(good, "1, 2", "100, 2", 1): "latitude",
	} {
		path := filepath.Join(t.TempDir(), "s.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path, c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
