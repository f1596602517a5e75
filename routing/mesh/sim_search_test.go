package mesh

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

// The long search is this test with other flags:
//
//	go test ./routing/mesh -run TestSimSearch -v -timeout 0 -sim.runs 1000 -sim.seed 1
type simFlags struct {
	runs *int
	seed *uint64
}

func flagsOf() simFlags {
	return simFlags{
		flag.Int("sim.runs", 8, "how many random runs TestSimSearch makes"),
		flag.Uint64("sim.seed", 1, "the seed of its first run; each next one has the next"),
	}
}

var searchFlags = flagsOf()

// history is what clients of a simulated fleet were told, to be held against what the fleet knows in the end.
type history struct {
	tell   func(format string, args ...any) // a breach of an invariant
	s      *sim
	writes map[[2]string]wrote // by node and its write's number
	acked  []acked
	wiped  map[string]int // how often each node's disk was lost
	jury   *jury
	weighs []weighed
	window time.Duration // when the present one began
	most   weighed       // that any node sent in a window
}

// weighed is what a node had sent when a window began.
type weighed struct{ bytes, messages uint64 }

// What a node of a small fleet may send a second, in the worst of times, faults, writes and repairs included.
const (
	simWindow      = 5 * time.Second
	simMostBytes   = 60_000
	simMostPerHost = 600
)

// run goes on for a while and holds the invariants that are checked all along.
func (h *history) run(d time.Duration) {
	s := h.s
	for end := s.now + d; s.now < end; {
		s.run(min(end, s.now+250*time.Millisecond))
		h.jury.look()
		if s.now-h.window >= simWindow {
			h.weigh()
		}
	}
}

func (h *history) weigh() {
	span := (h.s.now - h.window).Seconds()
	h.window = h.s.now
	for i, n := range h.s.nodes {
		was := h.weighs[i]
		h.weighs[i] = weighed{n.sent, n.messages}
		rate := weighed{uint64(float64(n.sent-was.bytes) / span), uint64(float64(n.messages-was.messages) / span)}
		h.most = weighed{max(h.most.bytes, rate.bytes), max(h.most.messages, rate.messages)}
		if rate.bytes > simMostBytes || rate.messages > simMostPerHost {
			h.fail("%s sends %d messages and %d bytes a second", n.name, rate.messages, rate.bytes)
		}
	}
}

type wrote struct {
	key   string
	level Wait
}

type acked struct {
	key     string
	stamp   Stamp
	holders map[string]int // who has it on disk, and how often that disk had been lost then
}

func (h *history) result(n *simNode, r result) {
	if r.err != nil {
		return
	}
	w := h.writes[[2]string{n.name, fmt.Sprint(n.life, "/", r.token)}]
	stamp := r.stamp
	a := acked{key: w.key, stamp: stamp, holders: map[string]int{}}
	if stamp.Time().After(h.s.epoch().Add(h.s.now + MaxClockLead)) {
		return // stamped by a clock far ahead, and written anew as soon as its owner learns of that
	}
	for _, name := range r.applied {
		p := h.s.nodes[h.s.index[name]]
		held, ok := p.disk[w.key]
		if h.wiped[name] == 0 && (!ok || held.Stamp.Compare(stamp) < 0) {
			h.fail("%s told %s that it has %s (%v) on disk, but holds %v", name, n.name, w.key, stamp, held.Stamp)
		}
		if ok { // it may have lost its disk between its word and this moment
			a.holders[name] = h.wiped[name]
		}
	}
	if w.level == WaitAll && len(r.missing) == 0 && !r.onDisk {
		for _, p := range h.s.running() {
			if mb := n.core.members[p.name]; p != n && mb != nil && mb.live(h.s.epoch().Add(h.s.now)) && !slices.Contains(r.applied, p.name) {
				h.fail("%s waited for all, yet %s, which it takes for live, has not confirmed %s", n.name, p.name, w.key)
			}
		}
	}
	h.acked = append(h.acked, a)
}

func (h *history) fail(format string, args ...any) {
	h.tell("seed %d at %s: %s\nagain: go test ./routing/mesh -run TestSimSearch -v -sim.runs 1 -sim.seed %d",
		h.s.seed, h.s.now, fmt.Sprintf(format, args...), h.s.seed)
}

