package mesh

import (
	"cmp"
	"hash/fnv"
	"slices"
	"strings"
	"time"
)

// core is the protocol as a step machine: it knows no clock, network, disk, lock or goroutine. Every input is given the
// time and returns what is to be done about it, so that the same inputs always have the same effects: the simulator
// replays a run from its seed. Mesh is the thin loop around it: one caller at a time, effects carried out in order.
type core struct {
	// Immutable.
	node, region string
	boot         string
	beat         time.Duration
	solo         time.Duration  // how long to wait for a peer's registers before going on alone
	rand         func() float64 // in [0,1)

	clock   Stamp
	table   *table
	pending map[string]Register // own writes that are not on disk yet
	saving  map[Stamp]bool      // registers that are not on disk yet
	batches map[uint64][]Register
	waits   map[uint64]*wait
	spreads map[Stamp]*spread
	repair  *repair
	token   uint64

	self    selfSaid
	place   place
	members map[string]*member
	order   []*member // members by name, so that equal steps have equal effects
	links   map[uint64]*link
	lineup  []*link // links by id
	graph   graph

	started    time.Time
	ready      bool
	readyDue   bool          // as soon as what came is on disk,
	readyAfter uint64        // up to this token
	stale      bool          // away for longer than tombstones live
	last       instant       // when the clock was last looked at
	stirred    time.Time     // when time or a message last came
	skew       time.Duration // what to add to the wall clock to get the fleet's
	quiet      time.Time     // when the last repair of the registers ended
	softQuiet  time.Time     // when soft state was last compared
	looked     time.Time     // when links, states and expiries were last looked through
	observed   time.Time     // when this node last told whom it reaches
	dirty      bool          // whom this node reaches, or what others say of it, has changed
	tellDue    bool          // links came or went, which is to be told soon
	topology   bool          // the set of members changed
	said       map[string]time.Time
	toldRTT    map[string]time.Duration
	digests    digests

	out effects
}

// instant is one moment: at only grows and is for durations; wall is what the node's clock says and may jump.
type instant struct{ at, wall time.Time }

// effects is what a step asks its caller to do, in this order: save, then send; the rest in any order. It is valid until
// the next step.
type effects struct {
	saves   []saving
	sends   []sending
	dials   []string // connect to these members
	closes  []uint64 // end these links
	results []result
	events  []event
	changed bool // something that the owner looks at
	ready   bool // the registers of a peer are merged
}

// saving asks for registers to be written to disk, then told to the owner; inSaved with the token tells that it is done.
type saving struct {
	token     uint64
	registers []Register
	own       bool       // a failure to write is a failure of the write, not only of durability
	early     bool       // the owner is told before it is on disk, as of what peers say
	wipe      bool       // forget all that the disk holds
	written   chan error // set by who waits for the disk
	gone      []string   // forget these
}

type sending struct {
	link uint64
	msg  message
}

// result is how a write ended, or that it is on this node's disk.
type result struct {
	token            uint64
	onDisk           bool // no more than that
	stamp            Stamp
	applied, missing []string
	err              error
}

func newCore(node string, self info, beat, solo time.Duration, now instant, rand func() float64) *core {
	c := &core{
		node: node, region: self.Region, boot: self.Boot, beat: beat, solo: solo, rand: rand,
		clock: Stamp{Node: node}, table: newTable(), pending: map[string]Register{}, saving: map[Stamp]bool{},
		batches: map[uint64][]Register{}, waits: map[uint64]*wait{}, spreads: map[Stamp]*spread{},
		members: map[string]*member{}, links: map[uint64]*link{}, said: map[string]time.Time{}, started: now.at,
	}
	c.place = newPlace(node, c.boot)
	c.self = selfSaid{info: self, version: 1, sections: map[uint64][]byte{sectionInfo: appendMeta(nil, self)}}
	c.digests.due = true
	return c
}

// begin starts a step.
func (c *core) begin() {
	o := &c.out
	o.saves, o.sends, o.dials, o.closes, o.results, o.events = o.saves[:0], o.sends[:0], o.dials[:0], o.closes[:0], o.results[:0], o.events[:0]
	o.changed, o.ready = false, false
}

func (c *core) send(l *link, m message) { c.out.sends = append(c.out.sends, sending{l.id, m}) }

func (c *core) event(kind, subject, detail string) {
	c.out.events = append(c.out.events, event{kind, subject, detail})
}

// seldom tells whether it is time to tell of a trouble again.
func (c *core) seldom(what string, now time.Time) bool {
	if last, ok := c.said[what]; ok && now.Sub(last) < sayEvery {
		return false
	}
	if len(c.said) > MaxMembers {
		clear(c.said)
	}
	c.said[what] = now
	return true
}

// fleetWall is the fleet's time: this node's clock, unless most peers agree that it is wrong.
func (c *core) fleetWall(now instant) time.Time { return now.wall.Add(c.skew) }

// digests of 32 bits for beats.
func fold(d uint64) uint32 { return uint32(d ^ d>>32) }

func hash32(parts ...string) uint32 {
	h := fnv.New32a()
	for _, p := range parts {
		_, _ = h.Write([]byte(p))
		_, _ = h.Write([]byte{0})
	}
	return h.Sum32()
}

// digests are what beats compare. They are worked out when one is needed: many changes may come between two beats.
type digests struct {
	due             bool
	registers, soft uint32
}

// redigest follows a change of what beats compare.
func (c *core) redigest() { c.digests.due = true }

