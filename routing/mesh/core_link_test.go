package mesh

import (
	"testing"
	"time"
)

// Two nodes that can't reach each other, as after a long cut, dial at the same moment. Both must settle on the same one of
// the two links: where each keeps the one that the other gives up, they part and dial again in step, for ever.
func TestCrossedDialsKeepOneLink(t *testing.T) {
	beat := 250 * time.Millisecond
	at := func(d time.Duration) instant { return instant{noon().Add(d), noon().Add(d)} }
	half := func() float64 { return 0.5 }
	of := func(region string) info {
		i := someInfo()
		i.Region, i.Boot = region, "boot-"+region
		return i
	}
	small, great := newCore("n1", of("a"), beat, time.Second, at(0), half), newCore("n2", of("b"), beat, time.Second, at(0), half)
	for _, c := range []struct {
		core *core
		peer string
		info info
	}{{small, "n2", of("b")}, {great, "n1", of("a")}} {
		c.core.linkUp(at(time.Second), 1, c.peer, c.info, protoVersion, true)
		c.core.tick(at(time.Second)) // chooses whom to keep links with
		c.core.linkDown(at(time.Second), 1, endedLost, "cut")
	}
	for _, latency := range []time.Duration{time.Millisecond, 80 * time.Millisecond, 400 * time.Millisecond} {
		start := time.Minute + latency
		// Link 2 is dialled by n1, link 3 by n2. Each is up first where it is accepted, then where it was dialled.
		great.linkUp(at(start+latency), 2, "n1", of("a"), protoVersion, false)
		small.linkUp(at(start+latency), 3, "n2", of("b"), protoVersion, false)
		small.linkUp(at(start+2*latency), 2, "n2", of("b"), protoVersion, true)
		great.linkUp(at(start+2*latency), 3, "n1", of("a"), protoVersion, true)
		if a, b := small.members["n2"].link.id, great.members["n1"].link.id; a != 2 || b != 2 {
			t.Errorf("with %s between them n1 keeps link %d and n2 link %d, not both the one that n1 dialled", latency, a, b)
		}
		small.linkDown(at(start+2*latency), small.members["n2"].link.id, endedLost, "cut")
		great.linkDown(at(start+2*latency), great.members["n1"].link.id, endedLost, "cut")
	}
}
