package mesh

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Wait says how far a write must have come before it is acknowledged.
type Wait uint8

// The levels. The node's own disk always holds the write first.
const (
	WaitAll    Wait = iota // every live node
	WaitRegion             // every live node of the writer's region
	WaitNode               // the writer alone; the others hear of it at once all the same
)

// wait is a write whose caller waits.
type wait struct {
	stamp     Stamp
	level     Wait
	abandoned bool // nobody waits any more
	early     bool // the others were told before it was on disk
	refused   map[string]bool
}

// spread is a register on its way through this node: whom it was sent to, who is known to have it on disk, and who wants
// to know. It ends after spreadFor; anti-entropy does the rest.
type spread struct {
	register Register
	own      bool // this node wrote it
	relay    bool // this node spreads it in its region
	saved    bool
	targets  map[string]*target
	applied  map[string]bool
	upstream []string // peers to tell
	until    time.Time
}

type target struct {
	sent  time.Time
	relay bool
	done  bool
}

// Timing of spreading.
const (
	spreadFor   = 15 * time.Second
	resendAfter = 75 * time.Millisecond // and the round trip
	maxSpreads  = 4096
)

// write is the input of a write of this node's own. The result comes once it is on disk and has come as far as level.
func (c *core) write(now instant, id uint64, key string, value json.RawMessage, ttl int64, level Wait) *effects {
	c.begin()
	c.noteClock(now)
	wall := c.fleetWall(now)
	was := c.clock
	if old, ok := c.table.entries[key]; ok { // a clock that went back must not stamp a write that its own disk then holds to be older
		c.clock = witness(c.clock, old.Stamp)
	}
	c.clock = tick(c.clock, wall.UnixMilli())
	r, err := Register{Key: key, Value: value, Stamp: c.clock, By: c.node, TTL: ttl}.canonical()
	if err == nil {
		switch v := c.table.judge(r, wall); {
		case v == full || v == applied && c.pending[key].Key == "" && !c.table.has(key) && c.count() >= MaxRegisters:
			err = errFull
		case v == ahead:
			err = fmt.Errorf("%q bears a stamp later than the fleet's clock (%s): set the clocks of the fleet right, then try again",
				key, wall.UTC().Format(time.RFC3339))
		}
	}
	if err != nil {
		c.clock = was
		c.out.results = append(c.out.results, result{token: id, err: err})
		return &c.out
	}
	c.pending[key] = r
	c.waits[id] = &wait{stamp: r.Stamp, level: level, refused: map[string]bool{}}
	c.save(id, []Register{r}, true)
	return &c.out
}

// writeEarly is write to all for what does no harm where its writer dies and has lost it: the others are told before it is on
// disk here, and a result tells when it is.
func (c *core) writeEarly(now instant, id uint64, key string, value json.RawMessage, ttl int64) *effects {
	c.write(now, id, key, value, ttl, WaitAll)
	w := c.waits[id]
	if w == nil {
		return &c.out // refused
	}
	w.early = true
	c.out.saves[len(c.out.saves)-1].early = true
	s := c.newSpread(now, c.batches[id][0])
	s.own, s.relay = true, true
	c.fill(now, s)
	return &c.out
}

func (c *core) count() int { return len(c.table.entries) + len(c.pending) }

// save asks for registers to be written to disk. Own writes bear the caller's ids, which lie below 1<<63.
func (c *core) save(id uint64, rs []Register, own bool) {
	if !own {
		c.token++
		id = c.token | 1<<63
	}
	for _, r := range rs {
		c.saving[r.Stamp] = true
	}
	c.batches[id] = rs
	c.out.saves = append(c.out.saves, saving{token: id, registers: rs, own: own})
}

// saved is the input of a save that ended.
func (c *core) saved(now instant, id uint64, err error) *effects {
	c.begin()
	rs := c.batches[id]
	delete(c.batches, id)
	for _, r := range rs {
		delete(c.saving, r.Stamp)
	}
	if c.readyDue {
		c.becomeReady()
	}
	if w := c.waits[id]; w != nil && len(rs) == 1 {
		c.commit(now, id, w, rs[0], err)
		return &c.out
	}
	for _, r := range rs {
		if s := c.spreads[r.Stamp]; s != nil {
			c.haveSaved(s)
		}
	}
	return &c.out
}

