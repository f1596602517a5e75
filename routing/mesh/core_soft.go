package mesh

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// selfSaid is what this node says of itself.
type selfSaid struct {
	info      info
	version   uint64
	sections  map[uint64][]byte
	renewed   time.Time // when the report was last published
	withdrawn bool
}

// editSelf is the input of a change of what this node says of itself in its info.
func (c *core) editSelf(now instant, edit func(*info)) *effects {
	c.begin()
	was := c.self.info
	edit(&c.self.info)
	next := c.self.info
	next.Seq = was.Seq
	if bytes.Equal(appendMeta(nil, was), appendMeta(nil, next)) {
		return &c.out
	}
	c.self.info.Seq++
	c.say(now, section{sectionInfo, appendMeta(nil, c.self.info)})
	c.out.changed = true
	return &c.out
}

// publish is the input of a new report, compact JSON within its bounds.
func (c *core) publish(now instant, report json.RawMessage) *effects {
	c.begin()
	c.self.renewed, c.self.withdrawn = now.at, false
	c.say(now, section{sectionReport, bytes.Clone(report)})
	return &c.out
}

// say tells everybody what changed. The links carry it to each region's nodes, which spread it among theirs.
func (c *core) say(now instant, sections ...section) {
	base := c.self.version
	var changed []section
	for _, s := range sections {
		if old, ok := c.self.sections[s.id]; !ok || !bytes.Equal(old, s.body) {
			c.self.sections[s.id] = s.body
			changed = append(changed, s)
		}
	}
	if len(changed) == 0 {
		return
	}
	c.self.version++
	c.redigest()
	m := &soft{node: c.node, boot: c.boot, version: c.self.version, base: base, sections: changed}
	for _, l := range c.lineup {
		c.send(l, m)
	}
}

// whole is all that a node said, as this node holds it; nil when it holds nothing.
func (c *core) whole(name string) *soft {
	m := &soft{node: name, boot: c.boot, version: c.self.version}
	sections := c.self.sections
	if name != c.node {
		mb := c.members[name]
		if mb == nil || mb.version == 0 {
			return nil
		}
		m.boot, m.version, sections = mb.info.Boot, mb.version, mb.sections
	}
	for id, body := range sections {
		m.sections = append(m.sections, section{id, body})
	}
	slices.SortFunc(m.sections, func(a, b section) int { return int(a.id) - int(b.id) })
	return m
}

// takeSoft learns what a node said, from itself or from another.
func (c *core) takeSoft(now instant, l *link, m *soft) {
	if m.node == c.node {
		c.hearOfSelf(now, l, m)
		return
	}
	mb := c.members[m.node]
	if m.base != 0 && (mb == nil || m.boot == mb.info.Boot && m.version > mb.version && m.base != mb.version) {
		c.send(l, &need{[]string{m.node}}) // a delta on something that this node doesn't hold
		return
	}
	if mb != nil && m.boot == mb.info.Boot && m.version <= mb.version {
		return
	}
	direct := l.peer.name == m.node
	for _, s := range m.sections {
		if s.id != sectionInfo {
			continue
		}
		i, err := decodeMeta(s.body)
		if err != nil || i.Boot != m.boot {
			return
		}
		if mb = c.meet(m.node, i, now.at); mb == nil {
			return
		}
		c.adopt(now, mb, i, direct)
	}
	if mb == nil || m.boot != mb.info.Boot { // of an earlier process, or of one that isn't known yet
		if mb == nil || m.base != 0 && !slices.Contains(mb.past, m.boot) {
			c.send(l, &need{[]string{m.node}})
		}
		return
	}
	c.takeSections(now, mb, m)
	if l.peer.info.Region != c.region {
		c.spreadSoft(l, m)
	}
}

func (c *core) takeSections(now instant, mb *member, m *soft) {
	if m.base == 0 || mb.sections == nil {
		mb.sections = map[uint64][]byte{}
	}
	for _, s := range m.sections {
		if _, has := mb.sections[s.id]; has || len(mb.sections) < maxSections {
			mb.sections[s.id] = s.body
		}
	}
	mb.version, mb.print = m.version, softPrint(mb.name, m.boot, m.version)
	mb.lastSeen = now.at
	unreachable, watches := mb.unreachable, mb.watches
	if m.base == 0 {
		mb.rtts, mb.place, mb.report, unreachable, watches = nil, nil, nil, nil, nil
	}
	for _, s := range m.sections {
		switch s.id {
		case sectionUnreachable:
			unreachable = c.namesIn(s.body)
		case sectionWatches:
			watches = c.namesIn(s.body)
		case sectionRTT:
			mb.rtts = rttsIn(s.body)
		case sectionPlace:
			if mb.place = placeIn(s.body); mb.place != nil {
				c.place.heard(mb.info.Region, mb.place)
			}
		case sectionReport:
			if mb.report = nil; len(s.body) > 0 && json.Valid(s.body) {
				mb.report = s.body
			}
		}
	}
	c.hearLinks(now, mb, unreachable, watches)
	mb.settleInto(c, now.at)
	c.out.changed = true
	c.redigest()
}

