package mesh

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// sim is a fleet of cores on a simulated network, disk and clock, in one goroutine: equal seeds give equal runs. It
// drives the same core as Mesh does.
type sim struct {
	seed  uint64
	rng   *rand.Rand
	kinds map[string]int
	now   time.Duration // since the start
	queue simHeap
	slab  []simEvent
	free  []int32 // places in slab
	ways  [][]time.Duration
	seq   uint64
	nodes []*simNode
	index map[string]int
	links map[uint64]*simLink
	next  uint64
	trace uint64 // hash of all that happened
	wired bool   // each message goes through its encoding

	beat     time.Duration
	oneWay   func(from, to string) time.Duration // between regions
	loss     float64
	datagram bool               // losses, doubles and reordering reach the core, not only as delay
	cuts     map[[2]string]bool // from, to: names of nodes or regions; what is cut is lost in that direction

	onDeliver func(to int, m message)
	onResult  func(n *simNode, r result)
	onEvent   func(n *simNode, e event)
	events    uint64
}

// simNode is a process with a disk and a clock.
type simNode struct {
	name, region string
	core         *core
	up           bool
	life         int // of the process; what belongs to an earlier one is dropped
	disk         map[string]Register
	offset       time.Duration // of its clock
	frozen       time.Duration // paused until
	diskAlive    time.Duration // when it last ran, as it wrote down
	diskBusy     time.Duration // writes keep their order
	inbox        map[uint64]*simLink
	place        int    // of its region in sim.ways
	speaks       int    // the version of the protocol
	sent         uint64 // bytes
	received     uint64 // bytes sent to it
	messages     uint64
	lost         int // messages dropped by the network
	writes       uint64
}

// simLink is one connection. Side 0 dialled.
type simLink struct {
	id    uint64
	ends  [2]int
	lives [2]int
	down  [2]bool
	ready [2]time.Duration // the earliest that what is sent to this side may arrive: order holds
}

type simKind uint8

const (
	simTick simKind = iota
	simDeliver
	simUp
	simDown
	simDialed
	simSaved
	simCall
)

type simEvent struct {
	at    time.Duration
	kind  simKind
	how   ending
	side  uint8
	node  int
	life  int
	link  *simLink
	msg   message
	saved saving
	peer  string
	call  func()
}

func newSim(seed uint64) *sim {
	return &sim{
		seed: seed, rng: rand.New(rand.NewPCG(seed, 0x1a2df411)), index: map[string]int{}, links: map[uint64]*simLink{},
		beat: defaultHeartbeat, cuts: map[[2]string]bool{}, oneWay: func(a, b string) time.Duration {
			if a == b {
				return 500 * time.Microsecond
			}
			return 40 * time.Millisecond
		},
		onResult: func(*simNode, result) {}, onEvent: func(*simNode, event) {},
	}
}

func (s *sim) epoch() time.Time { return time.Unix(1_800_000_000, 0) }

// add makes a node that isn't started yet.
func (s *sim) add(region, name string) *simNode {
	n := &simNode{name: name, region: region, place: slices.Index(s.regions(), region), speaks: protoVersion, disk: map[string]Register{}}
	if n.place < 0 {
		n.place = len(s.regions())
	}
	s.index[name] = len(s.nodes)
	s.nodes = append(s.nodes, n)
	return n
}

// fleet adds nodes and has each know two seeds.
func (s *sim) fleet(regions, perRegion int) {
	for r := range regions {
		for k := range perRegion {
			s.add(fmt.Sprintf("r%02d", r), fmt.Sprintf("r%02d-n%02d", r, k))
		}
	}
}

func (s *sim) instant(n *simNode) instant {
	at := s.epoch().Add(s.now)
	return instant{at: at, wall: at.Add(n.offset)}
}

