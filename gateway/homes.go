package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"landfall/configs"
	"landfall/gateway/admin"
	"landfall/gateway/homes"
	"landfall/routing/mesh"
)

// homing is what a node remembers of users' homes from tick to tick.
type homing struct {
	stale atomic.Bool // registers came that no directory has seen yet

	// Owned by watch.
	told map[string]string // by service: what was last told of its migration
}

// homesOptions are what a service's directory is made of; false without an affinity.
func (n *Node) homesOptions(c *configs.Config, service string) (homes.Options, bool) {
	a := c.Services[service].Affinity
	if a == nil {
		return homes.Options{}, false
	}
	return homes.Options{
		Service: service, Regions: a.Regions, Next: a.Next, Handover: a.Handover.D(), Lookup: a.Lookup,
		Metrics: n.metrics.homes, Logger: n.log, Now: n.o.Now,
	}, true
}

// generateHomes makes the directories of a generation. Those that mean the same as before are carried over with what they
// remember.
func (n *Node) generateHomes(g, old *generation) {
	g.homes = map[string]*homes.Directory{}
	for name := range g.config.Services {
		o, ok := n.homesOptions(g.config, name)
		if !ok {
			continue
		}
		if old != nil && old.homes[name] != nil {
			if before, _ := n.homesOptions(old.config, name); maps.Equal(before.Regions, o.Regions) && maps.Equal(before.Next, o.Next) &&
				before.Handover == o.Handover && reflect.DeepEqual(before.Lookup, o.Lookup) {
				g.homes[name] = old.homes[name]
				continue
			}
		}
		g.homes[name] = homes.New(o)
	}
	n.takeHomes(g)
}

// takeHomes puts the operators' moves and pins into force in a generation's directories.
func (n *Node) takeHomes(g *generation) {
	if n.fleet == nil || len(g.homes) == 0 {
		return
	}
	moves, pins := movesIn(n.fleet.Registers(homes.MovePrefix)), pinsIn(n.fleet.Registers(homes.PinPrefix), n.o.Now())
	for _, d := range g.homes {
		d.Take(moves, pins)
	}
}

// followHomes keeps the directories in step with the registers, and tells of migrations that begin and end.
func (n *Node) followHomes() {
	g := n.generation.Load()
	if n.homing.stale.Swap(false) {
		n.takeHomes(g)
	}
	for name, d := range g.homes {
		s := d.Show()
		told := ""
		switch {
		case s.Move == nil:
		case s.Share != s.Move.To:
			told = fmt.Sprintf("users move from %.0f%% to %.0f%% over %s, by %s", s.Move.From*100, s.Move.To*100, s.Move.Over, s.Move.By)
		default:
			told = fmt.Sprintf("%.0f%% of the users that change homes have moved", s.Share*100)
		}
		if was := n.homing.told[name]; was != told {
			if n.homing.told == nil {
				n.homing.told = map[string]string{}
			}
			n.homing.told[name] = told
			if told == "" {
				told = "over: everybody is at home in the first ring"
			}
			n.event("migration", name, told)
		}
	}
}

func movesIn(registers []mesh.Register) []homes.Move {
	var out []homes.Move
	for _, r := range registers {
		var m homes.Move
		if r.Value != nil && json.Unmarshal(r.Value, &m) == nil && r.Key == m.Key() {
			out = append(out, m)
		}
	}
	return out
}

func pinsIn(registers []mesh.Register, now time.Time) []homes.Pin {
	var out []homes.Pin
	for _, r := range registers {
		var p homes.Pin
		if r.Value != nil && json.Unmarshal(r.Value, &p) == nil && r.Key == p.Key() && (p.Until.IsZero() || now.Before(p.Until)) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b homes.Pin) int { return strings.Compare(a.Key(), b.Key()) })
	return out
}

// Homes implements admin.Homes.
func (b backend) Homes() []admin.ServiceHomes {
	g := b.n.generation.Load()
	var out []admin.ServiceHomes
	for _, name := range slices.Sorted(maps.Keys(g.homes)) {
		s := g.homes[name].Show()
		shown := admin.ServiceHomes{Service: name, Ring: s.Ring, Next: s.Next, Share: s.Share, Moving: moveShown(s.Move), Pins: s.Pins, Known: s.Known}
		for _, m := range s.Movers {
			shown.Movers = append(shown.Movers, admin.HomeMover{From: m.From, To: m.To, Share: m.Share, Moved: m.Share * s.Share})
		}
		out = append(out, shown)
	}
	return out
}

