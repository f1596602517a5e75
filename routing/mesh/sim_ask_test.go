package mesh

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

// set writes a register at a node; every other one that waits for all is told to the others before it is on disk.
func (s *sim) set(n *simNode, key, value string, level Wait) uint64 {
	n.writes++
	var raw []byte
	if value != "" {
		raw = []byte(fmt.Sprintf("%q", value))
	}
	if level == WaitAll && n.writes%2 == 0 {
		s.carry(s.index[n.name], n.core.writeEarly(s.instant(n), n.writes, key, raw, 0))
		return n.writes
	}
	s.carry(s.index[n.name], n.core.write(s.instant(n), n.writes, key, raw, 0, level))
	return n.writes
}

func (s *sim) running() []*simNode {
	var out []*simNode
	for _, n := range s.nodes {
		if n.up {
			out = append(out, n)
		}
	}
	return out
}

// whole tells what keeps the fleet from being whole; empty when every node is ready, reaches all that run, and holds
// the same registers.
func (s *sim) whole() string {
	up := s.running()
	for _, n := range up {
		if !n.core.ready {
			return n.name + " is not ready"
		}
		if n.core.table.digest() != up[0].core.table.digest() {
			return fmt.Sprintf("the registers of %s and %s differ", n.name, up[0].name)
		}
		for _, p := range up {
			if p == n {
				continue
			}
			mb := n.core.members[p.name]
			if mb == nil || mb.seen() != reachable || mb.info.Boot != p.core.boot || mb.state(s.epoch().Add(s.now)) != Serving {
				state := "unknown"
				if mb != nil {
					state = fmt.Sprintf("%s, standing %d, linked %t, boot %s", mb.state(s.epoch().Add(s.now)), mb.seen(), mb.link != nil, mb.info.Boot)
				}
				return fmt.Sprintf("%s finds %s %s", n.name, p.name, state)
			}
			if mb.version != p.core.self.version {
				return fmt.Sprintf("%s has version %d of %s's words, not %d", n.name, mb.version, p.name, p.core.self.version)
			}
		}
	}
	return ""
}

// awaitWhole runs until the fleet is whole, at most so long, and returns how long it took; -1: it isn't.
func (s *sim) awaitWhole(most time.Duration) time.Duration {
	start := s.now
	for s.now-start < most {
		s.run(s.now + 100*time.Millisecond)
		if s.whole() == "" {
			return s.now - start
		}
	}
	return -1
}

func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[min(int(math.Ceil(q*float64(len(all))))-1, len(all)-1)]
}

func sortedKeys[K interface{ ~string | ~uint64 }, V any](m map[K]V) []K {
	out := make([]K, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func TestSimSmoke(t *testing.T) {
	s := newSim(1)
	s.wired = true
	s.fleet(3, 3)
	for _, n := range s.nodes {
		s.start(n)
	}
	took := s.awaitWhole(20 * time.Second)
	if took < 0 {
		t.Fatal("not whole: ", s.whole())
	}
	t.Log("whole after ", took)
	var got result
	s.onResult = func(_ *simNode, r result) { got = r; t.Log(s.now, r) }
	s.set(s.nodes[0], "k", "v", WaitAll)
	s.run(s.now + 2*time.Second)
	if len(got.applied) != 9 {
		t.Fatal(got)
	}
}