func (s *sim) info(n *simNode) info {
	return info{
		Started: s.epoch().Add(s.now).UnixMilli(), Seq: 1, State: Serving, Region: n.region, Boot: fmt.Sprintf("%s-%d", n.name, n.life),
		Version: "v", Hash: "c", Peer: netip.MustParseAddrPort("192.0.2.1:7443"),
	}
}

// start runs a node's process: it knows the other nodes as gossip or its disk would tell it.
func (s *sim) start(n *simNode) {
	if n.up {
		return
	}
	n.up, n.life, n.inbox, n.frozen = true, n.life+1, map[uint64]*simLink{}, 0
	idx := s.index[n.name]
	seed := s.rng.Uint64()
	draw := rand.New(rand.NewPCG(seed, 1))
	n.core = newCore(n.name, s.info(n), s.beat, defaultReadyWait, s.instant(n), draw.Float64)
	for _, key := range sortedKeys(n.disk) {
		n.core.load(s.instant(n), n.disk[key])
	}
	if n.diskAlive != 0 && s.now-n.diskAlive > TombstoneTTL && len(n.disk) > 0 {
		n.core.stale = true
	}
	for _, p := range s.pickSeeds(n) {
		known := s.info(p)
		if p.up {
			known = s.infoOf(p)
		}
		n.core.hint(s.instant(n), p.name, known, netip.AddrPort{}, true)
	}
	s.push(simEvent{at: s.now + time.Duration(s.rng.Int64N(int64(tickEvery(s.beat)))), kind: simTick, node: idx, life: n.life})
}

// pickSeeds is whom a starting node knows of: up to three nodes that run, and one that may not.
func (s *sim) pickSeeds(n *simNode) []*simNode {
	var out []*simNode
	for range 12 {
		p := s.nodes[s.rng.IntN(len(s.nodes))]
		if p != n && (p.up || len(out) == 0) && !slices.Contains(out, p) && len(out) < 3 {
			out = append(out, p)
		}
	}
	return out
}

// kill ends a process as SIGKILL does: its connections are reset. silently: as a power cut does.
func (s *sim) kill(n *simNode, silently bool) {
	if !n.up {
		return
	}
	n.up, n.diskAlive = false, s.now
	idx := s.index[n.name]
	for _, id := range sortedKeys(n.inbox) {
		l := n.inbox[id]
		side := l.sideOf(idx, n.life)
		l.down[side] = true
		if !silently {
			s.end(l, 1-side, endedLost)
		}
	}
	n.core, n.inbox = nil, nil
}

func (l *simLink) sideOf(node, life int) int {
	if l.ends[0] == node && l.lives[0] == life {
		return 0
	}
	return 1
}

// end lets one side of a link learn that it has ended.
func (s *sim) end(l *simLink, side int, how ending) {
	if s.cut(s.nodes[l.ends[1-side]], s.nodes[l.ends[side]]) {
		return
	}
	at := s.now + s.way(l.ends[1-side], l.ends[side])
	s.push(simEvent{at: max(at, l.ready[side]), kind: simDown, node: l.ends[side], life: l.lives[side], link: l, how: how})
}

func (s *sim) way(from, to int) time.Duration {
	a, b := s.nodes[from], s.nodes[to]
	for len(s.ways) <= max(a.place, b.place) {
		s.ways = append(s.ways, nil)
	}
	row := s.ways[a.place]
	for len(row) <= b.place {
		row = append(row, -1)
	}
	s.ways[a.place] = row
	if row[b.place] < 0 {
		row[b.place] = s.oneWay(a.region, b.region)
	}
	d := row[b.place]
	return d + time.Duration(s.rng.Int64N(int64(d/50)+1))
}

func (s *sim) cut(from, to *simNode) bool {
	if len(s.cuts) == 0 {
		return false
	}
	return s.cuts[[2]string{from.region, to.region}] || s.cuts[[2]string{from.name, to.name}] || s.cuts[[2]string{from.name, "*"}] || s.cuts[[2]string{"*", to.name}]
}

