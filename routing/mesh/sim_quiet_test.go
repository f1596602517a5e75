package mesh

import (
	"fmt"
	"testing"
	"time"
)

// At 5% loss no node may ever find a region down: that would be a false verdict. A single link may look silent for a
// moment; that is what the quorum is for.
func TestSimQuiet(t *testing.T) {
	var regions, perRegion int
	if _, err := fmt.Sscanf(*quietFleet, "%dx%d", &regions, &perRegion); err != nil {
		t.Fatal(err)
	}
	for _, datagram := range []bool{false, true} {
		s, _ := settled(t, 21, regions, perRegion)
		j := newJury(s, t.Errorf)
		j.onDown = func(n *simNode, region, evidence string) {
			t.Errorf("after %s %s finds %s down: %s", s.now, n.name, region, evidence)
		}
		s.loss, s.datagram = 0.05, datagram
		links, began := 0, s.now
		span := time.Duration(*quietHours * float64(time.Hour) / 2)
		said := time.Now()
		for end := s.now + span; s.now < end; {
			s.run(s.now + 250*time.Millisecond)
			links += s.brokenLinks()
			j.look()
			if time.Since(said) > time.Minute {
				said = time.Now()
				t.Logf("%s so far", s.now-began)
			}
		}
		t.Logf("%d nodes in %d regions, loss 5%%, as datagrams %t: %.2f simulated hours, %d false verdicts, %d link-samples that looked broken, %d events",
			len(s.nodes), regions, datagram, span.Hours(), j.found, links, s.events)
	}
}

// brokenLinks counts the links that look broken to one side.
func (s *sim) brokenLinks() (count int) {
	for _, n := range s.nodes {
		for _, l := range n.core.links {
			if l.peer.reach.standing == unreachable {
				count++
			}
		}
	}
	return count
}