// commit puts an own write in force and sends it on its way.
func (c *core) commit(now instant, id uint64, w *wait, r Register, err error) {
	if c.pending[r.Key].Stamp == r.Stamp {
		delete(c.pending, r.Key)
	}
	if err != nil {
		delete(c.waits, id)
		delete(c.spreads, r.Stamp)
		c.out.results = append(c.out.results, result{token: id, err: fmt.Errorf("%q was not written, so that it is not lost later: %w", r.Key, err)})
		return
	}
	if c.table.judge(r, c.fleetWall(now)) == applied {
		c.table.put(r)
		c.redigest()
		c.out.changed = true
	}
	if w.early {
		c.out.results = append(c.out.results, result{token: id, onDisk: true, stamp: r.Stamp, applied: []string{c.node}})
	}
	s := c.spreads[r.Stamp]
	if s == nil {
		s = c.newSpread(now, r)
	}
	s.own, s.relay = true, true
	c.haveSaved(s)
	c.fill(now, s)
	c.finish(now, id, w)
}

// abandon is the input of a caller that waits no longer.
func (c *core) abandon(now instant, id uint64) *effects {
	c.begin()
	if w := c.waits[id]; w != nil {
		if w.abandoned = true; c.batches[id] == nil {
			c.conclude(now, id, w)
		}
	}
	return &c.out
}

// lacking is the live nodes that a write waits for and that have not confirmed it, those that joined since included.
func (c *core) lacking(now instant, w *wait) []string {
	out := []string{}
	if w.level == WaitNode {
		return out
	}
	s := c.spreads[w.stamp]
	for _, mb := range c.order {
		if mb.live(now.at) && (w.level == WaitAll || mb.info.Region == c.region) && (s == nil || !s.applied[mb.name]) {
			out = append(out, mb.name)
		}
	}
	return out
}

// finish ends a wait when all it waits for have the register, are gone, or won't have it.
func (c *core) finish(now instant, id uint64, w *wait) {
	if c.spreads[w.stamp] != nil && !w.abandoned {
		for _, name := range c.lacking(now, w) {
			if !w.refused[name] {
				return
			}
		}
	}
	c.conclude(now, id, w)
}

func (c *core) conclude(now instant, id uint64, w *wait) {
	delete(c.waits, id)
	res := result{token: id, stamp: w.stamp, applied: []string{c.node}, missing: c.lacking(now, w)}
	if s := c.spreads[w.stamp]; s != nil {
		res.applied = slices.Sorted(maps.Keys(s.applied))
	}
	c.out.results = append(c.out.results, res)
}

func (c *core) newSpread(now instant, r Register) *spread {
	s := &spread{register: r, targets: map[string]*target{}, applied: map[string]bool{}, until: now.at.Add(spreadFor)}
	if len(c.spreads) < maxSpreads { // past it, anti-entropy alone carries
		c.spreads[r.Stamp] = s
	}
	return s
}

// fill sends a register to whom it should go to from here and has not been sent to: all of this region, and for a
// node's own write two nodes of each other region, which spread it there.
func (c *core) fill(now instant, s *spread) {
	if !s.relay {
		return
	}
	perRegion := map[string]int{}
	for name, t := range s.targets {
		if mb := c.members[name]; mb != nil && mb.link != nil && (t.done || mb.reach.standing != unreachable) {
			perRegion[mb.info.Region]++
		}
	}
	helped := c.helped()
	for _, l := range c.lineup {
		mb := l.peer
		name, region := mb.name, mb.info.Region
		if s.targets[name] != nil || s.applied[name] || name == s.register.By && !s.own {
			continue
		}
		if region != c.region && (!s.own || perRegion[region] >= fanOut || mb.reach.standing == unreachable) {
			continue
		}
		perRegion[region]++
		t := &target{sent: now.at, relay: region != c.region || helped}
		s.targets[name] = t
		c.send(l, &push{s.register, t.relay})
	}
}

// helped tells whether a live node of this region can't be reached from here, so that the others must pass things on.
func (c *core) helped() bool {
	for _, mb := range c.order {
		if mb.info.Region == c.region && mb.info.State != Leaving && (mb.link == nil || mb.reach.standing == unreachable) && mb.observed == reachable {
			return true
		}
	}
	return false
}

// tickSpreads sends again what was not acknowledged, and ends what is over.
func (c *core) tickSpreads(now instant) {
	if len(c.spreads) == 0 {
		return
	}
	for _, stamp := range slices.SortedFunc(maps.Keys(c.spreads), Stamp.Compare) {
		s := c.spreads[stamp]
		if now.at.After(s.until) {
			delete(c.spreads, stamp)
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(s.targets)) {
			t, mb := s.targets[name], c.members[name]
			switch {
			case t.done:
			case mb == nil || mb.link == nil:
				delete(s.targets, name) // fill finds another way
			case now.at.Sub(t.sent) >= resendAfter+mb.rtt.min()*5/4:
				t.sent = now.at
				t.relay = t.relay || mb.info.Region != c.region || c.helped()
				c.send(mb.link, &push{s.register, t.relay})
			}
		}
		c.fill(now, s)
	}
	for _, id := range slices.Sorted(maps.Keys(c.waits)) {
		if w := c.waits[id]; c.batches[id] == nil {
			c.finish(now, id, w)
		}
	}
}