// run goes on until a time.
func (s *sim) run(until time.Duration) {
	for len(s.queue) > 0 && s.queue[0].at <= until {
		e := s.pop()
		s.now = e.at
		s.events++
		s.handle(e)
	}
	s.now = until
}

func (s *sim) handle(e simEvent) {
	if e.kind == simCall {
		e.call()
		return
	}
	n := s.nodes[e.node]
	if e.kind == simSaved {
		s.disk(n, e)
	}
	if !n.up || n.life != e.life {
		if e.kind == simUp && e.side == 1 && s.nodes[e.link.ends[0]].up { // the process ended while it was dialled
			d := s.nodes[e.link.ends[0]]
			s.push(simEvent{at: s.now, kind: simDialed, node: e.link.ends[0], life: d.life, peer: n.name, how: dialRefused})
		}
		return
	}
	if n.frozen > s.now {
		e.at = n.frozen
		s.push(e)
		return
	}
	now := s.instant(n)
	switch e.kind {
	case simTick:
		s.push(simEvent{at: s.now + tickEvery(s.beat), kind: simTick, node: e.node, life: e.life})
		s.carry(e.node, n.core.tick(now))
	case simDeliver:
		if !e.link.down[e.side] {
			if s.onDeliver != nil {
				s.onDeliver(e.node, e.msg)
			}
			s.carry(e.node, n.core.message(now, e.link.id, e.msg))
		}
	case simUp:
		s.up(e, n, now)
	case simDown:
		if n.inbox[e.link.id] != nil {
			delete(n.inbox, e.link.id)
			e.link.down[e.link.sideOf(e.node, e.life)] = true
			s.carry(e.node, n.core.linkDown(now, e.link.id, e.how, "connection reset by peer"))
		}
	case simDialed:
		s.carry(e.node, n.core.dialFailed(now, e.peer, e.how, "no connection"))
	case simSaved:
		if e.saved.token != 0 {
			s.carry(e.node, n.core.saved(now, e.saved.token, nil))
		}
	}
}

func (s *sim) disk(n *simNode, e simEvent) {
	if n.life != e.life || !n.up {
		return // it was not on disk yet
	}
	if e.saved.wipe {
		clear(n.disk)
	}
	for _, key := range e.saved.gone {
		delete(n.disk, key)
	}
	for _, r := range e.saved.registers {
		n.disk[r.Key] = r
	}
}

func (s *sim) up(e simEvent, n *simNode, now instant) {
	other := s.nodes[e.link.ends[1-e.side]]
	if !other.up || other.life != e.link.lives[1-e.side] {
		if e.side == 0 {
			s.carry(e.node, n.core.dialFailed(now, other.name, dialRefused, "connection reset"))
		}
		return
	}
	if e.side == 1 {
		if s.cut(n, other) {
			s.push(simEvent{at: s.now + 3*time.Second, kind: simDialed, node: e.link.ends[0], life: other.life, peer: n.name, how: dialSilent})
			return
		}
		s.push(simEvent{at: s.now + s.way(e.node, e.link.ends[0]), kind: simUp, node: e.link.ends[0], life: e.link.lives[0], link: e.link, side: 0})
		e.link.ready[0] = s.now + 2*s.way(e.node, e.link.ends[0])
	}
	n.inbox[e.link.id] = e.link
	s.carry(e.node, n.core.linkUp(now, e.link.id, other.name, s.infoOf(other), other.speaks, e.side == 0))
	if e.side == 0 && e.link.down[1] && n.inbox[e.link.id] != nil { // the other side has ended it already
		delete(n.inbox, e.link.id)
		e.link.down[0] = true
		s.carry(e.node, n.core.linkDown(now, e.link.id, endedByPeer, ""))
	}
}

// infoOf is what a node's greeting says of it.
func (s *sim) infoOf(n *simNode) info { return n.core.self.info }
