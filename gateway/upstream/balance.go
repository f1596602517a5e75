package upstream

import (
	"math"
	"slices"
	"time"
)

// balance is how one of the best origins is chosen.
type balance uint8

const (
	leastRequest balance = iota
	peakEWMA
	roundRobin
	atRandom
	byHash
)

// balanceOf reads the name that a config uses; an unknown one is least_request, which is the default.
func balanceOf(name string) balance {
	switch name {
	case "ewma":
		return peakEWMA
	case "round_robin":
		return roundRobin
	case "random":
		return atRandom
	case "hash":
		return byHash
	}
	return leastRequest
}

// choose picks one of the candidates, by index.
func (p *Pool) choose(m *members, candidates []*origin, key uint64) int {
	if len(candidates) == 1 {
		return 0
	}
	switch p.balance {
	case roundRobin:
		return p.nextTurn(m, candidates)
	case atRandom:
		return p.draw(m, candidates, -1)
	case byHash:
		if key != 0 {
			return p.byKey(m, candidates, key)
		}
	case peakEWMA:
		now := p.o.Now().UnixNano()
		i := p.draw(m, candidates, -1)
		j := p.draw(m, candidates, i)
		if candidates[j].cost(now) < candidates[i].cost(now) {
			return j
		}
		return i
	}
	// The power of two choices: of two drawn at random, the one with fewer requests in flight. The draw heeds the weights,
	// so the comparison must too.
	i := p.draw(m, candidates, -1)
	j := p.draw(m, candidates, i)
	a, b := candidates[i], candidates[j]
	if b.inFlight.Load()*a.weight.Load() < a.inFlight.Load()*b.weight.Load() {
		return j
	}
	return i
}

// draw picks at random by weight; not is left out (-1: none).
func (p *Pool) draw(m *members, candidates []*origin, not int) int {
	n := len(candidates)
	if m.even && p.returning.Load() == 0 {
		if not < 0 {
			return min(int(p.o.Rand()*float64(n)), n-1)
		}
		i := min(int(p.o.Rand()*float64(n-1)), n-2)
		if i >= not {
			i++
		}
		return i
	}
	now := p.o.Now()
	total := 0.0
	for i, o := range candidates {
		if i != not {
			total += o.share(now)
		}
	}
	at, last := p.o.Rand()*total, 0
	for i, o := range candidates {
		if i == not {
			continue
		}
		last = i
		if at -= o.share(now); at < 0 {
			return i
		}
	}
	return last
}

// nextTurn follows the pool's schedule; an origin that returns slowly is passed over as often as its share says.
func (p *Pool) nextTurn(m *members, candidates []*origin) int {
	start := p.turn.Add(1)
	returning := p.returning.Load() > 0
	for k := range uint64(len(m.turns)) {
		o := m.list[m.turns[(start+k)%uint64(len(m.turns))]]
		i := slices.Index(candidates, o)
		if i < 0 || returning && p.o.Rand() >= o.factor(p.o.Now()) {
			continue
		}
		return i
	}
	return p.draw(m, candidates, -1)
}

// hashBound is how much more than its share an origin may have in flight before its keys spill over to the next entry of
// the table (consistent hashing with bounded loads, Mirrokni et al. 2018).
const hashBound = 1.25

// byKey finds the key's origin in Maglev's table, or the next one that is a candidate and not overloaded.
func (p *Pool) byKey(m *members, candidates []*origin, key uint64) int {
	inFlight, weights := int64(1), int64(0)
	for _, o := range candidates {
		inFlight += o.inFlight.Load()
		weights += o.weight.Load()
	}
	first := -1
	at, size := key%uint64(len(m.table)), uint64(len(m.table))
	for range 8 * len(m.list) {
		o := m.list[m.table[at]]
		if i := slices.Index(candidates, o); i >= 0 {
			bound := math.Ceil(hashBound * float64(inFlight) * float64(o.weight.Load()) / float64(weights))
			if float64(o.inFlight.Load()+1) <= bound {
				return i
			}
			if first < 0 {
				first = i
			}
		}
		at = (at + 1) % size // neighbours in the table are of different origins, so what spills over is spread
	}
	if first >= 0 {
		return first
	}
	return p.draw(m, candidates, -1)
}

// ewmaMemory is how long a latency is remembered: after it, a third of its weight is left.
const ewmaMemory = 10 * time.Second

// learnLatency moves the origin's peak-sensitive average: up at once, down slowly. Two cores may overwrite each other's
// step; the next one mends it.
func (o *origin) learnLatency(latency time.Duration, now int64) {
	old := math.Float64frombits(o.ewma.Load())
	sample := float64(latency)
	if sample < old {
		keep := math.Exp(-float64(now-o.ewmaAt.Load()) / float64(ewmaMemory))
		sample = old*keep + sample*(1-keep)
	}
	o.ewma.Store(math.Float64bits(sample))
	o.ewmaAt.Store(now)
}

// unmeasured is what an origin that has not answered yet is believed to take, once it has a request.
const unmeasured = float64(time.Second)

// cost is the latency that one more request can expect. An origin that was slow and got no requests since is forgiven.
func (o *origin) cost(now int64) float64 {
	latency := math.Float64frombits(o.ewma.Load())
	if age := now - o.ewmaAt.Load(); latency > 0 && age > int64(time.Second) {
		latency *= math.Exp(-float64(age) / float64(ewmaMemory))
	}
	inFlight := float64(o.inFlight.Load())
	if latency == 0 && inFlight > 0 {
		latency = unmeasured
	}
	return latency * (inFlight + 1) / float64(o.weight.Load())
}
