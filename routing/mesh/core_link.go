package mesh

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// link is an open connection to a peer that carries messages both ways.
type link struct {
	look   time.Time // nothing is due before, unless a step since then says so
	id     uint64
	peer   *member
	dialed bool // by this node
	opened time.Time

	pulses  bool // the peer understands them
	excused bool // silence that lasted while this node stood still was not held against the peer, which has not been heard since

	seq     uint64 // of the last beat sent that was no pulse
	pulsed  int    // pulses since that one
	sent    [sentKept]time.Time
	told    beatSaid  // by that one
	due     time.Time // of the next beat
	got     uint64    // the latest beat received that was no pulse,
	gotAt   time.Time // and when
	heardAt time.Time // when the latest beat was received, pulse or not
	echoed  uint64    // the latest own beat that the peer has told to have received
	said    beatSaid  // by the peer in its latest beat

	differs     int       // beats in a row that told of other registers
	softDiffers time.Time // since when the soft state differs; zero: it doesn't
	merged      bool      // the registers were equal, or made so, over this link
	ending      time.Time // when an unwanted link is given up; zero: it is wanted
}

// sentKept is how many beats may wait for their echo.
const sentKept = 16

// beatSaid is what a pulse says again.
type beatSaid struct {
	registers, soft uint32
	flags           uint8
}

// ending is how a link ended: a closed list.
type ending uint8

const (
	endedByPeer ending = iota // on purpose, or this node asked for it
	endedLost                 // reset or broken: a process that is killed ends so
	dialRefused               // nobody listens, or it was turned down
	dialSilent                // no answer in time
)

// linkUp is the input of a link that was made: the peer has been admitted and said who it is and which version it speaks.
func (c *core) linkUp(now instant, id uint64, peer string, i info, speaks int, dialed bool) *effects {
	c.begin()
	mb := c.meet(peer, i, now.at)
	if mb == nil {
		c.out.closes = append(c.out.closes, id)
		return &c.out
	}
	mb.dialing, mb.fails = false, 0
	c.adopt(now, mb, i, true)
	if old := mb.link; old != nil {
		// Both sides dialled at once: both keep the one that the smaller name dialled, unless it is silent. A young one
		// can't have said much yet, least of all where the peer was out of reach.
		silent := now.at.Sub(mb.reach.since) >= 2*c.beat && now.at.Sub(old.opened) >= silenceLimit(c.beat, mb.rtt.smoothed)
		keepOld := old.dialed != dialed && old.dialed == (c.node < peer) && !silent
		if keepOld {
			c.out.closes = append(c.out.closes, id)
			return &c.out
		}
		c.out.closes = append(c.out.closes, old.id)
		c.dropLink(old)
	}
	l := &link{id: id, peer: mb, dialed: dialed, pulses: speaks >= protoPulses, opened: now.at, due: now.at}
	mb.link = l
	c.addLink(l)
	if mb.reach.standing != unreachable { // silence counts from here: the way between two links is none
		mb.reach.since = now.at
	}
	c.send(l, c.whole(c.node))
	c.sendBeat(now, l)
	return &c.out
}

// linkDown is the input of a link that ended.
func (c *core) linkDown(now instant, id uint64, how ending, why string) *effects {
	c.begin()
	l := c.links[id]
	if l == nil {
		return &c.out
	}
	c.dropLink(l)
	mb := l.peer
	if c.repair != nil && c.repair.link == l {
		c.repair = nil
	}
	if how == endedLost {
		mb.lastErr = why
		c.judge(now, mb, cut)
		mb.redial = now.at
	}
	c.keepLink(now, mb)
	c.topologyOf(mb)
	return &c.out
}

// dialFailed is the input of a connection that could not be made.
func (c *core) dialFailed(now instant, peer string, how ending, why string) *effects {
	c.begin()
	mb := c.members[peer]
	if mb == nil {
		return &c.out
	}
	mb.dialing = false
	mb.fails = min(mb.fails+1, 16)
	mb.redial = now.at.Add(c.dialPause(mb))
	if mb.link == nil {
		mb.lastErr = why
		o := missed
		if how == dialRefused {
			o = refused
		}
		c.judge(now, mb, o)
	}
	return &c.out
}

