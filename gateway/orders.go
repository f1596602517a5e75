package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"landfall/configs"
	"landfall/gateway/admin"
	"landfall/gateway/upstream"
	"landfall/routing/mesh"
)

// kindOrigin is an origin as the target of a drain: by its URL, or by host:port wherever that is an origin.
const kindOrigin = "origin"

const breakerPrefix = "breaker/"

// breakerOrder is an operator's word on an origin's circuit breakers, or on a whole pool's. It travels as a register.
type breakerOrder struct {
	Origin string    `json:"origin,omitempty"`
	Pool   string    `json:"pool,omitempty"` // service/region
	State  string    `json:"state"`          // open or closed
	Reason string    `json:"reason,omitempty"`
	By     string    `json:"by,omitempty"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"`
}

func (o breakerOrder) key() string {
	if o.Pool != "" {
		return breakerPrefix + "pool/" + o.Pool // no origin's name begins so: that is a URL, or host:port
	}
	return breakerPrefix + o.Origin
}

func (o breakerOrder) target() admin.BreakerTarget {
	return admin.BreakerTarget{Origin: o.Origin, Pool: o.Pool}
}

// hold is the order as a pool takes it.
func (o breakerOrder) hold() upstream.Hold {
	why := "by " + o.By
	if o.Reason != "" {
		why += ": " + o.Reason
	}
	return upstream.Hold{Open: o.State == "open", Why: why}
}

func (o breakerOrder) shown() admin.BreakerOrder {
	return admin.BreakerOrder{BreakerTarget: o.target(), State: o.State, Reason: o.Reason, By: o.By, Since: o.Since, Expires: o.Until}
}

// ordersIn reads the orders in force out of registers, origins' first, by name.
func ordersIn(registers []mesh.Register, now time.Time) []breakerOrder {
	var out []breakerOrder
	for _, r := range registers {
		var o breakerOrder
		if r.Value == nil || json.Unmarshal(r.Value, &o) != nil || r.Key != o.key() || !o.Until.IsZero() && !now.Before(o.Until) {
			continue
		}
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b breakerOrder) int {
		return cmp.Or(strings.Compare(a.Pool, b.Pool), strings.Compare(a.Origin, b.Origin))
	})
	return out
}

// isOrigin tells whether a name that an operator gave is of an origin's URL.
func isOrigin(name, origin string) bool {
	if name == origin {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host == name
}

// followOrders puts the operators' orders on origins into force in this region's pools.
func (n *Node) followOrders() {
	now := n.o.Now()
	orders := ordersIn(n.fleet.Registers(breakerPrefix), now)
	var drained []string
	for _, d := range drainsIn(n.fleet.Registers(drainPrefix+kindOrigin+"/"), now) {
		drained = append(drained, d.Name)
	}
	for service, pool := range n.generation.Load().pools {
		o := upstream.Orders{Drained: map[string]bool{}, Breakers: map[string]upstream.Hold{}}
		for _, origin := range pool.Origins() {
			o.Drained[origin] = slices.ContainsFunc(drained, func(name string) bool { return isOrigin(name, origin) })
			for _, order := range orders {
				if isOrigin(order.Origin, origin) {
					o.Breakers[origin] = order.hold()
				}
			}
		}
		for _, order := range orders {
			if order.Pool == service+"/"+n.id.region {
				hold := order.hold()
				o.Pool = &hold
			}
		}
		pool.SetOrders(o)
	}
}

// membersChanged follows a pool whose origins are others than before: they are checked from now on.
func (n *Node) membersChanged() {
	n.targeting.Lock()
	defer n.targeting.Unlock()
	g := n.generation.Load()
	if g == nil || n.checker == nil {
		return // the node isn't up yet, and begins with what is found by then
	}
	n.checker.Update(g.targets(n.id.region))
	n.seedPools(g)
	n.kick()
}

// originLeft tells what would be missing if an origin were drained: a pool of this region that has no other.
func (n *Node) originLeft(d Drain) string {
	for service, pool := range n.generation.Load().pools {
		named, left := false, false
		for _, o := range pool.Status().Origins {
			if isOrigin(d.Name, o.URL) {
				named = true
			} else if !o.Drained && o.State.String() != "down" {
				left = true
			}
		}
		if named && !left {
			return fmt.Sprintf("draining origin %s would leave service %s no other origin in %s; bring another one up first, or insist with force", d.Name, service, n.id.region)
		}
	}
	return ""
}

// BreakerOrders implements admin.Breakers.
func (b backend) BreakerOrders() []admin.BreakerOrder {
	var out []admin.BreakerOrder
	for _, o := range ordersIn(b.n.fleet.Registers(breakerPrefix), b.n.o.Now()) {
		out = append(out, o.shown())
	}
	return out
}

// SetBreaker implements admin.Breakers.
func (b backend) SetBreaker(ctx context.Context, target admin.BreakerTarget, spec *admin.BreakerSpec, by string) (admin.BreakerResult, error) {
	n, now := b.n, b.n.o.Now()
	o := breakerOrder{Origin: target.Origin, Pool: target.Pool, By: by, Since: now.UTC()}
	res := admin.BreakerResult{BreakerTarget: target}
	before := ""
	for _, old := range ordersIn(n.fleet.Registers(breakerPrefix), now) {
		if old.target() == target {
			before = old.State
		}
	}
	var value json.RawMessage
	ttl := time.Duration(0)
	if spec != nil {
		o.State, o.Reason = spec.State, spec.Reason
		if spec.For > 0 {
			ttl = spec.For.D()
			o.Until = now.Add(ttl).UTC()
		}
		var err error
		if value, err = json.Marshal(o); err != nil {
			return res, err
		}
		shown := o.shown()
		res.Order = &shown
	}
	res.Changed = before != o.State
	ack, err := n.fleet.Set(ctx, o.key(), value, ttl)
	if err != nil {
		return res, fmt.Errorf("the order could not be made durable, so nothing was changed: %w", err)
	}
	res.Applied, res.Missing = ack.Applied, ack.Missing
	n.followOrders()
	return res, nil
}

// lookedUp puts, in place of origins that are looked up or listed in a file, those that the region's nodes tell of.
func (b backend) lookedUp(service, region string, pool configs.Pool) []string {
	urls := pool.Origins
	fixed := slices.DeleteFunc(slices.Clone(urls), func(u string) bool {
		scheme, _, _ := strings.Cut(u, "://")
		return strings.Contains(scheme, "+")
	})
	if len(fixed) == len(urls) && pool.File == "" {
		return urls
	}
	for _, m := range b.n.picture.Load().members {
		for url := range m.report.Origins[service] {
			if m.Region == region && m.fresh && !slices.Contains(fixed, url) {
				fixed = append(fixed, url)
			}
		}
	}
	slices.Sort(fixed)
	return fixed
}
