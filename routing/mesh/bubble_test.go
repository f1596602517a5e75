package mesh

import (
	"flag"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// The long search is this test with other flags:
//
//	go test ./routing/mesh -run TestBubble -v -timeout 0 -bubble.runs 1000 -bubble.seed 1
type bubbleFlags struct {
	runs *int
	seed *uint64
}

func bubbleFlagsOf() bubbleFlags {
	return bubbleFlags{
		flag.Int("bubble.runs", 1, "how many random runs TestBubble makes"),
		flag.Uint64("bubble.seed", 1, "the seed of its first run; each next one has the next"),
	}
}

var bubbleSearch = bubbleFlagsOf()

// bubbleWholeWithin is how soon after the last fault the fleet must be whole, gossip included: its rounds of joining are
// up to joinMost and a half apart, and each may wait for a stream as long as gossip does.
const bubbleWholeWithin = 45 * time.Second

// TestBubble runs whole fleets, each node with its memberlist, HTTP/2, TLS and database, on a network in memory and the
// clock of a synctest bubble, under faults that are drawn from a seed.
//
// The seed decides the faults, the writes and when they come, and the odds of the network. A run is not exact to the
// event, as those of the simulator (sim_*_test.go) are: goroutines of one moment run in any order, so the network's dice
// fall to other packets, and memberlist draws from the process's randomness. A failure may need several runs of its seed.
func TestBubble(t *testing.T) {
	var simulated, slowest time.Duration
	faults := map[string]int{}
	writes := 0
	for i := range *bubbleSearch.runs {
		synctest.Test(t, func(t *testing.T) {
			b := newBubble(t, *bubbleSearch.seed+uint64(i))
			slowest = max(slowest, b.play())
			simulated += time.Since(b.began)
			for f, n := range b.faults {
				faults[f] += n
			}
			writes += len(b.acked)
		})
		if t.Failed() {
			break
		}
	}
	t.Logf("%d runs, %s simulated, %d acknowledged writes, faults %v; whole at the latest %s after the last fault",
		*bubbleSearch.runs, simulated.Round(time.Second), writes, faults, slowest)
}

// play makes one random run: up to a minute and a half of faults and writes, or more where a cut is long, then peace. It
// returns how long the fleet then took to be whole.
func (b *bubble) play() time.Duration {
	defer b.stop()
	b.wait(time.Duration(b.rng.IntN(8)) * time.Second)
	end := time.Now().Add(30*time.Second + time.Duration(b.rng.IntN(60))*time.Second)
	for time.Now().Before(end) && !b.t.Failed() {
		b.wait(time.Duration(b.rng.ExpFloat64() * float64(2*time.Second)))
		if b.rng.IntN(5) > 1 {
			b.write()
		} else {
			b.fault()
		}
	}
	b.peace()
	took, why := b.awaitWhole(bubbleWholeWithin)
	if why != "" {
		b.dump()
		b.fail("%s after the last fault the fleet is not whole: %s", took, why)
		return took
	}
	b.writing.Wait()
	b.wait(5 * time.Second)
	if _, why := b.awaitWhole(3 * time.Second); why != "" {
		b.fail("the fleet does not stay whole: %s", why)
	}
	b.check()
	return took
}

// fault makes one thing go wrong, or some right again.
func (b *bubble) fault() {
	n := b.nodes[b.rng.IntN(len(b.nodes))]
	switch b.rng.IntN(14) {
	case 0, 1:
		b.kill(n, b.rng.IntN(2) == 0)
		if b.rng.IntN(3) == 0 {
			b.wipe(n)
		}
	case 2, 3, 4:
		for _, p := range b.nodes {
			if b.rng.IntN(2) == 0 {
				b.start(p)
			}
		}
	case 5:
		b.pause(n, time.Duration(b.rng.IntN(8000))*time.Millisecond)
	case 6, 7:
		b.cutSome(n)
	case 8, 9:
		b.note("mend")
		b.net.mend()
	case 10:
		b.note("loss")
		b.net.odds([]float64{0, 0.01, 0.05, 0.3}[b.rng.IntN(4)], []float64{0, 0.02, 0.2}[b.rng.IntN(3)])
	case 11:
		b.note("clock")
		n.offset.Store(int64(b.rng.IntN(40)-20) * int64(time.Second))
	case 12:
		b.longCut(n.host.region)
	case 13:
		b.note("all restart")
		for _, p := range b.nodes {
			b.kill(p, b.rng.IntN(4) == 0)
		}
		for _, p := range b.nodes {
			b.wait(time.Duration(b.rng.IntN(500)) * time.Millisecond)
			b.start(p)
		}
	}
}

// cutSome cuts a region or a node off from some others, in one direction or both.
func (b *bubble) cutSome(n *bubbleNode) {
	b.note("cut")
	who := n.host.region
	if b.rng.IntN(2) == 0 {
		who = n.name
	}
	for _, other := range b.regions {
		if other == who || b.rng.IntN(3) == 0 {
			continue
		}
		b.net.cut(who, other)
		if b.rng.IntN(3) > 0 {
			b.net.cut(other, who)
		}
	}
}

// longCut parts a region from all others for longer than memberlist remembers its dead, while both sides go on writing.
func (b *bubble) longCut(region string) {
	b.note("long cut")
	for _, other := range b.regions {
		if other != region {
			b.net.cut(region, other)
			b.net.cut(other, region)
		}
	}
	for end := time.Now().Add(45*time.Second + time.Duration(b.rng.IntN(30))*time.Second); time.Now().Before(end); {
		b.wait(time.Duration(b.rng.ExpFloat64() * float64(4*time.Second)))
		b.write()
	}
	b.net.mend()
}

// peace ends all faults.
func (b *bubble) peace() {
	b.net.mend()
	b.net.odds(0, 0)
	for _, n := range b.nodes {
		n.offset.Store(0)
		b.start(n)
	}
}

// fail tells of a broken invariant, and how to see it again.
func (b *bubble) fail(format string, args ...any) {
	b.t.Helper()
	b.t.Errorf("seed %d at %s: %s\nagain: go test ./routing/mesh -run TestBubble -v -bubble.runs 1 -bubble.seed %d",
		b.seed, time.Since(b.began), fmt.Sprintf(format, args...), b.seed)
}