// takePush takes a register from a peer and tells it when it is on disk.
func (c *core) takePush(now instant, l *link, m *push) {
	r := m.register
	s := c.spreads[r.Stamp]
	if s == nil {
		switch v := c.judgeFrom(now, l.peer.name, r); v {
		case ahead, full:
			c.send(l, &taken{stamp: r.Stamp, refused: v.String()})
			return
		case applied:
			c.put([]Register{r})
		case known:
			// A newer one that is not on disk yet is no reason to say that this one is safe: the sender asks again.
			if held := c.table.entries[r.Key].Stamp; c.pending[r.Key].Key != "" || held != r.Stamp && c.saving[held] {
				return
			}
		}
		s = c.newSpread(now, r)
		if !c.saving[r.Stamp] {
			s.saved = true
			s.applied[c.node] = true
		}
	}
	if !slices.Contains(s.upstream, l.peer.name) && len(s.upstream) < maxUpstream {
		s.upstream = append(s.upstream, l.peer.name)
	}
	if m.relay && !s.relay {
		s.relay = true
		c.fill(now, s)
	}
	if s.saved {
		c.send(l, &taken{stamp: r.Stamp, names: slices.Sorted(maps.Keys(s.applied))})
	}
}

// maxUpstream bounds who is told of a spread.
const maxUpstream = 16

// judgeFrom judges a register of a peer and reports what is refused.
func (c *core) judgeFrom(now instant, from string, r Register) verdict {
	wall := c.fleetWall(now)
	v := c.table.judge(r, wall)
	if p, ok := c.pending[r.Key]; ok && v == applied && !r.supersedes(p) {
		v = known
	}
	if v == applied && !c.table.has(r.Key) && c.count() >= MaxRegisters {
		v = full
	}
	switch {
	case v == ahead && c.seldom("future", now.at):
		c.event("registers.future", r.Key, fmt.Sprintf("from %s: stamp %s is more than %s ahead of this node's clock; set the clock of %s or of this node right",
			from, r.Stamp, MaxClockLead, r.Stamp.Node))
	case v == full && c.seldom("full", now.at):
		c.event("registers.full", r.Key, fmt.Sprintf("from %s: %s", from, errFull))
	}
	return v
}

// put takes registers that judgeFrom found new, and has them saved.
func (c *core) put(rs []Register) {
	for _, r := range rs {
		c.clock = witness(c.clock, r.Stamp)
		c.table.put(r)
	}
	c.save(0, rs, false)
	c.redigest()
	c.out.changed = true
}

// haveSaved tells whoever sent a register that it is on disk here.
func (c *core) haveSaved(s *spread) {
	s.saved = true
	s.applied[c.node] = true
	c.tellUp(s, slices.Sorted(maps.Keys(s.applied)), "")
}

func (c *core) tellUp(s *spread, names []string, skip string) {
	for _, peer := range s.upstream {
		if mb := c.members[peer]; mb != nil && mb.link != nil && peer != skip {
			c.send(mb.link, &taken{stamp: s.register.Stamp, names: names})
		}
	}
}

// takeTaken learns who has a register.
func (c *core) takeTaken(now instant, l *link, m *taken) {
	s := c.spreads[m.stamp]
	if s == nil {
		return
	}
	from := l.peer.name
	if m.refused != "" {
		if t := s.targets[from]; t != nil {
			t.done = true
		}
		for _, w := range c.waits {
			if w.stamp == m.stamp {
				w.refused[from] = true
			}
		}
	}
	var fresh []string
	for _, name := range m.names {
		if !s.applied[name] && len(s.applied) < MaxMembers {
			s.applied[name] = true
			fresh = append(fresh, name)
		}
		if t := s.targets[name]; t != nil {
			t.done = true
		}
	}
	if len(fresh) > 0 && s.saved {
		c.tellUp(s, fresh, from)
	}
	for _, id := range slices.Sorted(maps.Keys(c.waits)) {
		if w := c.waits[id]; w.stamp == m.stamp && c.batches[id] == nil {
			c.finish(now, id, w)
		}
	}
}

// errNeverMerged is why a stale node's registers are dropped.
var errNeverMerged = errors.New("away for longer than deletions are remembered")
