package mesh

import (
	"fmt"
	"testing"
	"time"
)

// At 5% loss no node may ever be called unreachable by the fleet: that would be a false verdict. A single link may look
// silent for a moment; that is what the quorum is for.
func TestSimQuiet(t *testing.T) {
	var regions, perRegion int
	if _, err := fmt.Sscanf(*quietFleet, "%dx%d", &regions, &perRegion); err != nil {
		t.Fatal(err)
	}
	for _, datagram := range []bool{false, true} {
		s, _ := settled(t, 21, regions, perRegion)
		s.loss, s.datagram = 0.05, datagram
		false1, links := 0, 0
		down := map[string]bool{}
		span := time.Duration(*quietHours * float64(time.Hour) / 2)
		for end := s.now + span; s.now < end; {
			s.run(s.now + 250*time.Millisecond)
			links += s.brokenLinks()
			for _, p := range s.nodes {
				verdict := s.agreed(p)
				if verdict && !down[p.name] {
					false1++
				}
				down[p.name] = verdict
			}
		}
		t.Logf("%d nodes in %d regions, loss 5%%, as datagrams %t: %.2f simulated hours, %d false verdicts, %d link-samples that looked broken, %d events",
			len(s.nodes), regions, datagram, span.Hours(), false1, links, s.events)
		if false1 > 0 {
			t.Errorf("%d false verdicts", false1)
		}
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

// agreed tells whether most other regions find a node unreachable, each by the word of all its observers: the rule of
// healthcheck.Ballot, written down a second time on the simulated truth.
func (s *sim) agreed(p *simNode) bool {
	against, voters := 0, 0
	for _, region := range s.regions() {
		if region == p.region {
			continue
		}
		watch, down := 0, 0
		for _, n := range s.nodes {
			mb := n.core.members[p.name]
			if n.region != region || mb == nil || mb.reach.standing == untried {
				continue
			}
			watch++
			if mb.reach.standing == unreachable {
				down++
			}
		}
		if watch > 0 {
			voters++
			if watch == down {
				against++
			}
		}
	}
	return against > voters/2
}
