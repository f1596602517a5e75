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
	"landfall/gateway/upstream"
	"landfall/routing/mesh"
)

const faultPrefix = "fault/"

// faultOrder is a fault that an operator made, or the config has. The former travels as a register.
type faultOrder struct {
	ID       string        `json:"id"`
	Service  string        `json:"service,omitempty"`
	Route    string        `json:"route,omitempty"`
	Origin   string        `json:"origin,omitempty"`
	Share    float64       `json:"share"` // 0 to 1
	Delay    time.Duration `json:"delay,omitempty"`
	Abort    int           `json:"abort,omitempty"`
	Reset    bool          `json:"reset,omitempty"`
	SlowBody int64         `json:"slow_body,omitempty"`
	Reason   string        `json:"reason,omitempty"`
	By       string        `json:"by"`
	Since    time.Time     `json:"since,omitzero"`
	Until    time.Time     `json:"until,omitzero"` // zero only for the config's
}

func (o faultOrder) key() string { return faultPrefix + o.ID }

// maxFaults bounds the faults in force: each is looked at for each attempt.
const maxFaults = 64

// faultsIn are the faults in force, by id: the config's, then the operators', and none where the config has no chaos.
func faultsIn(c configs.Chaos, registers []mesh.Register, now time.Time) []faultOrder {
	if !c.Enabled {
		return nil
	}
	var out []faultOrder
	for name, f := range c.Faults {
		out = append(out, faultOrder{
			ID: name, Service: f.Service, Route: f.Route, Origin: f.Origin, Share: float64(f.Share), Delay: f.Delay.D(), Abort: f.Abort,
			Reset: f.Reset, SlowBody: int64(f.SlowBody), By: "config",
		})
	}
	for _, o := range valuesIn[faultOrder](registers) {
		if now.Before(o.Until) && len(out) < maxFaults {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b faultOrder) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// faults are the faults in force now.
func (n *Node) faults() []faultOrder {
	return faultsIn(n.generation.Load().config.Chaos, n.fleet.Registers(faultPrefix), n.o.Now())
}

// injected is the faults as requests meet them.
func injected(orders []faultOrder) []proxy.Fault {
	var out []proxy.Fault
	for _, o := range orders {
		out = append(out, proxy.Fault{
			Fault:   upstream.Fault{ID: o.ID, Delay: o.Delay, Abort: o.Abort, Reset: o.Reset, SlowBody: o.SlowBody},
			Service: o.Service, Route: o.Route, Origin: o.Origin, Share: o.Share, Until: o.Until,
		})
	}
	return out
}

func (n *Node) tellFaults(old, now []faultOrder) {
	for _, o := range now {
		if !slices.Contains(old, o) {
			n.event("fault.set", o.ID, "by "+o.By+": "+o.text())
		}
	}
	for _, o := range old {
		if !slices.ContainsFunc(now, func(f faultOrder) bool { return f.ID == o.ID }) {
			n.event("fault.ended", o.ID, "requests go as they would again")
		}
	}
	n.metrics.controls.faults.Set(float64(len(now)))
}

// text says what a fault does.
func (o faultOrder) text() string {
	var does []string
	if o.Delay > 0 {
		does = append(does, "delays by "+o.Delay.String())
	}
	switch {
	case o.Abort > 0:
		does = append(does, fmt.Sprintf("answers %d", o.Abort))
	case o.Reset:
		does = append(does, "resets connections")
	case o.SlowBody > 0:
		does = append(does, fmt.Sprintf("sends %d bytes a second", o.SlowBody))
	}
	on := "every service"
	if o.Service != "" {
		on = "service " + o.Service
	}
	for what, value := range map[string]string{"route": o.Route, "origin": o.Origin} {
		if value != "" {
			on += ", " + what + " " + value
		}
	}
	text := fmt.Sprintf("%s for %s of the attempts of %s", strings.Join(does, " and "), configs.Percent(o.Share), on)
	if o.Reason != "" {
		text += ": " + o.Reason
	}
	return text
}

func (o faultOrder) shown() admin.Fault {
	return admin.Fault{
		ID: o.ID, Service: o.Service, Route: o.Route, Origin: o.Origin, Share: percent(o.Share), Delay: admin.Duration(o.Delay), Abort: o.Abort,
		Reset: o.Reset, SlowBody: int(o.SlowBody), Reason: o.Reason, By: o.By, Since: o.Since, Expires: o.Until,
	}
}

// Faults implements admin.Faults.
func (b backend) Faults() []admin.Fault {
	var out []admin.Fault
	for _, o := range b.n.faults() {
		out = append(out, o.shown())
	}
	return out
}

// SetFault implements admin.Faults.
func (b backend) SetFault(ctx context.Context, id string, spec *admin.FaultSpec, by string) (admin.FaultResult, error) {
	n, now := b.n, b.n.o.Now()
	c := n.generation.Load().config
	o := faultOrder{ID: id, By: by, Since: now.UTC()}
	res := admin.FaultResult{ID: id}
	if spec != nil {
		if !c.Chaos.Enabled {
			return res, admin.Refused("this fleet's config does not allow faults; set chaos.enabled: true where drills may break things")
		}
		if _, fixed := c.Chaos.Faults[id]; fixed {
			return res, admin.Refused("the config has a fault of that name, which only a reload changes; choose another name")
		}
		o.Service, o.Route, o.Origin, o.Share, o.Delay = spec.Service, spec.Route, spec.Origin, spec.Share/100, spec.Delay.D()
		o.Abort, o.Reset, o.SlowBody, o.Reason, o.Until = spec.Abort, spec.Reset, int64(spec.SlowBody), spec.Reason, now.Add(spec.For.D()).UTC()
		if err := n.checkFault(c, o); err != nil {
			return res, err
		}
		shown := o.shown()
		res.Fault = &shown
	}
	var value json.RawMessage
	ttl := time.Duration(0)
	if spec != nil {
		ttl = spec.For.D()
		var err error
		if value, err = json.Marshal(o); err != nil {
			return res, err
		}
	}
	ack, err := n.fleet.Set(ctx, o.key(), value, ttl)
	if err != nil {
		return res, fmt.Errorf("the fault could not be made durable, so nothing was changed: %w", err)
	}
	res.Applied, res.Missing = ack.Applied, ack.Missing
	n.followControls()
	return res, nil
}

// checkFault refuses a fault that could not do what it says: a drill that hits nothing proves nothing.
func (n *Node) checkFault(c *configs.Config, o faultOrder) error {
	s := c.Services[o.Service]
	if o.Service != "" && s == nil {
		return admin.NotFound("service", o.Service, proxy.ServiceNames(c))
	}
	f := configs.Fault{Delay: configs.Duration(o.Delay), Abort: o.Abort, Reset: o.Reset, SlowBody: configs.Size(o.SlowBody)}
	if why := f.Wrong(); why != "" {
		return admin.Invalid("abort", "the fault "+why)
	}
	if o.Route != "" && !slices.ContainsFunc(proxy.ServiceNames(c), func(name string) bool {
		return (s == nil || c.Services[name] == s) && slices.ContainsFunc(c.Services[name].Routes, func(r configs.Route) bool { return r.Match.Path == o.Route })
	}) {
		return admin.Invalid("route", "no route has the path "+o.Route+"; write it as the config does, such as /api/*")
	}
	if known := len(n.faults()); known >= maxFaults {
		return admin.Refused(fmt.Sprintf("%d faults are in force; end one first", known))
	}
	return nil
}
