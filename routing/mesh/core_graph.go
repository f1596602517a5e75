package mesh

import (
	"slices"
	"time"
)

// graph is who reaches whom, by each node's own word. It is kept up as words change, so that a change costs what it
// concerns and not the square of the fleet.
type graph struct {
	stale bool // the set of members changed: words may name others now
	due   bool // somebody told of others whom it can't reach, or can again: who is connected is to be worked out
	last  time.Time
	mark  int
	queue []*member
}

// edge is one node's word on another.
type edge struct {
	to  *member
	bad bool // it can't reach it
}

// hearLinks takes a node's new word on whom it has links with.
func (c *core) hearLinks(now instant, mb *member, unreachable, watches []string) {
	if slices.Equal(unreachable, mb.unreachable) && slices.Equal(watches, mb.watches) {
		return
	}
	same := slices.Equal(watches, mb.watches)
	mb.unreachable, mb.watches = unreachable, watches
	switch {
	case c.graph.stale:
		c.dirty = true
	case same: // only whom it can't reach: by far the commonest, and often the most urgent
		c.graph.due = true
		mb.judgeEdges(func(to *member) { c.voteOn(now, to) })
	default:
		c.dirty = true
		mb.count(false)
		mb.resolve(c.members)
		mb.count(mb.connected)
	}
}

// judgeEdges follows a change of whom a node can't reach, and hands on those whom it concerns.
func (mb *member) judgeEdges(changed func(*member)) {
	bad := slices.Sorted(slices.Values(mb.unreachable))
	for i := range mb.edges {
		e := &mb.edges[i]
		_, no := slices.BinarySearch(bad, e.to.name)
		if no == e.bad {
			continue
		}
		e.bad = no
		if !mb.counted {
			continue
		}
		if by := 1; no {
			e.to.noes, e.to.yeses = e.to.noes+by, e.to.yeses-by
		} else {
			e.to.noes, e.to.yeses = e.to.noes-by, e.to.yeses+by
		}
		changed(e.to)
	}
}

// resolve turns a node's words into edges.
func (mb *member) resolve(members map[string]*member) {
	bad := slices.Sorted(slices.Values(mb.unreachable))
	mb.edges = mb.edges[:0]
	for _, name := range mb.watches {
		if to := members[name]; to != nil {
			_, no := slices.BinarySearch(bad, name)
			mb.edges = append(mb.edges, edge{to, no})
		}
	}
}

// count counts a node's word on others, or no longer: only that of connected ones is asked for.
func (mb *member) count(on bool) {
	if mb.counted == on {
		return
	}
	mb.counted = on
	by := 1
	if !on {
		by = -1
	}
	for _, e := range mb.edges {
		if e.bad {
			e.to.noes += by
		} else {
			e.to.yeses += by
		}
	}
}

// forget drops what a node's earlier process said.
func (g *graph) forget(mb *member) {
	mb.count(false)
	mb.edges = nil
}

// rebuild works out all edges anew.
func (c *core) rebuild() {
	c.graph.stale = false
	for _, mb := range c.order {
		mb.yeses, mb.noes, mb.counted = 0, 0, false
		mb.resolve(c.members)
	}
	for _, mb := range c.order {
		mb.count(mb.connected)
	}
}

// observe works out whom this node is connected to, directly or through others, and what those say of nodes that it has
// no link with; and tells the fleet whom it can't reach.
func (c *core) observe(now instant) {
	c.dirty, c.graph.due, c.graph.last = false, false, now.at
	if c.graph.stale {
		c.rebuild()
	}
	c.connect(now)
	c.vote(now)
	c.redigest()
	differ, urgent := c.ownLinks()
	c.tellDue = differ && !urgent
	if since := now.at.Sub(c.observed); urgent || differ && since >= tellPause || since >= observeEvery {
		c.tellLinks(now)
	}
}

// tellPause is how long a node waits until it tells again of links that came or went in order: while a fleet starts, many
// do, and only that a peer can't be reached is urgent.
const tellPause = 2 * time.Second

// ownLinks tells whether this node's own links differ from what it told last, and whether in whom it can't reach.
func (c *core) ownLinks() (differ, urgent bool) {
	for _, mb := range c.order {
		if is := mb.standingToTell(); mb.toldStanding != is {
			differ = true
			urgent = urgent || is == unreachable || mb.toldStanding == unreachable
		}
	}
	return differ, urgent
}

// standingToTell is what the fleet is told of this node's link with a peer: that one which leaves can't be reached is no news.
func (mb *member) standingToTell() standing {
	if mb.reach.standing == unreachable && mb.info.State == Leaving {
		return reachable
	}
	return mb.reach.standing
}

// tellLinks tells the fleet whom this node has links with, whom of them it can't reach, and how far they are.
func (c *core) tellLinks(now instant) {
	c.observed, c.tellDue = now.at, false
	var down, watches []string
	for _, mb := range c.order {
		mb.toldStanding = mb.standingToTell()
		if mb.toldStanding != untried {
			watches = append(watches, mb.name)
		}
		if mb.toldStanding == unreachable {
			down = append(down, mb.name)
		}
	}
	c.say(now, section{sectionUnreachable, namesBody(down)}, section{sectionWatches, namesBody(watches)}, section{sectionRTT, c.rttBody()})
}

// connect marks who is connected: a peer whose beats come back, and whom a connected node reaches.
func (c *core) connect(now instant) {
	c.graph.mark++
	mark, queue := c.graph.mark, c.graph.queue[:0]
	reach := func(mb *member) {
		if mb.mark != mark {
			mb.mark = mark
			queue = append(queue, mb)
		}
	}
	for _, mb := range c.order {
		if mb.reach.standing == reachable {
			reach(mb)
		}
	}
	for i := 0; i < len(queue) && len(queue) < len(c.order); i++ {
		for _, e := range queue[i].edges {
			if !e.bad {
				reach(e.to)
			}
		}
	}
	c.graph.queue = queue[:0]
	for _, mb := range c.order {
		if is := mb.mark == mark; is != mb.connected {
			c.out.changed = true
			mb.connected, mb.lostAt = is, now.at
			mb.count(is)
			c.topologyOf(mb)
		}
	}
}

// vote works out, for nodes without a link from here, whether most of those that watch them reach them.
func (c *core) vote(now instant) {
	for _, mb := range c.order {
		c.voteOn(now, mb)
	}
}

func (c *core) voteOn(now instant, mb *member) {
	was := mb.observed
	switch {
	case mb.noes > mb.yeses:
		mb.observed = unreachable
	case mb.yeses > 0:
		mb.observed = reachable
	default:
		mb.observed = untried
	}
	if was != mb.observed {
		mb.settleInto(c, now.at)
		c.topologyOf(mb)
	}
}

// connectPause is how often who is connected is worked out for others' words on links that don't concern this node. The
// votes on those links count at once.
const connectPause = 200 * time.Millisecond

// observeEvery is how often this node tells its round trips and looks whom it reaches, where nothing asked for it.
const observeEvery = 5 * time.Second
