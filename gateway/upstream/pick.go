package upstream

import (
	"slices"

	"landfall/routing"
)

// The classes of origins, best first. Within a pool a class is used only when no origin of a better one takes the request.
const (
	rankUp = iota
	rankUnknown
	rankDraining
	rankTried // an earlier attempt of the same request failed on it
	ranks
)

// acquire takes a slot on an origin for one attempt. tried are the origins of the request's earlier attempts. A refusal
// is CauseAllEjected, CauseBreakerOpen or CauseAtBound.
func (p *Pool) acquire(tried []*origin) (lease, string) {
	var space [16]*origin
	refusal := CauseAllEjected
	for rank := range ranks {
		if rank == rankTried && len(tried) == 0 {
			break
		}
		candidates := p.candidates(space[:0], rank, tried)
		for len(candidates) > 0 {
			i := p.choose(candidates)
			l, refused := candidates[i].lease()
			if refused == "" {
				if p.panicking.Load() {
					p.metrics.panicked.Inc()
				}
				return l, ""
			}
			if refusal != CauseAtBound { // at its bound is nearer to being served than open
				refusal = refused
			}
			last := len(candidates) - 1
			candidates[i] = candidates[last]
			candidates = candidates[:last]
		}
	}
	return lease{}, refusal
}

// candidates appends the origins of one class.
func (p *Pool) candidates(to []*origin, rank int, tried []*origin) []*origin {
	panicking := p.panicking.Load()
	for _, o := range p.origins {
		r := o.rank(panicking)
		if r < rankTried && len(tried) > 0 && slices.Contains(tried, o) {
			r = rankTried
		}
		if r == rank {
			to = append(to, o)
		}
	}
	return to
}

func (o *origin) rank(panicking bool) int {
	switch o.health() {
	case routing.Up:
		return rankUp
	case routing.Unknown:
		if panicking {
			return rankUp
		}
		return rankUnknown
	case routing.Draining:
		return rankDraining
	}
	if panicking {
		return rankUp
	}
	return ranks
}

// choose is the power of two choices: of two drawn at random, the one with fewer requests in flight.
func (p *Pool) choose(candidates []*origin) int {
	n := len(candidates)
	if n == 1 {
		return 0
	}
	i := min(int(p.o.Rand()*float64(n)), n-1)
	j := min(int(p.o.Rand()*float64(n-1)), n-2)
	if j >= i {
		j++
	}
	if candidates[j].inFlight.Load() < candidates[i].inFlight.Load() {
		return j
	}
	return i
}
