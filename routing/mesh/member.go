package mesh

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// How long what is known of a node outlives the node.
const (
	ReportTTL  = 10 * time.Second // a report that was not renewed for longer is not shown
	forgetLeft = time.Minute
	forgetDead = 24 * time.Hour // it is tried again and shown as dead for so long
)

// MaxMembers bounds the fleet: nodes known at a time, dead ones included.
const MaxMembers = 1000

// Member is a node as this node sees it at one moment.
type Member struct {
	Name, Region, Boot string
	Addrs              []netip.Addr   // where clients reach it
	Gossip             netip.AddrPort // invalid while only the peer channel knows the node
	Peer               netip.AddrPort
	Admin              netip.AddrPort
	Version            string
	ConfigHash         string
	State              NodeState                // as it told, or Dead
	Reachable          bool                     // heartbeats come back: this node's, or those of most that watch it
	RTT                time.Duration            // smoothed round trip of the heartbeats; 0: this node has no link with it
	MinRTT             time.Duration            // the least of the last minute or two
	LastSeen           time.Time                // when it was last heard, or heard of
	Report             json.RawMessage          // what it published; nil when older than ReportTTL. Don't modify
	ReportAt           time.Time                // how recent the report is, by this node's clock
	Sights             json.RawMessage          // what it published by PublishSights; nil as Report is. Don't modify
	Linked             bool                     // Reachable is this node's own word, not its watchers'
	Watches            []string                 // the nodes that it has links with; empty: not known
	Unreachable        []string                 // those of them that it can't reach. Don't modify
	RegionRTT          map[string]time.Duration // its least round trip to each region. Don't modify
	Coordinate         *Coordinate              // nil: it tells none, or nothing fresh
	Self               bool
}

// member is what is known of another node. Its methods are plain steps of the core.
type member struct {
	name   string
	info   info
	met    time.Time
	past   []string // boot ids it had before; they never come back
	gossip netip.AddrPort
	alive  bool // gossip's view
	heard  bool // gossip has told of it

	// What it says of itself.
	version     uint64 // 0: nothing yet
	print       uint32 // of its words, for the digest
	sections    map[uint64][]byte
	report      json.RawMessage
	unreachable []string // of whom it watches
	watches     []string // whom it has links with
	rtts        map[string]time.Duration
	place       *Coordinate
	placedAt    time.Time // when this node's coordinate last took its round trip

	// This node's link with it.
	wanted  bool
	link    *link
	dialing bool
	fails   int       // dials in a row
	redial  time.Time // not before
	reach   reach
	rtt     roundTrip
	skew    time.Duration // of its clock against this node's
	skewAt  time.Time
	lastErr string // of the last link or dial that failed

	toldStanding standing // what the fleet was told of reach

	// What comes of all that.
	edges     []edge    // watches and unreachable, resolved
	counted   bool      // its edges are counted in their ends' yeses and noes
	yeses     int       // connected nodes that reach it
	noes      int       // connected nodes that watch it and don't reach it
	mark      int       // of graph
	observed  standing  // most of its watchers' word, for a node without a link
	connected bool      // reached from here, directly or through others
	lostAt    time.Time // since when connected is what it is
	downSince time.Time // since when it is unreachable; zero: it isn't
	lastSeen  time.Time // when anything of it last came

	returns int       // direct signs of a past boot
	changed time.Time // when the last glance changed
	last    glance
}

// glance is what events are made from.
type glance struct {
	state    NodeState
	standing standing
	boot     string
	gone     bool
}

// adoption is what became of an info: a closed list.
type adoption uint8

const (
	unchanged adoption = iota
	updated
	restarted
	returned // a boot id that was superseded speaks again: two nodes bear one name
)

// pastBoots is how many boot ids of a node are remembered.
const pastBoots = 8

// adopt takes what a node says of itself; direct tells that it was the node who said it, not hearsay. Gossip arrives late
// and in any order, so hearsay never brings an earlier process back.
func (mb *member) adopt(i info, direct bool) adoption {
	switch {
	case i.Boot == mb.info.Boot:
		if i.Seq <= mb.info.Seq {
			return unchanged
		}
		mb.info = i
		return updated
	case slices.Contains(mb.past, i.Boot):
		if direct {
			mb.returns++
			return returned
		}
		return unchanged
	case !direct && i.Started < mb.info.Started:
		return unchanged
	}
	mb.past = append(mb.past, mb.info.Boot)
	if len(mb.past) > pastBoots {
		mb.past = mb.past[1:]
	}
	mb.info = i
	mb.version, mb.print, mb.sections, mb.report, mb.unreachable, mb.watches, mb.rtts, mb.place = 0, 0, nil, nil, nil, nil, nil, nil
	return restarted
}

// seen is whether the node is reached from here: by its link, or else by what those say that have one.
func (mb *member) seen() standing {
	if mb.reach.standing != untried {
		return mb.reach.standing
	}
	return mb.observed
}

// deadAfter is how long a node is unreachable, by all that watch it, before it counts as dead.
const deadAfter = 5 * time.Second

