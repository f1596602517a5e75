package proxy

import (
	"math/rand/v2"
	"time"

	"landfall/configs"
	"landfall/gateway/upstream"
)

// Controls are what operators turn at run time, and what a rollback turned. They are immutable once in force.
type Controls struct {
	Flags    map[string]float64 // weight, 0 to 1, in place of the config's
	Canaries map[CanaryName]CanaryOrder
	Faults   []Fault // of the config too
}

// CanaryName is a canary: the service whose clients it takes, and the one that it takes them to.
type CanaryName struct{ Service, To string }

// CanaryOrder is what holds in place of a canary's config.
type CanaryOrder struct {
	Print   string  // of the config that it was given for, see CanaryPrint; another config is a new start
	Weight  float64 // 0 to 1
	Stopped bool    // nobody goes there any more, not even those with the header or cookie
}

// SetControls puts controls into force, in place of all earlier ones.
func (l *Lasting) SetControls(c *Controls) {
	old := l.controls.Swap(c)
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, t := range l.trials {
		if old.Canaries[key.CanaryName] != c.Canaries[key.CanaryName] {
			t.Reset() // what comes is judged by itself
		}
	}
}

// flagOn tells whether a flag is on for the request.
func (x *exchange) flagOn(name string) bool {
	flag := x.p.o.Config.Flags[name]
	weight := float64(flag.Weight)
	if w, set := x.p.o.Lasting.controls.Load().Flags[name]; set {
		weight = w
	}
	switch {
	case weight <= 0:
		return false
	case weight >= 1:
		return true
	}
	value, ok := x.sourced(flag.By, x.in.Header)
	if !ok {
		value = x.head.client.String()
	}
	return falls("flag", name, value) < weight
}

// FlagWeight is the weight of a flag in force.
func (l *Lasting) FlagWeight(c *configs.Config, name string) float64 {
	if w, set := l.controls.Load().Flags[name]; set {
		return w
	}
	return float64(c.Flags[name].Weight)
}

// Fault is trouble made on purpose, and with whose requests.
type Fault struct {
	upstream.Fault
	Service, Route, Origin string // empty: all
	Share                  float64
	Until                  time.Time // zero: for good
}

// faults gives the upstream's question for the faults of this request; nil, which is nearly always, when none could be
// meant.
func (x *exchange) faults() func(origin string) *upstream.Fault {
	all := x.p.o.Lasting.controls.Load().Faults
	for i := range all {
		if f := &all[i]; (f.Service == "" || f.Service == x.match.service.name) && (f.Route == "" || f.Route == x.match.route.Match.Path) {
			return func(origin string) *upstream.Fault { return x.fault(all[i:], origin) }
		}
	}
	return nil
}

// fault is the first fault that an attempt on an origin meets.
func (x *exchange) fault(all []Fault, origin string) *upstream.Fault {
	now := x.p.o.Now()
	for i := range all {
		f := &all[i]
		if f.Service != "" && f.Service != x.match.service.name || f.Route != "" && f.Route != x.match.route.Match.Path ||
			f.Origin != "" && f.Origin != origin || !f.Until.IsZero() && !now.Before(f.Until) || rand.Float64() >= f.Share {
			continue
		}
		x.p.o.Metrics.faults.WithLabelValues(x.match.service.name, f.kind()).Inc()
		return &f.Fault
	}
	return nil
}

// kind is what a fault does, in a word for metrics.
func (f *Fault) kind() string {
	switch {
	case f.Abort != 0:
		return "abort"
	case f.Reset:
		return "reset"
	case f.SlowBody != 0:
		return "slow_body"
	}
	return "delay"
}
