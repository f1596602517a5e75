package mesh

import (
	"testing"
	"time"
)

// Two adjacent versions run together: who doesn't know pulses is sent none, and finds its peers as reachable as ever.
func TestSimVersionsMix(t *testing.T) {
	s := newSim(41)
	s.fleet(3, 3)
	old := map[int]bool{0: true, 4: true}
	for i := range old {
		s.nodes[i].speaks = protoPulses - 1
	}
	pulses := 0
	s.onDeliver = func(to int, m message) {
		if _, ok := m.(pulse); ok {
			if pulses++; old[to] {
				t.Errorf("%s is sent a pulse", s.nodes[to].name)
			}
		}
	}
	for _, n := range s.nodes {
		s.start(n)
	}
	if s.awaitWhole(20*time.Second) < 0 {
		t.Fatal(s.whole())
	}
	for range 60 {
		s.run(s.now + 250*time.Millisecond)
		if why := s.whole(); why != "" || s.brokenLinks() > 0 {
			t.Fatalf("the fleet is not whole: %s, %d links look broken", why, s.brokenLinks())
		}
	}
	if pulses == 0 {
		t.Error("nobody sends pulses")
	}
}