func moveShown(m *homes.Move) *admin.Move {
	if m == nil {
		return nil
	}
	return &admin.Move{From: m.From, To: m.To, Since: m.Since, Over: admin.Duration(m.Over), By: m.By, Reason: m.Reason}
}

// HomeOf implements admin.Homes.
func (b backend) HomeOf(ctx context.Context, service, user string) (admin.UserHome, error) {
	d := b.n.generation.Load().homes[service]
	if d == nil {
		return admin.UserHome{}, errors.New("the service has no affinity any more; look again")
	}
	h, err := d.Find(ctx, user)
	if err != nil {
		return admin.UserHome{}, admin.Unavailable(err.Error())
	}
	return admin.UserHome{Service: service, User: user, Region: h.Region, Why: string(h.Why), Old: h.Old, Then: h.Then,
		Wait: admin.Duration(h.Wait.Round(time.Millisecond))}, nil
}

// moveDelay is how long a move waits before it begins: every node has heard of it by then.
const moveDelay = 2 * time.Second

// SetMove implements admin.Homes.
func (b backend) SetMove(ctx context.Context, service string, spec *admin.MoveSpec, by string) (admin.MoveResult, error) {
	n := b.n
	res := admin.MoveResult{Service: service}
	d := n.generation.Load().homes[service]
	if d == nil {
		return res, errors.New("the service has no affinity any more; look again")
	}
	s := d.Show()
	begins := n.o.Now().UTC().Add(max(moveDelay, s.Handover+time.Second))
	m := homes.Move{Service: service, Rings: s.Rings, From: s.Share, By: by, Since: begins}
	if s.Move != nil && spec == nil && s.Share > 0 {
		return res, admin.Refused(fmt.Sprintf("%.0f%% of the users have moved: move them back first (share 0), so that their writes find them", s.Share*100))
	}
	var value json.RawMessage
	if spec != nil {
		m.To, m.Over, m.Reason = spec.Share, spec.Over.D(), spec.Reason
		var err error
		if value, err = json.Marshal(m); err != nil {
			return res, err
		}
		res.Move = moveShown(&m)
	}
	ack, err := n.fleet.Set(ctx, m.Key(), value, 0)
	if err != nil {
		return res, fmt.Errorf("the move could not be made durable, so nothing was changed: %w", err)
	}
	res.Applied, res.Missing = ack.Applied, ack.Missing
	n.takeHomes(n.generation.Load())
	return res, nil
}

// Pins implements admin.Homes.
func (b backend) Pins() []admin.Pin {
	var out []admin.Pin
	for _, p := range pinsIn(b.n.fleet.Registers(homes.PinPrefix), b.n.o.Now()) {
		out = append(out, pinShown(p))
	}
	return out
}

func pinShown(p homes.Pin) admin.Pin {
	return admin.Pin{Service: p.Service, User: p.User, Region: p.Region, Reason: p.Reason, By: p.By, Since: p.Since, Expires: p.Until}
}

// SetPin implements admin.Homes.
func (b backend) SetPin(ctx context.Context, service, user string, spec *admin.PinSpec, by string) (admin.PinResult, error) {
	n, now := b.n, b.n.o.Now()
	res := admin.PinResult{Service: service, User: user}
	p := homes.Pin{Service: service, User: user, By: by, Since: now.UTC()}
	var value json.RawMessage
	ttl := time.Duration(0)
	if spec != nil {
		if have := pinsIn(n.fleet.Registers(homes.PinPrefix), now); len(have) >= homes.MaxPins {
			return res, admin.Refused(fmt.Sprintf("there are %d pins already: they are exceptions, and every node keeps all of them", len(have)))
		}
		p.Region, p.Reason = spec.Region, spec.Reason
		if spec.For > 0 {
			ttl = spec.For.D()
			p.Until = now.Add(ttl).UTC()
		}
		var err error
		if value, err = json.Marshal(p); err != nil {
			return res, err
		}
		shown := pinShown(p)
		res.Pin = &shown
	}
	ack, err := n.fleet.Set(ctx, p.Key(), value, ttl)
	if err != nil {
		return res, fmt.Errorf("the pin could not be made durable, so nothing was changed: %w", err)
	}
	res.Applied, res.Missing = ack.Applied, ack.Missing
	n.takeHomes(n.generation.Load())
	return res, nil
}