func (c *core) digest() digests {
	if !c.digests.due {
		return c.digests
	}
	soft := softPrint(c.node, c.boot, c.self.version)
	for _, mb := range c.order {
		if mb.version > 0 && mb.comparable() {
			soft ^= mb.print
		}
	}
	c.digests = digests{registers: fold(c.table.digest()), soft: soft}
	return c.digests
}

// softPrint stands for one node's words in the digest.
func softPrint(node, boot string, version uint64) uint32 {
	return hash32(node, boot) * uint32(version*2654435761|1)
}

// tick is the input of time: it is to come every tickEvery(beat).
func (c *core) tick(now instant) *effects {
	c.begin()
	c.noteClock(now)
	c.noteNap(now)
	for i := 0; i < len(c.lineup); {
		l := c.lineup[i]
		if c.tickLink(now, l); i < len(c.lineup) && c.lineup[i] == l { // else it was given up
			i++
		}
	}
	c.tickRepair(now)
	if now.at.Sub(c.looked) >= lookEvery || c.topology {
		c.look(now)
	}
	if c.dirty || c.tellDue && now.at.Sub(c.observed) >= tellPause || c.graph.due && now.at.Sub(c.graph.last) >= connectPause {
		c.observe(now)
	}
	c.tickSpreads(now) // last: it looks at who lives
	c.tickReady(now)
	return &c.out
}

// sayEvery bounds how often one kind of trouble is reported.
const sayEvery = time.Minute

// lookEvery is how often what changes slowly is looked through.
const lookEvery = time.Second

func tickEvery(beat time.Duration) time.Duration { return beat / 5 }

// look chooses links, expires what is over and tells of states that changed by time alone.
func (c *core) look(now instant) {
	c.looked = now.at
	if c.topology {
		c.topology = false
		for _, mb := range c.order {
			mb.wanted = false
		}
		c.choose()
	}
	c.measureSkew(now)
	if gone := c.table.expire(c.fleetWall(now)); len(gone) > 0 {
		c.out.saves = append(c.out.saves, saving{gone: gone})
		c.redigest()
		c.out.changed = true
	}
	c.order = slices.DeleteFunc(c.order, func(mb *member) bool {
		mb.settleInto(c, now.at)
		if mb.forgotten(now.at) {
			delete(c.members, mb.name)
			c.place.client.ForgetNode(mb.name)
			c.topology, c.dirty, c.out.changed = true, true, true
			c.graph.stale = true
			return true
		}
		c.keepLink(now, mb)
		return false
	})
	c.withdraw(now)
	c.tellPlace(now)
	if now.at.Sub(c.observed) >= observeEvery {
		c.dirty = true
	}
	c.redigest()
}

func (c *core) addLink(l *link) {
	c.links[l.id] = l
	i, _ := slices.BinarySearchFunc(c.lineup, l.id, func(l *link, id uint64) int { return cmp.Compare(l.id, id) })
	c.lineup = slices.Insert(c.lineup, i, l)
}

// dropLink forgets a link; its peer may already have another.
func (c *core) dropLink(l *link) {
	delete(c.links, l.id)
	if i := slices.Index(c.lineup, l); i >= 0 {
		c.lineup = slices.Delete(c.lineup, i, i+1)
	}
	if l.peer.link == l {
		l.peer.link = nil
	}
}

// meet is the member of a name, made where it isn't known yet; nil when the fleet is full.
func (c *core) meet(name string, i info, now time.Time) *member {
	mb := c.members[name]
	if mb == nil {
		if len(c.members) >= MaxMembers-1 || name == c.node {
			return nil
		}
		mb = &member{name: name, info: i, lastSeen: now, changed: now, met: now}
		c.members[name] = mb
		i, _ := slices.BinarySearchFunc(c.order, name, func(mb *member, name string) int { return strings.Compare(mb.name, name) })
		c.order = slices.Insert(c.order, i, mb)
		c.topology, c.graph.stale = true, true
	}
	return mb
}

// tickReady ends the wait for a peer's registers.
func (c *core) tickReady(now instant) {
	switch {
	case c.ready:
	case c.mergedAny() && now.at.Sub(c.started) >= readyTogether && !c.anyReady():
		c.becomeReady() // all start at once: nobody has what the others lack
	case now.at.Sub(c.started) >= c.solo:
		c.stale = false
		c.event("mesh.alone", c.node, "no peer answered within "+c.solo.String()+
			"; going on with the registers of its own disk: drains and purges made elsewhere come when one answers")
		c.becomeReady()
	}
}

// readyTogether is how long a node that meets only starting ones waits for one that already serves.
const readyTogether = 2 * time.Second

func (c *core) mergedAny() bool {
	for _, l := range c.links {
		if l.merged {
			return true
		}
	}
	return false
}

func (c *core) anyReady() bool {
	for _, l := range c.links {
		if l.said.flags&flagReady != 0 {
			return true
		}
	}
	return false
}

// becomeReady makes this node ready once what it has merged so far is on disk and its owner was told.
func (c *core) becomeReady() {
	if !c.ready && !c.readyDue {
		c.readyDue, c.readyAfter = true, c.token
	}
	if c.ready || !c.readyDue {
		return
	}
	for id := range c.batches {
		if id&(1<<63) != 0 && id&^(1<<63) <= c.readyAfter {
			return
		}
	}
	c.ready, c.readyDue, c.out.ready = true, false, true
}

// alone lets a node that has nobody to ask go on at once.
func (c *core) alone(why string) *effects {
	c.begin()
	if why != "" && !c.ready {
		c.event("mesh.alone", c.node, why)
	}
	c.stale = false
	c.becomeReady()
	return &c.out
}