// namesIn is namesIn with the strings that this node already has: the same few hundred names come again and again.
func (c *core) namesIn(body []byte) []string {
	if len(body) == 0 {
		return nil
	}
	r := &wire{rest: body}
	n := r.number()
	if n > maxNames || n > uint64(len(r.rest)) {
		return nil
	}
	out := make([]string, 0, n)
	for range n {
		raw := r.take(r.number())
		if mb := c.members[string(raw)]; mb != nil {
			out = append(out, mb.name)
		} else if name := string(raw); validName(name) {
			out = append(out, name)
		} else {
			return nil
		}
	}
	return out
}

// spreadSoft passes words of another region on to this node's own.
func (c *core) spreadSoft(from *link, m *soft) {
	for _, l := range c.lineup {
		if l != from && l.peer.info.Region == c.region && l.peer.name != m.node {
			c.send(l, m)
		}
	}
}

// hearOfSelf notices another process with this node's name.
func (c *core) hearOfSelf(now instant, l *link, m *soft) {
	if m.boot == c.boot {
		return
	}
	for _, s := range m.sections {
		if i, err := decodeMeta(s.body); s.id == sectionInfo && err == nil && i.Started > c.self.info.Started && c.seldom("duplicate", now.at) {
			c.duplicate(c.node, fmt.Sprintf("%s tells of another process with this node's name, boot id %s; this one has %s",
				l.peer.name, i.Boot, c.boot))
		}
	}
}

func (c *core) duplicate(name, detail string) {
	c.event("node.duplicate", name, detail+"; give each node a name of its own")
}

// adopt takes what a node says of itself.
func (c *core) adopt(now instant, mb *member, i info, direct bool) {
	switch how := mb.adopt(i, direct); how {
	case unchanged:
		return
	case returned:
		if mb.returns >= 2 && c.seldom("duplicate "+mb.name, now.at) {
			c.duplicate(mb.name, "two processes bear this name, boot ids "+mb.info.Boot+" and "+i.Boot)
		}
		return
	case restarted:
		c.graph.forget(mb)
	}
	c.topology, c.dirty, c.out.changed = true, true, true
	mb.settleInto(c, now.at)
	c.redigest()
}

// takeNeed answers with the whole of what was asked for.
func (c *core) takeNeed(_ instant, l *link, m *need) {
	for _, name := range m.nodes {
		if w := c.whole(name); w != nil {
			c.send(l, w)
		}
	}
}

// tellHeld tells a peer what this node holds, to find out what either lacks.
func (c *core) tellHeld(now instant, l *link) {
	c.softQuiet = now.at
	m := &held{nodes: []string{c.node}, boots: []uint32{hash32(c.boot)}, versions: []uint64{c.self.version}}
	for _, mb := range c.order {
		if mb.version > 0 && mb.comparable() {
			m.nodes = append(m.nodes, mb.name)
			m.boots, m.versions = append(m.boots, hash32(mb.info.Boot)), append(m.versions, mb.version)
		}
	}
	c.send(l, m)
}

// takeHeld sends what the peer lacks and asks for what this node lacks.
func (c *core) takeHeld(_ instant, l *link, m *held) {
	theirs := map[string]int{}
	var ask []string
	for i, name := range m.nodes {
		theirs[name] = i
		mb := c.members[name]
		if name != c.node && (mb == nil || hash32(mb.info.Boot) != m.boots[i] || mb.version < m.versions[i]) {
			ask = append(ask, name)
		}
	}
	if len(ask) > 0 {
		c.send(l, &need{ask})
	}
	give := func(name, boot string, version uint64) {
		i, ok := theirs[name]
		if ok && m.boots[i] == hash32(boot) && m.versions[i] >= version {
			return
		}
		if w := c.whole(name); w != nil {
			c.send(l, w)
		}
	}
	give(c.node, c.boot, c.self.version)
	for _, mb := range c.order {
		if mb.comparable() {
			give(mb.name, mb.info.Boot, mb.version)
		}
	}
}

// withdraw takes back a report that was not renewed: its publisher may be stuck.
func (c *core) withdraw(now instant) {
	if !c.self.withdrawn && c.self.sections[sectionReport] != nil && now.at.Sub(c.self.renewed) > ReportTTL {
		c.self.withdrawn = true
		c.say(now, section{sectionReport, nil})
	}
}