// converged holds all nodes' registers against each other, one by one: digests that are wrong must not hide a difference.
func (h *history) converged() {
	up := h.s.running()
	for _, n := range up[1:] {
		if !maps.EqualFunc(n.core.table.entries, up[0].core.table.entries, func(a, b entry) bool {
			return a.Stamp == b.Stamp && string(a.Value) == string(b.Value) && a.Deleted() == b.Deleted()
		}) {
			h.fail("%s and %s hold different registers", n.name, up[0].name)
		}
	}
}

// check holds every acknowledged write against the end: nobody may have lost it while one that had it on disk lives.
func (h *history) check() {
	for _, a := range h.acked {
		survived := false
		for name, wiped := range a.holders {
			survived = survived || h.wiped[name] == wiped
		}
		if !survived {
			continue
		}
		for _, n := range h.s.running() {
			if e, ok := n.core.table.entries[a.key]; !ok || e.Stamp.Compare(a.stamp) < 0 {
				h.fail("%s has lost %s of %v, which was acknowledged by %v", n.name, a.key, a.stamp, sortedKeys(a.holders))
				return
			}
		}
	}
}

// newHistory makes a random fleet, all of it drawn from the seed.
func newHistory(t *testing.T, seed uint64) *history {
	s := newSim(seed)
	h := &history{tell: t.Errorf, s: s, writes: map[[2]string]wrote{}, wiped: map[string]int{}}
	s.onResult = h.result
	s.wired, s.datagram = seed%3 == 0, s.rng.IntN(2) == 0
	s.fleet(2+s.rng.IntN(4), 1+s.rng.IntN(3))
	way := map[[2]string]time.Duration{}
	s.oneWay = func(a, b string) time.Duration {
		if a == b {
			return 300 * time.Microsecond
		}
		k := [2]string{min(a, b), max(a, b)}
		if way[k] == 0 {
			way[k] = time.Duration(5+s.rng.IntN(150)) * time.Millisecond
		}
		return way[k]
	}
	for _, n := range s.nodes {
		n.offset = time.Duration(s.rng.IntN(200)-100) * time.Millisecond
		s.start(n)
	}
	h.jury = newJury(s, h.fail)
	h.weighs = make([]weighed, len(s.nodes))
	return h
}

// simHealWithin is how soon after the last fault the fleet must be whole.
const simHealWithin = 40 * time.Second

// play makes one random run: half a minute to three of faults and writes, then peace.
func (h *history) play() (simulated time.Duration) {
	s := h.s
	h.run(time.Duration(s.rng.IntN(8)) * time.Second)
	for end := s.now + 30*time.Second + time.Duration(s.rng.IntN(150))*time.Second; s.now < end; {
		h.run(time.Duration(s.rng.ExpFloat64() * float64(1500*time.Millisecond)))
		if s.rng.IntN(2) == 0 {
			h.write()
		} else {
			h.fault()
		}
	}
	h.peace()
	h.end()
	return s.now
}

// end checks that the fleet gets whole after the last fault, and that nothing was lost.
func (h *history) end() {
	s := h.s
	if s.awaitWhole(simHealWithin) < 0 {
		if *searchFlags.runs == 1 {
			debugDump(h.s)
		}
		h.fail("%s after the last fault the fleet is not whole: %s", simHealWithin, s.whole())
		return
	}
	s.run(s.now + 5*time.Second) // writes under way end
	if s.awaitWhole(3*time.Second) < 0 {
		h.fail("the fleet does not stay whole: %s", s.whole())
	}
	h.converged()
	h.check()
}

func (h *history) peace() {
	s := h.s
	clear(s.cuts)
	s.loss = 0
	for _, n := range s.nodes {
		if n.frozen > s.now {
			n.frozen = s.now + time.Second
		}
		n.offset = time.Duration(s.rng.IntN(200)-100) * time.Millisecond
		s.start(n)
	}
}

func (h *history) write() {
	s := h.s
	up := s.running()
	if len(up) == 0 {
		return
	}
	n := up[s.rng.IntN(len(up))]
	if n.frozen > s.now {
		return
	}
	key, value := fmt.Sprintf("k/%d", s.rng.IntN(12)), fmt.Sprintf("%s-%d", n.name, n.writes)
	if s.rng.IntN(6) == 0 {
		value = ""
	}
	level := Wait(s.rng.IntN(3))
	h.writes[[2]string{n.name, fmt.Sprint(n.life, "/", n.writes+1)}] = wrote{key, level}
	s.set(n, key, value, level)
}

