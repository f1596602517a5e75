package mesh

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"
)

// The figures of the mesh, in simulated time:
//
//	go test ./routing/mesh -run TestSimFigures -v -timeout 0 -sim.figures
//	go test ./routing/mesh -run TestSimQuiet -v -timeout 0 -sim.hours 100      false verdicts, 30 nodes in 10 regions
//	go test ./routing/mesh -run TestSimQuiet -v -timeout 0 -sim.hours 1 -sim.fleet 30x10
//	go test ./routing/mesh -run TestNodeCost -v -mesh.cost 60s                 bytes and CPU of a real process among 300
var (
	figures    = flag.Bool("sim.figures", false, "measure all figures, which takes minutes, not only a few samples of them")
	quietHours = flag.Float64("sim.hours", 0.02, "simulated hours of TestSimQuiet")
	quietFleet = flag.String("sim.fleet", "10x3", "regions x nodes a region of TestSimQuiet")
)

// earth gives pairs of regions one-way delays from 5 to 150 ms.
func (s *sim) earth() (most time.Duration) {
	way := map[[2]string]time.Duration{}
	regions := s.regions()
	for i, a := range regions {
		way[[2]string{a, a}] = 300 * time.Microsecond
		for _, b := range regions[:i] {
			d := time.Duration(5+s.rng.IntN(146)) * time.Millisecond
			most = max(most, d)
			way[[2]string{a, b}], way[[2]string{b, a}] = d, d
		}
	}
	s.oneWay = func(a, b string) time.Duration { return way[[2]string{a, b}] }
	return most + most/50
}

// settled is a whole fleet.
func settled(t *testing.T, seed uint64, regions, perRegion int) (*sim, time.Duration) {
	t.Helper()
	s := newSim(seed)
	s.fleet(regions, perRegion)
	most := s.earth()
	for _, n := range s.nodes {
		s.start(n)
	}
	if s.awaitWhole(time.Minute) < 0 {
		t.Fatal(s.whole())
	}
	s.run(s.now + 5*time.Second)
	return s, most
}

// flight is a write on its way.
type flight struct {
	n     *simNode
	key   string
	stamp Stamp
	start time.Duration // on the writer's disk
}

// reachAll writes a register every tenth of a second and measures when the last live node has each, to the accuracy of
// step, from when it was on the writer's disk.
func reachAll(s *sim, writes int, step time.Duration) (all []time.Duration, lost int) {
	var way []*flight
	next := s.now
	for k := 0; k < writes || len(way) > 0; {
		if k < writes && s.now >= next {
			n, key := s.nodes[s.rng.IntN(len(s.nodes))], fmt.Sprintf("purge/%d", k)
			s.set(n, key, "x", WaitNode)
			way, next, k = append(way, &flight{n: n, key: key}), s.now+100*time.Millisecond, k+1
		}
		s.run(s.now + step)
		way = slices.DeleteFunc(way, func(f *flight) bool {
			e, ok := f.n.core.table.entries[f.key]
			switch {
			case !ok:
				return false
			case f.start == 0:
				f.start, f.stamp = s.now, e.Stamp
			}
			if s.now-f.start > 20*time.Second {
				lost++
				return true
			}
			for _, p := range s.nodes {
				if p.core.table.entries[f.key].Stamp != f.stamp {
					return false
				}
			}
			all = append(all, s.now-f.start)
			return true
		})
	}
	return all, lost
}