// gone tells that a node which said it would leave has left.
func (mb *member) gone(now time.Time) bool {
	return mb.info.State == Leaving && mb.link == nil &&
		(mb.seen() == unreachable || mb.seen() == untried && (mb.heard && !mb.alive || now.Sub(mb.lastSeen) > deadAfter))
}

// state is what the node told, unless it is silent: unreachable for a while, or at once where gossip says so too. One whom
// anybody reaches who is heard isn't silent, however many can't: whether it is withdrawn is for the regions to vote on.
func (mb *member) state(now time.Time) NodeState {
	silent := mb.seen() == unreachable && !mb.connected &&
		(now.Sub(mb.downSince) >= deadAfter || mb.heard && !mb.alive) ||
		mb.seen() == untried && (mb.heard && !mb.alive || now.Sub(mb.lastSeen) > 2*deadAfter && !mb.connected)
	if silent && mb.info.State != Leaving {
		return Dead
	}
	return mb.info.State
}

func (mb *member) glance(now time.Time) glance {
	return glance{mb.state(now), mb.seen(), mb.info.Boot, mb.gone(now)}
}

// live tells whether the node counts when something has to reach every node.
func (mb *member) live(now time.Time) bool { return mb.state(now) != Dead && !mb.gone(now) }

// comparable tells whether the node's words belong to what nodes compare: those of one that is gone age differently.
func (mb *member) comparable() bool { return mb.info.State != Leaving && mb.connected }

// settleInto tells of what changed about a member.
func (mb *member) settleInto(c *core, now time.Time) {
	switch down := mb.seen() == unreachable; {
	case down && mb.downSince.IsZero():
		mb.downSince = now
	case !down:
		mb.downSince = time.Time{}
	}
	events, changed := mb.settle(now)
	c.out.events = append(c.out.events, events...)
	c.out.changed = c.out.changed || changed
}

// settle compares what is known now with what was last told, and returns the events for the difference.
func (mb *member) settle(now time.Time) (events []event, changed bool) {
	was, is := mb.last, mb.glance(now)
	if was == is {
		return nil, false
	}
	mb.last, mb.changed = is, now
	add := func(kind, detail string) { events = append(events, event{kind, mb.name, detail}) }
	switch {
	case was.boot == "":
		add("node.joined", fmt.Sprintf("region %s, version %s, %s", mb.info.Region, mb.info.Version, is.state))
	case was.boot != is.boot:
		add("node.restarted", "as "+string(is.state))
	}
	switch {
	case is.gone && !was.gone:
		add("node.left", "as it had said")
	case was.boot == "" || was.state == is.state:
	case is.state == Dead:
		add("node.dead", "silent to gossip and heartbeats; last error: "+mb.lastErr)
	case was.state == Dead:
		add("node.back", "was dead, is "+string(is.state))
	default:
		add("node.state", string(was.state)+" → "+string(is.state))
	}
	switch {
	case is.state == Leaving:
	case is.standing == unreachable && was.standing != unreachable:
		add("node.unreachable", "from here: "+mb.lastErr)
	case is.standing == reachable && was.standing == unreachable && was.state != Dead:
		add("node.back", "reachable again")
	}
	return events, true
}

// forgotten tells whether nothing more is worth knowing of the node.
func (mb *member) forgotten(now time.Time) bool {
	switch {
	case mb.link != nil:
		return false
	case mb.gone(now):
		return now.Sub(mb.changed) >= forgetLeft
	case mb.state(now) == Dead:
		return now.Sub(mb.changed) >= forgetDead
	}
	return false
}

// fresh tells whether what the node said is recent: it is connected, or was so a moment ago. A node that is stuck
// withdraws its report itself.
func (mb *member) fresh(now time.Time) bool {
	return mb.version > 0 && (mb.connected || now.Sub(mb.lostAt) <= ReportTTL)
}

// view is the member as others may see it.
func (mb *member) view(now time.Time) Member {
	out := Member{
		Name: mb.name, Region: mb.info.Region, Boot: mb.info.Boot, Addrs: slices.Clone(mb.info.Addrs),
		Gossip: mb.gossip, Peer: mb.info.Peer, Admin: mb.info.Admin,
		Version: mb.info.Version, ConfigHash: mb.info.Hash,
		State: mb.state(now), Reachable: mb.seen() == reachable, RTT: mb.rtt.smoothed, MinRTT: mb.rtt.min(), LastSeen: mb.lastSeen,
		Linked: mb.reach.standing != untried, Watches: []string{},
	}
	if mb.connected {
		out.LastSeen = now
	}
	if mb.fresh(now) {
		out.Unreachable, out.Watches, out.RegionRTT = mb.unreachable, append(out.Watches, mb.watches...), mb.rtts
		out.Coordinate = mb.place
		if out.ReportAt = now; !mb.connected {
			out.ReportAt = mb.lostAt
		}
		if out.Report = mb.report; out.Report == nil {
			out.ReportAt = time.Time{}
		} else if body := mb.sections[sectionSights]; len(body) > 0 {
			out.Sights = body
		}
	}
	return out
}
