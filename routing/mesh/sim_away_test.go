package mesh

import (
	"testing"
	"time"
)

// A node that was away for longer than deletions are remembered must not bring back what was deleted meanwhile.
func TestSimAwayForTooLong(t *testing.T) {
	s, _ := settled(t, 31, 3, 2)
	away := s.nodes[5]
	stale := false
	s.onEvent = func(n *simNode, e event) { stale = stale || n == away && e.kind == "registers.stale" }
	s.set(s.nodes[0], "drain/x", "on", WaitAll)
	s.set(s.nodes[0], "drain/kept", "on", WaitAll)
	s.run(s.now + 2*time.Second)
	s.kill(away, false)
	s.set(s.nodes[0], "drain/x", "", WaitAll)
	s.run(s.now + 2*time.Second)
	for _, n := range s.nodes { // a day and more passes in a moment: nothing but time happens in it
		n.offset += TombstoneTTL + time.Hour
	}
	s.run(s.now + 5*time.Second)
	if s.nodes[0].core.table.has("drain/x") {
		t.Fatal("the deletion is still remembered")
	}
	if len(away.disk) != 2 {
		t.Fatalf("the node that is away holds %d registers", len(away.disk))
	}
	away.diskAlive = s.now - TombstoneTTL - time.Hour
	s.start(away)
	if s.awaitWhole(20*time.Second) < 0 {
		t.Fatal(s.whole())
	}
	if !stale {
		t.Error("it did not say that it starts clean")
	}
	for _, n := range s.nodes {
		if n.core.table.has("drain/x") || !n.core.table.has("drain/kept") || len(n.disk) != 1 {
			t.Errorf("%s holds %d registers, %d on disk", n.name, len(n.core.table.entries), len(n.disk))
		}
	}
}

// When the whole fleet was away, what its disks hold is all there is: it is kept.
func TestSimAllAwayForTooLong(t *testing.T) {
	s, _ := settled(t, 32, 3, 1)
	s.set(s.nodes[0], "drain/x", "on", WaitAll)
	s.run(s.now + 2*time.Second)
	for _, n := range s.nodes {
		s.kill(n, false)
	}
	for _, n := range s.nodes {
		n.diskAlive = s.now - TombstoneTTL - time.Hour
		s.start(n)
	}
	if s.awaitWhole(30*time.Second) < 0 {
		t.Fatal(s.whole())
	}
	for _, n := range s.nodes {
		if !n.core.table.has("drain/x") {
			t.Errorf("%s has lost a register", n.name)
		}
	}
}
