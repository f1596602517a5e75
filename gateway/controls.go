package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"landfall/configs"
	"landfall/gateway/admin"
	"landfall/gateway/proxy"
	"landfall/routing/mesh"
)

const (
	flagPrefix   = "flag/"
	canaryPrefix = "canary/"
)

// flagOrder is a flag's weight that an operator set. It travels as a register.
type flagOrder struct {
	Name   string    `json:"name"`
	Weight float64   `json:"weight"` // 0 to 1
	By     string    `json:"by,omitempty"`
	Since  time.Time `json:"since"`
}

func (o flagOrder) key() string { return flagPrefix + o.Name }

// canaryOrder is what holds in place of a canary's config. It travels as a register.
type canaryOrder struct {
	Service string    `json:"service"`
	To      string    `json:"to"`
	Print   string    `json:"print"`
	Weight  float64   `json:"weight"` // 0 to 1
	Stopped bool      `json:"stopped,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	By      string    `json:"by,omitempty"`
	Node    string    `json:"node,omitempty"` // that rolled it back
	Since   time.Time `json:"since"`
}

func (o canaryOrder) key() string { return canaryPrefix + o.Service + "/" + o.To }

// rollbackBy stands for the fleet itself where an operator's name would.
const rollbackBy = "rollback"

// keyed is a register's value, which knows the key that it belongs under.
type keyed interface{ key() string }

// valuesIn reads values out of registers. One that this version can't read, or that lies under another key, is left out.
func valuesIn[T keyed](registers []mesh.Register) []T {
	var out []T
	for _, r := range registers {
		var v T
		if r.Value != nil && json.Unmarshal(r.Value, &v) == nil && v.key() == r.Key {
			out = append(out, v)
		}
	}
	return out
}

// controls are what operators and rollbacks turned, as registers have it.
type controls struct {
	flags    []flagOrder
	canaries []canaryOrder
	faults   []faultOrder
}

// followControls puts what operators turned into force, and tells of it.
func (n *Node) followControls() {
	n.controlling.Lock()
	defer n.controlling.Unlock()
	now := controls{
		flags:    valuesIn[flagOrder](n.fleet.Registers(flagPrefix)),
		canaries: valuesIn[canaryOrder](n.fleet.Registers(canaryPrefix)),
		faults:   n.faults(),
	}
	old := n.turned
	if slices.Equal(now.flags, old.flags) && slices.Equal(now.canaries, old.canaries) && slices.Equal(now.faults, old.faults) {
		return
	}
	n.turned = now
	c := &proxy.Controls{Flags: map[string]float64{}, Canaries: map[proxy.CanaryName]proxy.CanaryOrder{}, Faults: injected(now.faults)}
	for _, f := range now.flags {
		c.Flags[f.Name] = f.Weight
	}
	for _, o := range now.canaries {
		c.Canaries[proxy.CanaryName{Service: o.Service, To: o.To}] = proxy.CanaryOrder{Print: o.Print, Weight: o.Weight, Stopped: o.Stopped}
	}
	n.lasting.SetControls(c)
	n.tellFlags(old.flags, now.flags)
	n.tellCanaries(old.canaries, now.canaries)
	n.tellFaults(old.faults, now.faults)
}

func (n *Node) tellFlags(old, now []flagOrder) {
	for _, f := range now {
		if !slices.Contains(old, f) {
			n.event("flag.set", f.Name, fmt.Sprintf("by %s: on for %s of the clients", f.By, configs.Percent(f.Weight)))
		}
	}
	for _, f := range old {
		if !slices.ContainsFunc(now, func(o flagOrder) bool { return o.Name == f.Name }) {
			n.event("flag.reset", f.Name, "as the config says")
		}
	}
}

func (n *Node) tellCanaries(old, now []canaryOrder) {
	for _, o := range now {
		if slices.Contains(old, o) {
			continue
		}
		name, why := o.Service+" to "+o.To, ""
		if o.Reason != "" {
			why = ": " + o.Reason
		}
		switch {
		case o.By == rollbackBy:
			n.event("canary.rolled_back", name, "by "+o.Node+why)
			n.metrics.controls.rollbacks.WithLabelValues(o.Service, o.To).Inc()
		case o.Stopped:
			n.event("canary.stopped", name, "by "+o.By+why)
		default:
			n.event("canary.set", name, fmt.Sprintf("by %s: %s of the clients%s", o.By, configs.Percent(o.Weight), why))
		}
	}
	for _, o := range old {
		if !slices.ContainsFunc(now, func(c canaryOrder) bool { return c.key() == o.key() }) {
			n.event("canary.reset", o.Service+" to "+o.To, "as the config says")
		}
	}
}

// judgeEvery is how often it is asked whether a canary is due for a look.
const judgeEvery = 250 * time.Millisecond

// judgeCanaries takes canaries back that are worse than their stable side, until ctx ends.
func (n *Node) judgeCanaries(ctx context.Context) error {
	tick := time.NewTicker(judgeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		c, judges := n.generation.Load(), 0
		for _, m := range n.picture.Load().members {
			if m.here() {
				judges++
			}
		}
		for flag := range c.config.Flags {
			n.metrics.controls.flags.WithLabelValues(flag).Set(n.lasting.FlagWeight(c.config, flag))
		}
		for _, shown := range c.proxy.Canaries() {
			n.metrics.controls.canaries.WithLabelValues(shown.Service, shown.To).Set(shown.Weight)
			if reason := shown.Look(n.o.Now(), judges); reason != "" {
				n.rollBack(ctx, shown, reason)
			}
		}
	}
}

// rollBack takes a canary back on every node.
func (n *Node) rollBack(ctx context.Context, c proxy.Canary, reason string) {
	o := canaryOrder{Service: c.Service, To: c.To, Print: c.Print, Stopped: true, Reason: reason, By: rollbackBy, Node: n.id.name, Since: n.o.Now().UTC()}
	value, err := json.Marshal(o)
	if err == nil {
		wait, cancel := context.WithTimeout(ctx, judgeEvery)
		defer cancel()
		_, err = n.fleet.Set(wait, o.key(), value, 0)
	}
	if err != nil {
		n.log.Error("a canary that is worse than its stable side could not be taken back; it is tried again", "service", c.Service, "to", c.To, "error", err)
		return
	}
	n.followControls()
}

// Flags implements admin.Flags.
func (b backend) Flags() []admin.Flag {
	c := b.n.generation.Load().config
	orders := valuesIn[flagOrder](b.n.fleet.Registers(flagPrefix))
	var out []admin.Flag
	for name, f := range c.Flags {
		shown := admin.Flag{Name: name, Weight: percent(float64(f.Weight)), Config: percent(float64(f.Weight)), By: f.By}
		for _, o := range orders {
			if o.Name == name {
				shown.Weight, shown.SetBy, shown.Since = percent(o.Weight), o.By, o.Since
			}
		}
		out = append(out, shown)
	}
	slices.SortFunc(out, func(a, b admin.Flag) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// SetFlag implements admin.Flags.
func (b backend) SetFlag(ctx context.Context, name string, spec *admin.FlagSpec, by string) (admin.FlagResult, error) {
	o := flagOrder{Name: name, By: by, Since: b.n.o.Now().UTC()}
	if spec != nil {
		o.Weight = spec.Weight / 100
	}
	ack, err := b.n.order(ctx, o, spec != nil)
	if err != nil {
		return admin.FlagResult{}, err
	}
	res := admin.FlagResult{Applied: ack.Applied, Missing: ack.Missing}
	for _, f := range b.Flags() {
		if f.Name == name {
			res.Flag = f
		}
	}
	return res, nil
}

// order makes an operator's word a register, or removes it, and puts it into force here.
func (n *Node) order(ctx context.Context, v keyed, set bool) (mesh.Ack, error) {
	var value json.RawMessage
	if set {
		var err error
		if value, err = json.Marshal(v); err != nil {
			return mesh.Ack{}, err
		}
	}
	ack, err := n.fleet.Set(ctx, v.key(), value, 0)
	if err != nil {
		return ack, fmt.Errorf("the change could not be made durable, so nothing was changed: %w", err)
	}
	n.followControls()
	return ack, nil
}

// percent is a share as people write it, to a thousandth.
func percent(share float64) float64 { return float64(int(share*1e5+0.5)) / 1e3 }

// Canaries implements admin.Canaries.
func (b backend) Canaries() []admin.Canary {
	orders := valuesIn[canaryOrder](b.n.fleet.Registers(canaryPrefix))
	var out []admin.Canary
	for _, c := range b.n.generation.Load().proxy.Canaries() {
		shown := admin.Canary{
			Service: c.Service, To: c.To, State: "configured", Weight: percent(c.Weight), Config: percent(float64(c.Config.Weight)), Window: admin.Duration(c.Config.Rollback.Window),
			Stable: admin.CanarySide{Requests: c.Stable.Requests, Failed: c.Stable.Failed, P99: millis(c.Stable.P99)},
			Canary: admin.CanarySide{Requests: c.Canary.Requests, Failed: c.Canary.Failed, P99: millis(c.Canary.P99)},
		}
		for _, o := range orders {
			if o.Service != c.Service || o.To != c.To || o.Print != c.Print {
				continue
			}
			if shown.State = "set"; o.Stopped {
				shown.State = "stopped"
			}
			shown.Reason, shown.SetBy, shown.Node, shown.Since = o.Reason, o.By, o.Node, o.Since
		}
		out = append(out, shown)
	}
	return out
}

// SetCanary implements admin.Canaries.
func (b backend) SetCanary(ctx context.Context, service, to string, spec *admin.CanarySpec, by string) (admin.CanaryResult, error) {
	o := canaryOrder{Service: service, To: to, By: by, Since: b.n.o.Now().UTC()}
	for _, c := range b.n.generation.Load().proxy.Canaries() {
		if c.Service == service && c.To == to {
			o.Print = c.Print
		}
	}
	if spec != nil {
		o.Weight, o.Stopped, o.Reason = spec.Weight/100, spec.Stopped, spec.Reason
	}
	ack, err := b.n.order(ctx, o, spec != nil)
	if err != nil {
		return admin.CanaryResult{}, err
	}
	res := admin.CanaryResult{Applied: ack.Applied, Missing: ack.Missing}
	for _, c := range b.Canaries() {
		if c.Service == service && c.To == to {
			res.Canary = c
		}
	}
	return res, nil
}
