package proxy

import "landfall/configs"

// Controls are what operators turn at run time, and what a rollback turned. They are immutable once in force.
type Controls struct {
	Flags    map[string]float64 // weight, 0 to 1, in place of the config's
	Canaries map[CanaryName]CanaryOrder
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
