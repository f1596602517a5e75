package simulate

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"landfall/configs"
)

// Scenario is what happens to a fleet.
type Scenario struct {
	Name     string  `yaml:"name"`
	Service  string  `yaml:"service"`           // whose clients these are
	Duration Time    `yaml:"duration"`          // from midnight UTC; default 24h
	Step     Time    `yaml:"step"`              // default 10s
	Requests float64 `yaml:"requests_per_user"` // a day
	Peak     float64 `yaml:"peak_hour"`         // local time; default 20
	Night    float64 `yaml:"night"`             // the quietest hour's rate as a share of the busiest's; default 0.2
	Clients  []Group `yaml:"clients"`
	Events   []Event `yaml:"events"`
}

// Group is the clients of one place.
type Group struct {
	Place   string     `yaml:"place"`
	At      [2]float64 `yaml:"at"` // latitude, longitude
	Country string     `yaml:"country"`
	Users   float64    `yaml:"users"` // daily
}

// Event changes the fleet. One of the actions is given.
type Event struct {
	At      Time   `yaml:"at"`
	Down    string `yaml:"down"`
	Up      string `yaml:"up"`
	Drain   string `yaml:"drain"`
	Over    Time   `yaml:"over"` // of Drain
	Undrain string `yaml:"undrain"`
}

// Time is a length of time, in YAML as in the config: 90s, 20h30m.
type Time time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Time) UnmarshalText(text []byte) error {
	var d configs.Duration
	if err := d.UnmarshalText(text); err != nil {
		return err
	}
	*t = Time(d)
	return nil
}

// Bounds on what a scenario may cost.
const (
	maxSteps  = 200_000
	maxGroups = 10_000
	maxFile   = 4 << 20
)

// Load reads a scenario and holds it against the fleet that it is for. All faults are returned, joined.
func Load(path string, c *configs.Config) (*Scenario, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the scenario: %w", err)
	}
	defer f.Close()
	dec := yaml.NewDecoder(io.LimitReader(f, maxFile))
	dec.KnownFields(true)
	s := &Scenario{Duration: Time(24 * time.Hour), Step: Time(10 * time.Second), Peak: 20, Night: 0.2}
	if err := dec.Decode(s); err != nil {
		return nil, fmt.Errorf("%s is no scenario: %w", path, err)
	}
	if err := s.check(c); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	slices.SortStableFunc(s.Events, func(a, b Event) int { return int(a.At - b.At) })
	return s, nil
}

func (s *Scenario) check(c *configs.Config) error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Services[s.Service] == nil {
		fault("service: the fleet has no service %q", s.Service)
	}
	if s.Step <= 0 || s.Duration <= 0 || int64(s.Duration)/max(int64(s.Step), 1) > maxSteps {
		fault("duration and step: give at most %d steps", maxSteps)
	}
	if !(s.Requests > 0) || !(s.Night >= 0 && s.Night <= 1) || !(s.Peak >= 0 && s.Peak < 24) {
		fault("requests_per_user has to be above 0, night from 0 to 1, peak_hour from 0 to 24")
	}
	if len(s.Clients) == 0 || len(s.Clients) > maxGroups {
		fault("clients: give 1 to %d groups", maxGroups)
	}
	for i, g := range s.Clients {
		if !(math.Abs(g.At[0]) <= 90 && math.Abs(g.At[1]) <= 180) || !(g.Users > 0) {
			fault("clients[%d] (%s): at is [latitude, longitude], and users above 0", i, g.Place)
		}
	}
	for i, e := range s.Events {
		given := 0
		for _, region := range []string{e.Down, e.Up, e.Drain, e.Undrain} {
			if region == "" {
				continue
			}
			if given++; !slices.Contains(c.RegionNames(), region) {
				fault("events[%d]: the fleet has no region %q", i, region)
			}
		}
		if given != 1 {
			fault("events[%d]: give one of down, up, drain and undrain", i)
		}
	}
	return errors.Join(errs...)
}
