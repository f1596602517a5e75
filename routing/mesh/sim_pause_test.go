package mesh

import (
	"testing"
	"time"
)

// A process that stood still takes nobody for silent: it was itself that did not listen. What is truly gone it still learns.
func TestSimPausedNodeBlamesNobody(t *testing.T) {
	s, _ := settled(t, 61, 2, 1)
	j := newJury(s, t.Errorf)
	paused, found := s.nodes[0], 0
	j.onDown = func(n *simNode, _, _ string) {
		if n == paused {
			found++
		}
	}
	pass := func(d time.Duration) {
		for end := s.now + d; s.now < end; {
			s.run(s.now + 250*time.Millisecond)
			j.look()
		}
	}
	pass(2 * time.Second)
	for _, nap := range []time.Duration{2 * time.Second, 4500 * time.Millisecond, 30 * time.Second} {
		paused.frozen = s.now + nap
		if pass(nap + 10*time.Second); found > 0 {
			t.Fatalf("after a pause of %s it finds the other region down", nap)
		}
	}
	paused.frozen = s.now + 4*time.Second
	s.kill(s.nodes[1], true)
	if pass(7 * time.Second); found == 0 {
		t.Error("it does not learn that the other region died meanwhile")
	}
}