// dialPause is how long until the next try: soon and steadily, rarely for the dead.
func (c *core) dialPause(mb *member) time.Duration {
	most := 8 * c.beat
	if mb.state(c.looked) == Dead {
		most = 20 * c.beat
	}
	d := min(c.beat/2<<min(mb.fails, 8), most)
	return d + time.Duration(c.rand()*0.2*float64(d))
}

// keepLink dials a wanted member, or lets go of a link that is not wanted any more.
func (c *core) keepLink(now instant, mb *member) {
	l := mb.link
	switch {
	case l == nil && mb.wanted && (!mb.dialing || now.at.Sub(mb.redial) > dialGivenUp) && !now.at.Before(mb.redial):
		if mb.gone(now.at) || mb.info.State == Leaving && mb.reach.standing == unreachable {
			return
		}
		// The smaller name dials first, so that there is one connection and not two.
		if c.node > mb.name && now.at.Sub(mb.met) < 2*c.beat && mb.fails == 0 {
			mb.redial = mb.met.Add(2 * c.beat)
			return
		}
		mb.dialing, mb.redial = true, now.at
		c.out.dials = append(c.out.dials, mb.name)
	case l != nil && l.dialed && !mb.wanted:
		if l.ending.IsZero() {
			l.ending = now.at.Add(linkLinger)
		} else if now.at.After(l.ending) {
			c.send(l, &bye{"the link is not needed any more"})
			c.out.closes = append(c.out.closes, l.id)
			c.dropLink(l)
			mb.reach, mb.rtt = reach{}, roundTrip{}
			c.dirty = true
		}
	case l != nil:
		l.ending = time.Time{}
	case !mb.wanted && mb.reach.standing != untried:
		mb.reach, mb.rtt = reach{}, roundTrip{} // nothing looks at it from here any more
		c.dirty = true
	}
}

// dialGivenUp is when a dial that was never heard of again no longer holds up the next one.
const dialGivenUp = 20 * time.Second

// linkLinger is how long a link that is not wanted is kept, lest a flapping member makes links flap.
const linkLinger = 15 * time.Second

// tickLink sends a beat that is due and notices silence.
func (c *core) tickLink(now instant, l *link) {
	if now.at.Before(l.look) {
		return
	}
	if !now.at.Before(l.due) {
		c.sendBeat(now, l)
	}
	mb := l.peer
	silence := silenceLimit(c.beat, mb.rtt.smoothed)
	l.look = l.due
	if end := mb.reach.since.Add(silence); now.at.Before(end) {
		if end.Before(l.look) {
			l.look = end
		}
		return
	}
	if mb.reach.standing != unreachable {
		mb.lastErr = fmt.Sprintf("silent for %s", now.at.Sub(mb.reach.since).Round(time.Millisecond))
		c.judge(now, mb, missed)
	}
	if now.at.Sub(max2(mb.reach.since, l.opened)) >= 2*silence { // the connection may be half-open: make a new one
		c.out.closes = append(c.out.closes, l.id)
		c.dropLink(l)
		mb.redial = now.at
		c.keepLink(now, mb)
	}
}

// noteNap notices that this process stood still (a stopped machine, a starved one): it has not listened, which is no silence of
// its peers. Each gets the ordinary time to be heard again, but once only, lest one who always lags never learns of a death.
func (c *core) noteNap(now instant) {
	last := c.stirred
	c.stirred = now.at
	if last.IsZero() || now.at.Sub(last) < napNoticed*c.beat {
		return
	}
	for _, l := range c.lineup {
		clear(l.sent[:]) // an echo that waited here tells no round trip
		if !l.excused && l.peer.reach.standing != unreachable {
			l.excused, l.look, l.peer.reach.since = true, time.Time{}, now.at
		}
	}
}

// napNoticed is in beats; ticks come five times as often.
const napNoticed = 2

