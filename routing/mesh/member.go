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
	State              NodeState       // as it told, or Dead
	Reachable          bool            // this node's own heartbeats come back
	RTT                time.Duration   // smoothed round trip of the heartbeats; 0: not measured yet
	LastSeen           time.Time       // when the node itself was last heard
	Report             json.RawMessage // what it published; nil when older than ReportTTL. Don't modify
	ReportAt           time.Time       // when it published, by this node's clock
	Unreachable        []string        // the nodes that it can't reach, sorted; nil when it was not heard for ReportTTL
	Self               bool
}

// member is what is known of another node. Its methods are plain steps: the caller holds the mesh's lock.
type member struct {
	name   string
	info   info
	past   []string // boot ids it had before; they never come back
	gossip netip.AddrPort
	alive  bool // gossip's view
	heard  bool // gossip has told of it

	reach    reach
	lastErr  string // of the last beat that failed
	rtt      time.Duration
	lastSeen time.Time

	report        json.RawMessage
	reportVersion uint64
	reportAt      time.Time
	unreachable   []string
	holds         uint64 // version of this node's report that it has

	returns       int       // direct signs of a past boot
	duplicateSaid time.Time // when the doubled name was last reported
	changed       time.Time // when the last glance changed
	last          glance
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
	mb.report, mb.reportVersion, mb.reportAt, mb.unreachable, mb.holds = nil, 0, time.Time{}, nil, 0
	return restarted
}

// gone tells that a node which said it would leave has left.
func (mb *member) gone() bool {
	return mb.info.State == Leaving && (mb.reach.standing == unreachable || mb.heard && !mb.alive && mb.reach.standing != reachable)
}

// state is what the node told, unless both gossip and this node's beats find it silent.
func (mb *member) state() NodeState {
	silent := !mb.alive && (mb.reach.standing == unreachable || mb.heard && mb.reach.standing == untried)
	if silent && mb.info.State != Leaving {
		return Dead
	}
	return mb.info.State
}

func (mb *member) glance() glance {
	return glance{mb.state(), mb.reach.standing, mb.info.Boot, mb.gone()}
}

// live tells whether the node counts when something has to reach every node.
func (mb *member) live() bool { return mb.state() != Dead && !mb.gone() }

// settle compares what is known now with what was last told, and returns the events for the difference.
func (mb *member) settle(now time.Time) (events []event, changed bool) {
	was, is := mb.last, mb.glance()
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
	case mb.gone():
		return now.Sub(mb.changed) >= forgetLeft
	case mb.state() == Dead:
		return now.Sub(mb.changed) >= forgetDead
	}
	return false
}

func (mb *member) fresh(now time.Time) bool {
	return mb.report != nil && now.Sub(mb.reportAt) <= ReportTTL
}

// view is the member as others may see it.
func (mb *member) view(now time.Time) Member {
	out := Member{
		Name: mb.name, Region: mb.info.Region, Boot: mb.info.Boot, Addrs: slices.Clone(mb.info.Addrs),
		Gossip: mb.gossip, Peer: mb.info.Peer, Admin: mb.info.Admin,
		Version: mb.info.Version, ConfigHash: mb.info.Hash,
		State: mb.state(), Reachable: mb.reach.standing == reachable, RTT: mb.rtt, LastSeen: mb.lastSeen,
	}
	if now.Sub(mb.lastSeen) <= ReportTTL { // its view of the others is soft state too
		out.Unreachable = slices.Clone(mb.unreachable)
	}
	if mb.fresh(now) {
		out.Report, out.ReportAt = mb.report, mb.reportAt
	}
	return out
}