func (h *history) pick() *simNode { return h.s.nodes[h.s.rng.IntN(len(h.s.nodes))] }

// fault makes one thing go wrong, or one thing right again.
func (h *history) fault() {
	s := h.s
	n := h.pick()
	regions := s.regions()
	switch s.rng.IntN(12) {
	case 0, 1:
		s.kill(n, s.rng.IntN(2) == 0)
		if s.rng.IntN(4) == 0 {
			clear(n.disk)
			h.wiped[n.name]++
		}
	case 2, 3, 4:
		s.start(n)
	case 5:
		if n.up {
			n.frozen = s.now + time.Duration(s.rng.IntN(8000))*time.Millisecond
		}
	case 6: // a region or a node cut off, in one direction or both
		who := regions[s.rng.IntN(len(regions))]
		if s.rng.IntN(2) == 0 {
			who = n.name
		}
		for _, other := range regions {
			if s.rng.IntN(3) > 0 && other != who {
				s.cuts[[2]string{who, other}] = true
				s.cuts[[2]string{other, who}] = s.rng.IntN(3) > 0
			}
		}
	case 7, 8:
		clear(s.cuts)
	case 9:
		s.loss = []float64{0, 0, 0.01, 0.05, 0.3}[s.rng.IntN(5)]
	case 10: // a clock jumps: one of them, always the same, may be far off where three can tell which is wrong
		n.offset = time.Duration(s.rng.IntN(40)-20) * time.Second
		if n == s.nodes[0] && len(s.nodes) > 2 {
			n.offset = time.Duration(s.rng.IntN(1200)-600) * time.Second
		}
	case 11:
		if s.rng.IntN(4) == 0 { // the whole fleet at once
			for _, p := range s.nodes {
				s.kill(p, false)
			}
			for _, p := range s.nodes {
				s.start(p)
			}
		}
	}
}

func (s *sim) regions() []string {
	var out []string
	for _, n := range s.nodes {
		if !slices.Contains(out, n.region) {
			out = append(out, n.region)
		}
	}
	return out
}

func TestSimSearch(t *testing.T) {
	var total time.Duration
	var most weighed
	events, verdicts, runs := uint64(0), 0, 0
	for i := range *searchFlags.runs {
		runs++
		h := newHistory(t, *searchFlags.seed+uint64(i))
		total += h.play()
		events, verdicts = events+h.s.events, verdicts+h.jury.found
		most = weighed{max(most.bytes, h.most.bytes), max(most.messages, h.most.messages)}
		if t.Failed() {
			break
		}
	}
	t.Logf("%d runs, %.2f simulated hours, %d events, %d verdicts that a region is down; a node sends at most %d messages and %d bytes a second",
		runs, total.Hours(), events, verdicts, most.messages, most.bytes)
}

// The same seed gives the same run, event by event.
func TestSimReplays(t *testing.T) {
	trace := func() (uint64, uint64) {
		h := newHistory(t, 7)
		h.play()
		return h.s.trace, h.s.events
	}
	a, na := trace()
	b, nb := trace()
	if a != b || na != nb {
		t.Errorf("two runs of one seed differ: %x after %d events, %x after %d", a, na, b, nb)
	}
}

func debugDump(s *sim) {
	for _, n := range s.nodes {
		for _, l := range n.core.lineup {
			fmt.Println(n.name, n.core.boot, "link", l.id, l.peer.name, "dialed", l.dialed, "age", s.epoch().Add(s.now).Sub(l.opened), "seq", l.seq, "got", l.got, "echoed", l.echoed, "inbox", n.inbox[l.id] != nil, l.peer.reach)
		}
		for _, mb := range n.core.order {
			if mb.link == nil {
				fmt.Println(n.name, "no link", mb.name, mb.wanted, mb.dialing, mb.fails, mb.redial.Sub(s.epoch().Add(s.now)), mb.reach, mb.info.State, mb.observed)
			}
		}
	}
}