func TestSimFigures(t *testing.T) {
	t.Run("a register reaches all, no loss", func(t *testing.T) {
		s, most := settled(t, 11, 10, 3)
		all, lost := reachAll(s, 40, 500*time.Microsecond)
		t.Logf("30 nodes in 10 regions: p50 %s, most %s; the largest one-way delay is %s", quantile(all, 0.5), quantile(all, 1), most)
		if lost > 0 || quantile(all, 1) > most+10*time.Millisecond {
			t.Errorf("%d lost, slowest %s", lost, quantile(all, 1))
		}
	})
	t.Run("a register reaches all, 30% loss", func(t *testing.T) {
		s, most := settled(t, 12, 10, 3)
		s.loss, s.datagram = 0.3, true
		writes := 60
		if *figures {
			writes = 2000
		}
		all, lost := reachAll(s, writes, 20*time.Millisecond)
		t.Logf("30 nodes in 10 regions: p50 %s, p99 %s, p99.9 %s; the largest one-way delay is %s", quantile(all, 0.5), quantile(all, 0.99), quantile(all, 0.999), most)
		if lost > 0 || quantile(all, 0.999) > 2*time.Second {
			t.Errorf("%d lost, p99.9 %s", lost, quantile(all, 0.999))
		}
	})
	t.Run("a region is killed or cut off", func(t *testing.T) {
		for _, silent := range []bool{false, true} {
			s, most := settled(t, 13, 10, 3)
			limit := 500*time.Millisecond + most
			if silent {
				limit = 2500 * time.Millisecond
			}
			var slowest time.Duration
			for _, region := range s.regions() {
				slowest = max(slowest, s.lose(t, region, silent))
			}
			t.Logf("silent %t: known to all others after at most %s; the largest one-way delay is %s", silent, slowest, most)
			if slowest > limit {
				t.Errorf("silent %t: %s is more than %s", silent, slowest, limit)
			}
		}
	})
	t.Run("300 nodes", func(t *testing.T) {
		if !*figures {
			t.Skip("it takes minutes: -sim.figures")
		}
		figures300(t)
	})
}

// lose takes a region away, measures until every other node finds each of its nodes unreachable, and gives it back.
func (s *sim) lose(t *testing.T, region string, silent bool) time.Duration {
	t.Helper()
	start := s.now
	for _, n := range s.nodes {
		switch {
		case n.region == region && !silent:
			s.kill(n, false)
		case n.region != region && silent:
			s.cuts[[2]string{region, n.region}], s.cuts[[2]string{n.region, region}] = true, true
		}
	}
	for s.known(region) < len(s.nodes) && s.now-start < 20*time.Second {
		s.run(s.now + 10*time.Millisecond)
	}
	took := s.now - start
	clear(s.cuts)
	for _, n := range s.nodes {
		s.start(n)
	}
	if s.awaitWhole(time.Minute) < 0 {
		t.Fatal(s.whole())
	}
	s.run(s.now + time.Second)
	return took
}

// known counts the nodes that find all of a region unreachable, those of the region itself counted along.
func (s *sim) known(region string) (count int) {
	for _, n := range s.nodes {
		all := true
		for _, p := range s.nodes {
			if n.region != region && p.region == region && n.core.members[p.name].seen() != unreachable {
				all = false
			}
		}
		if all {
			count++
		}
	}
	return count
}

func figures300(t *testing.T) {
	s, most := settled(t, 14, 30, 10)
	s.run(s.now + 40*time.Second) // links that stood in while the fleet started are let go
	was := map[string]uint64{}
	for _, n := range s.nodes {
		was[n.name] = n.sent + n.received
	}
	const span = 30 * time.Second
	s.run(s.now + span)
	var mostBytes, sum uint64
	for _, n := range s.nodes {
		mostBytes = max(mostBytes, n.sent+n.received-was[n.name])
		sum += n.sent + n.received - was[n.name]
	}
	rate := func(b uint64) float64 { return float64(b) / span.Seconds() / 1000 }
	t.Logf("idle, sent and received by a node over the peer channel, HTTP/2 and TLS included: %.1f KB/s on average, at most %.1f",
		rate(sum/uint64(len(s.nodes))), rate(mostBytes))
	if rate(mostBytes) > 20 {
		t.Errorf("more than 20 KB/s")
	}
	n := s.nodes[137]
	s.kill(n, false)
	s.run(s.now + 10*time.Second)
	clear(n.disk)
	start := s.now
	s.start(n)
	for !n.core.ready && s.now-start < time.Minute {
		s.run(s.now + 10*time.Millisecond)
	}
	t.Logf("an empty disk joins: ready after %s", s.now-start)
	if s.now-start > 3*time.Second {
		t.Error("more than 3 s")
	}
	s.run(s.now + 10*time.Second)
	all, lost := reachAll(s, 10, 2*time.Millisecond)
	t.Logf("a register reaches all after at most %s; the largest one-way delay is %s", quantile(all, 1), most)
	if lost > 0 || quantile(all, 1) > most+10*time.Millisecond {
		t.Errorf("%d lost, slowest %s", lost, quantile(all, 1))
	}
	killed := s.lose(t, "r07", false)
	cut := s.lose(t, "r11", true)
	t.Logf("a region of ten is killed: known to all after %s; cut off: %s", killed, cut)
	if killed > 500*time.Millisecond+most || cut > 2500*time.Millisecond {
		t.Error("too late")
	}
}
