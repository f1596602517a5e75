package routing

import "math"

// tier is the coarse order of the candidates: every region of a lower tier comes before any of a higher one.
type tier uint8

const (
	tierUp tier = iota
	tierUnknown
	tierWeightZero
	tierDrained
	tierDown
	tierNoPool
)

// tally counts a service's regions by tier, to choose the mode.
type tally struct{ candidates, drained, down int }

// Decide ranks the regions for a client of service svc (an index into s.Services). The choices are appended to
// dst[:0]; with room for len(s.Regions) in it, nothing is allocated. Safe for concurrent use: s is only read.
func (s *Snapshot) Decide(dst []Choice, svc int, c Client) Decision {
	service := &s.Services[svc]
	dst = dst[:0]
	from := c.Point.vector()
	var t tally
	for i := range s.Regions {
		ch := s.classify(service, i)
		switch {
		case ch.tier <= tierWeightZero:
			t.candidates++
		case ch.tier == tierDrained:
			t.drained++
		case ch.tier == tierDown:
			t.down++
		}
		if c.Point.Located && s.Regions[i].Location.Located {
			ch.Source, ch.cosine = Geography, from.dot(s.vectors[i])
			ch.near = int32(math.Round(ch.cosine * nearSteps))
		}
		dst = append(dst, ch)
	}
	mode := s.mode(t)
	s.applyMode(dst, mode)
	byDistance := service.Policy == Nearest
	sortChoices(dst, byDistance)
	s.orderTies(dst, byDistance, c.Key)
	usable := 0
	for usable < len(dst) && dst[usable].tier <= tierWeightZero {
		usable++
	}
	explainOrder(dst[:usable], byDistance)
	return Decision{Choices: dst, Usable: usable, Mode: mode}
}

// classify tells what is known of region i for a service, whoever the client is.
func (s *Snapshot) classify(service *Service, i int) Choice {
	r, p := &s.Regions[i], &service.Places[i]
	ch := Choice{Region: i, State: p.Pool, Weight: p.Weight}
	switch {
	case !p.HasPool:
		ch.State, ch.Reason, ch.tier = Down, NoPool, tierNoPool
	case r.Dead:
		ch.State, ch.Reason, ch.tier = Down, NoNode, tierDown
	case p.Pool == Down:
		ch.Reason, ch.tier = PoolDown, tierDown
	case r.Drained:
		ch.State, ch.Reason, ch.tier = Draining, DrainedRegion, tierDrained
	case p.Weight == 0:
		ch.Reason, ch.tier = WeightZero, tierWeightZero
	case p.Pool == Unknown:
		ch.Reason, ch.tier = Unmeasured, tierUnknown
	}
	return ch
}

// mode chooses between the ordinary decision and its three exceptions. See the package comment.
func (s *Snapshot) mode(t tally) Mode {
	switch {
	case t.candidates+t.drained+t.down == 0:
		return Unservable
	case t.candidates == 0 && t.drained > 0:
		return LastResort
	case t.candidates == 0:
		return AllDownMode
	case float64(t.down) > s.Panic*float64(t.candidates+t.down):
		return PanicMode
	}
	return Normal
}

// applyMode turns regions that the mode lets through into candidates.
func (s *Snapshot) applyMode(cs []Choice, mode Mode) {
	named := s.AllDown
	if named >= 0 && cs[named].tier == tierNoPool {
		named = -1 // nobody there to send to: a node never withdraws the fleet's last answer
	}
	for i := range cs {
		switch ch := &cs[i]; {
		case mode == PanicMode && ch.tier == tierDown,
			mode == LastResort && ch.tier == tierDrained,
			mode == AllDownMode && ch.tier == tierDown && (named < 0 || named == i):
			ch.tier = tierUp
		case mode == AllDownMode && ch.tier == tierDown:
			ch.Reason = AllDownFallback
		}
	}
}

// before tells whether a ranks strictly before b, ties aside.
func before(a, b *Choice, byDistance bool) bool {
	if a.tier != b.tier {
		return a.tier < b.tier
	}
	if !byDistance {
		return false
	}
	if a.Source != b.Source {
		return a.Source > b.Source // a known distance before an unknown one
	}
	return a.near > b.near
}

// nearSteps is how finely distances are told apart: a step is 9 km for regions at the client's own place and under 100 m
// for those beyond 500 km, so that only regions at one place are ever equally far.
const nearSteps = 1e6

// sortChoices is a stable insertion sort: fleets have tens of regions, and it allocates nothing.
func sortChoices(cs []Choice, byDistance bool) {
	for i := 1; i < len(cs); i++ {
		c := cs[i]
		j := i
		for ; j > 0 && before(&c, &cs[j-1], byDistance); j-- {
			cs[j] = cs[j-1]
		}
		cs[j] = c
	}
}

// orderTies orders each run of equally ranked candidates by weighted rendezvous hashing, so that each region gets its
// weight's share of the clients, a client keeps its region, and only the clients of a region that goes must move.
// (Thaler and Ravishankar 1998; weights after Schindelhauer and Schomaker 2005.)
func (s *Snapshot) orderTies(cs []Choice, byDistance bool, key uint64) {
	for i := 0; i < len(cs); {
		j := i + 1
		for j < len(cs) && !before(&cs[j-1], &cs[j], byDistance) {
			j++
		}
		if run := cs[i:j]; len(run) > 1 {
			for a := 1; a < len(run); a++ {
				for b := a; b > 0 && s.score(&run[b], key) < s.score(&run[b-1], key); b-- {
					run[b], run[b-1] = run[b-1], run[b]
				}
			}
		}
		i = j
	}
}

// score is the rendezvous score of a region for a client: exponentially distributed with the weight as its rate, lowest
// wins.
func (s *Snapshot) score(c *Choice, key uint64) float64 {
	u := (float64(mix(key^s.hashes[c.Region])>>11) + 0.5) / (1 << 53)
	return -math.Log(u) / math.Max(float64(c.Weight), 1e-3)
}

// explainOrder gives each candidate without a reason of its own the reason why it is not the first.
func explainOrder(cs []Choice, byDistance bool) {
	for i := range cs {
		switch ch := &cs[i]; {
		case i == 0:
			ch.Reason = Chosen
		case ch.tier != tierUp || ch.State != Up:
			// keeps the reason it was classified with
		case before(&cs[0], ch, byDistance):
			ch.Reason = Farther
		default:
			ch.Reason = ByWeight
		}
	}
}