// measureSkew compares this node's clock with its peers': one wrong clock moves nothing, not even its owner's stamps.
func (c *core) measureSkew(now instant) {
	var all []time.Duration
	for _, mb := range c.order {
		if mb.link == nil || mb.skewAt.IsZero() || now.at.Sub(mb.skewAt) > skewKept {
			continue
		}
		all = append(all, mb.skew)
	}
	c.skew = 0
	// This node's clock counts as one of them. Of two that differ the slower is taken: what it stamps is refused nowhere.
	all = append(all, 0)
	slices.Sort(all)
	if median := all[(len(all)-1)/2]; median.Abs() > skewTolerated {
		c.skew = median
	}
	if c.skew.Abs() > MaxClockLead && c.seldom("skew", now.at) {
		c.event("clock.skew", c.node, fmt.Sprintf("this node's clock is %s %s most of its peers'; it goes by theirs. Set it right (chrony, ntpd)",
			c.skew.Abs().Round(time.Second), behindOrAhead(-c.skew)))
	}
	if len(all) > 2 {
		c.restamp(now)
	}
	c.tellSkews(now)
}

// noteClock notices a jump of this node's clock: what was measured against it jumps the other way.
func (c *core) noteClock(now instant) {
	last := c.last
	c.last = now
	if last.at.IsZero() {
		return
	}
	jump := now.wall.Sub(last.wall) - now.at.Sub(last.at)
	if jump.Abs() < jumpNoticed {
		return
	}
	for _, mb := range c.order {
		mb.skew -= jump
	}
	c.skew -= jump
}

// jumpNoticed is more than a clock is slewed between two ticks.
const jumpNoticed = 500 * time.Millisecond

// restamp writes anew, at the fleet's time, what this node wrote while its clock was far ahead and nobody was there to
// tell: the others refuse such a register, and nobody could overwrite it. It takes three clocks to tell which is wrong.
func (c *core) restamp(now instant) {
	limit := c.fleetWall(now).Add(MaxClockLead)
	var late []string
	highest := Stamp{Node: c.node}
	for key, e := range c.table.entries {
		if e.Stamp.Node == c.node && e.Stamp.Time().After(limit) {
			late = append(late, key)
		} else {
			highest = witness(highest, e.Stamp)
		}
	}
	if len(late) == 0 || len(c.pending) > 0 {
		return
	}
	slices.Sort(late)
	c.clock = highest
	var fresh []Register
	for _, key := range late {
		r := c.table.entries[key].Register
		c.clock = tick(c.clock, c.fleetWall(now).UnixMilli())
		r.Stamp = c.clock
		c.table.put(r)
		fresh = append(fresh, r)
	}
	c.save(0, fresh, false)
	c.redigest()
	c.event("registers.restamped", late[0], fmt.Sprintf("%d registers bore stamps far ahead of the fleet's clock and are written anew", len(late)))
}

// Bounds of the comparison of clocks.
const (
	skewKept      = time.Minute     // a measurement counts for so long
	skewTolerated = 5 * time.Second // what NTP trouble and slow networks may cause
)

func (c *core) tellSkews(now instant) {
	for _, mb := range c.order {
		off := mb.skew - c.skew
		if mb.link != nil && !mb.skewAt.IsZero() && now.at.Sub(mb.skewAt) <= skewKept && off.Abs() > MaxClockLead && c.seldom("skew "+mb.name, now.at) {
			c.event("clock.skew", mb.name, fmt.Sprintf("its clock is %s %s; its writes are refused while they lie more than %s ahead. Set it right (chrony, ntpd)",
				off.Abs().Round(time.Second), behindOrAhead(off), MaxClockLead))
		}
	}
}

func behindOrAhead(off time.Duration) string {
	if off < 0 {
		return "behind"
	}
	return "ahead of"
}

// hint is the input of what gossip tells of a node, or the disk of one that was known before.
func (c *core) hint(now instant, name string, i info, gossip netip.AddrPort, alive bool) *effects {
	c.begin()
	mb := c.meet(name, i, now.at)
	if mb == nil {
		return &c.out
	}
	c.adopt(now, mb, i, false)
	switch {
	case i.Boot == mb.info.Boot:
		mb.gossip, mb.alive, mb.heard = gossip, alive, true
		if alive {
			mb.lastSeen = now.at
		}
	case !alive:
		mb.alive = false // an earlier process of this name; gossip doesn't know the present one yet
	}
	mb.settleInto(c, now.at)
	return &c.out
}