func max2(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Between two whole beats go maxPulses that only say "as before"; the first beats of a link are whole, to learn the round
// trip. One of wallEvery whole beats of the first ones tells the clock, and each later one.
const (
	maxPulses  = 15
	firstWhole = 8
	wallEvery  = 4
)

// sendBeat sends a heartbeat: a pulse where it has nothing to say but that both sides are heard.
func (c *core) sendBeat(now instant, l *link) {
	l.due = now.at.Add(c.beat - tickEvery(c.beat)/2)
	d := c.digest()
	say := beatSaid{registers: d.registers, soft: d.soft}
	if c.ready {
		say.flags |= flagReady
	}
	if c.stale {
		say.flags |= flagStale
	}
	heard := !l.heardAt.IsZero() && now.at.Sub(l.heardAt) < c.beat*3/2
	if l.pulses && heard && l.seq >= firstWhole && l.pulsed < maxPulses && say == l.told {
		l.pulsed++
		c.send(l, pulse{})
		return
	}
	l.seq++
	l.pulsed, l.told = 0, say
	l.sent[l.seq%sentKept] = now.at
	b := &beat{seq: l.seq, echo: l.got, registers: say.registers, soft: say.soft, flags: say.flags}
	if heard {
		b.flags |= flagHeard
	}
	if l.got > 0 {
		b.hold = uint64(now.at.Sub(l.gotAt).Microseconds())
	}
	if l.seq%wallEvery == 1 || l.seq > firstWhole {
		b.wall = now.wall.UnixMilli()
	}
	c.send(l, b)
}

// message is the input of a message that came over a link.
func (c *core) message(now instant, id uint64, m message) *effects {
	c.begin()
	c.noteNap(now)
	l := c.links[id]
	if l == nil {
		return &c.out
	}
	l.peer.lastSeen = now.at
	switch m := m.(type) {
	case pulse:
		c.takePulse(now, l)
	case *beat:
		c.takeBeat(now, l, m)
	case *soft:
		c.takeSoft(now, l, m)
	case *need:
		c.takeNeed(now, l, m)
	case *held:
		c.takeHeld(now, l, m)
	case *push:
		c.takePush(now, l, m)
	case *taken:
		c.takeTaken(now, l, m)
	case *sums:
		c.takeSums(now, l, m)
	case *page:
		c.takePage(now, l, m)
	case *bye:
		c.takeBye(now, l)
	}
	return &c.out
}

func (c *core) takeBye(now instant, l *link) {
	c.dropLink(l)
	if !l.peer.wanted {
		l.peer.reach, l.peer.rtt = reach{}, roundTrip{}
	}
	l.peer.redial = now.at.Add(c.beat)
	c.out.closes = append(c.out.closes, l.id)
	c.dirty = true
}

func (c *core) takeBeat(now instant, l *link, b *beat) {
	mb := l.peer
	if b.seq <= l.got { // a duplicate, or an older one that was overtaken
		return
	}
	l.got, l.gotAt, l.heardAt, l.excused = b.seq, now.at, now.at, false
	l.said = beatSaid{b.registers, b.soft, b.flags}
	if b.wall > 0 {
		mb.skew, mb.skewAt = time.UnixMilli(b.wall).Add(mb.rtt.smoothed/2).Sub(now.wall), now.at
	}
	echoes := b.echo > l.echoed && b.echo <= l.seq
	if echoes {
		if l.seq-b.echo < sentKept {
			sent := l.sent[b.echo%sentKept]
			if rtt := now.at.Sub(sent) - time.Duration(min(b.hold, maxHold))*time.Microsecond; rtt >= 0 && !sent.IsZero() {
				mb.rtt.add(now.at, rtt)
				// Those near by tell little of the distance, and much of noise.
				if mb.info.Region != c.region && now.at.Sub(mb.placedAt) >= placeEvery {
					mb.placedAt = now.at
					c.place.measured(mb.name, mb.info.Region, mb.rtt.smoothed)
				}
			}
		}
		l.echoed = b.echo
	}
	if echoes || b.flags&flagHeard != 0 {
		c.judge(now, mb, good)
	}
	if l.got == 1 {
		c.sendBeat(now, l) // the echo that the peer waits for
	}
	c.compare(now, l)
}

// takePulse takes a beat that says: as in the last whole one, and I hear you.
func (c *core) takePulse(now instant, l *link) {
	if l.got == 0 {
		return
	}
	l.heardAt, l.excused = now.at, false
	c.judge(now, l.peer, good)
	c.compare(now, l)
}

// maxHold bounds what a beat may claim in microseconds, lest arithmetic overflows.
const maxHold = uint64(time.Hour / time.Microsecond)

// compare looks whether the peer has the same state as this node.
func (c *core) compare(now instant, l *link) {
	own := c.digest()
	if l.said.registers == own.registers && l.said.flags&flagStale == 0 {
		l.differs = 0
		if l.said.flags&flagReady != 0 && !c.ready && !c.stale {
			c.becomeReady()
		}
		l.merged = true
	} else if l.differs++; l.differs >= 2 || !c.ready {
		c.startRepair(now, l)
	}
	switch {
	case l.said.soft == own.soft:
		l.softDiffers = time.Time{}
	case l.softDiffers.IsZero():
		l.softDiffers = now.at
		if l.got == 1 && now.at.Sub(c.softQuiet) >= softPause { // the first contact: one of them may know nothing at all
			c.tellHeld(now, l)
		}
	case now.at.Sub(l.softDiffers) >= softPatience && now.at.Sub(c.softQuiet) >= softPause:
		l.softDiffers = time.Time{}
		c.tellHeld(now, l)
	}
}

// How long soft state may differ before it is compared in full, and how often that is done.
const (
	softPatience = 1500 * time.Millisecond
	softPause    = time.Second
)

// judge steps a peer's reachability.
func (c *core) judge(now instant, mb *member, o outcome) {
	was := mb.reach.standing
	mb.reach = mb.reach.step(now.at, o, silenceLimit(c.beat, mb.rtt.smoothed))
	if mb.reach.standing != was {
		c.dirty = true
		mb.settleInto(c, now.at)
		c.topologyOf(mb)
	}
}

// topologyOf looks again whom to link with when a link of another region comes or goes: two must stand.
func (c *core) topologyOf(mb *member) {
	if mb.info.Region != c.region {
		c.topology = true
	}
}

// choose marks whom this node keeps links with: all of its own region, and at least two of each other.
func (c *core) choose() {
	regions := map[string][]*member{}
	for _, mb := range c.order {
		if mb.info.State != Leaving || mb.link != nil {
			regions[mb.info.Region] = append(regions[mb.info.Region], mb)
		}
	}
	own := regions[c.region]
	me, _ := slices.BinarySearchFunc(own, c.node, func(mb *member, name string) int { return strings.Compare(mb.name, name) })
	for region, theirs := range regions {
		if region == c.region {
			for _, mb := range theirs {
				mb.wanted = true
			}
			continue
		}
		chooseIn(me, len(own)+1, theirs, c.region < region)
	}
}

// fanOut is how many links a node keeps to each other region.
const fanOut = 2

// maxExtra bounds the links to one region that stand in for links that failed.
const maxExtra = 4

// chooseIn pairs the nodes of two regions on a ring, so that both sides choose the same links and each node has at
// least two, and adds more while two of them are not reachable. Dead nodes keep their places: a death moves no others.
// This node is the one numbered me of all in its region.
func chooseIn(me, all int, theirs []*member, first bool) {
	good := 0
	want := func(mb *member) {
		if !mb.wanted && mb.seen() != unreachable {
			good++
		}
		mb.wanted = true
	}
	for j := range max(all, len(theirs)) {
		switch {
		case first && j%all == me:
			want(theirs[j%len(theirs)])
			want(theirs[(j+1)%len(theirs)])
		case !first && (j%all == me || (j+1)%all == me):
			want(theirs[j%len(theirs)])
		}
	}
	for j, extra := me, 0; good < fanOut && extra < maxExtra && j < me+len(theirs); j++ {
		if mb := theirs[j%len(theirs)]; mb.seen() != unreachable && !mb.wanted {
			want(mb)
			extra++
		}
	}
}
