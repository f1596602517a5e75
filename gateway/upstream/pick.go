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

// Full tells whether a request of that priority would be shed now: each origin that may be used has as much to do as it may
// have. It costs a few loads an origin, and takes nothing.
func (p *Pool) Full(priority int) bool { return p.room(priority) != "" }

// room is why an origin's bounds leave no room for a request of that priority, CauseShed or CauseAtBound; empty: they do, or
// no origin may be used at all, which is another matter.
func (p *Pool) room(priority int) (refusal string) {
	panicking := p.panicking.Load()
	for _, o := range p.members.Load().list {
		if o.rank(panicking) == ranks || o.breaker.shut() {
			continue
		}
		switch n := o.inFlight.Load() + 1; {
		case n > o.bound || o.pending.Load() >= o.waiters:
			if refusal == "" {
				refusal = CauseAtBound
			}
		case !o.limiter.admits(n, priority):
			refusal = CauseShed
		default:
			return ""
		}
	}
	return refusal
}

// Shed refuses a request of that priority without looking at it, and counts it as RoundTrip does; nil: there is room.
func (p *Pool) Shed(priority int) error {
	why := p.room(priority)
	if why == "" {
		return nil
	}
	p.metrics.refused[why].Inc()
	if why == CauseShed {
		p.metrics.shed[priority].Inc()
	}
	return refusalError(why)
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
