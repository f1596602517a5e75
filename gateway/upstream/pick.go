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
	rankEjected
	rankTried // an earlier attempt of the same request failed on it
	ranks
)

// acquire takes a slot on an origin for one attempt. tried are the origins of the request's earlier attempts. A refusal
// is CauseAllEjected, CauseBreakerOpen, CauseAtBound or CauseShed.
func (p *Pool) acquire(tried []*origin, key uint64, priority int) (lease, string) {
	var space [16]*origin
	m := p.members.Load()
	panicking := p.panicking.Load()
	refusal := CauseAllEjected
	for rank := range ranks {
		if rank == rankTried && len(tried) == 0 {
			break
		}
		candidates := p.candidates(m, space[:0], rank, tried, panicking)
		for len(candidates) > 0 {
			i := p.choose(m, candidates, key)
			l, refused := candidates[i].lease(priority)
			if refused == "" {
				if panicking {
					p.metrics.panicked.Inc()
				}
				return l, ""
			}
			if refusal != CauseAtBound && refusal != CauseShed { // having no room is nearer to being served than an open breaker
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
func (p *Pool) candidates(m *members, to []*origin, rank int, tried []*origin, panicking bool) []*origin {
	for _, o := range m.list {
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
	health := o.health()
	switch {
	case health == routing.Down && !panicking:
		return ranks
	case o.ejected(o.pool.o.Now):
		return rankEjected
	case health == routing.Draining:
		return rankDraining
	case health == routing.Unknown && !panicking:
		return rankUnknown
	}
	return rankUp
}
