package routing

import (
	"math"
	"slices"
)

// tier is the coarse order of the candidates: every region of a lower tier comes before any of a higher one.
type tier uint8

const (
	tierUp tier = iota
	tierFull
	tierUnknown
	tierWeightZero
	tierElsewhere // residency prefers others
	tierDrained
	tierDown
	tierNoPool
	tierForbidden
)

// lastUsable is the last tier whose regions are candidates.
const lastUsable = tierElsewhere

// tally counts a service's regions by tier, to choose the mode.
type tally struct{ candidates, drained, down int }

// Decide ranks the regions for a client of service svc (an index into s.Services). The choices are appended to
// dst[:0]; with room for len(s.Regions) in it and at most stackRegions of them, nothing is allocated. Safe for concurrent
// use: s is only read.
//
// What is the same for every client was prepared with the snapshot. A client's own part is one number for each region
// (see rankKey), which are sorted; only then are the choices written, once and in order.
func (s *Snapshot) Decide(dst []Choice, svc int, c Client) Decision {
	service, ready := &s.Services[svc], &s.ready[svc]
	choices, t := ready.choices, ready.tally
	from := c.Point.vector()
	rule := service.rule(c.Country)
	if ready.shares != nil || rule != nil {
		var own [stackRegions]Choice
		choices = append(own[:0], choices...)
		t = s.personal(choices, ready, service, rule, &c, from)
	}
	mode := s.mode(t)
	if mode != Normal && mode != Unservable {
		var excepted [stackRegions]Choice
		choices = append(excepted[:0], choices...)
		s.applyMode(choices, mode)
	}
	var room [stackRegions]uint64
	keys := room[:0]
	if len(choices) > stackRegions {
		keys = make([]uint64, 0, len(choices))
	}
	angles := c.RTT == nil && c.Point.Located
	shift := service.Policy.shift()
	if order := s.around.of(c.Point); angles && order != nil && shift == costShift {
		keys = s.rankByPlace(keys[:len(order)], order, choices, from)
	} else {
		keys = s.rankByAny(keys, choices, &c, from, shift)
	}
	s.orderTies(keys, shift, service, c.Key)
	dst = slices.Grow(dst[:0], len(keys))[:len(keys)]
	write(dst, keys, choices, angles)
	usable := explainOrder(dst, keys, shift)
	if c.Named > 0 {
		byName(dst[:usable], c.Named-1)
	} else if c.Explore && rule == nil && mode == Normal && service.Policy == Nearest {
		explore(dst[:usable])
	}
	return Decision{Choices: dst, Usable: usable, Mode: mode}
}

// ready is what a service's decisions have in common, whoever the client is.
type ready struct {
	choices []Choice // by region
	tally   tally
	shares  []int // the regions that send some clients on, for a drain, a spill or a return; nil: none
}

func (s *Snapshot) prepare(service *Service) ready {
	var r ready
	for i, p := range service.Places {
		ch := Choice{Region: i}
		s.classify(&ch, service)
		r.tally.add(ch.tier, 1)
		r.choices = append(r.choices, ch)
		if s.Regions[i].Draining > 0 || p.Drained > 0 || p.Spill > 0 || p.Return > 0 {
			r.shares = append(r.shares, i)
		}
	}
	return r
}

func (t *tally) add(in tier, n int) {
	switch {
	case in <= lastUsable:
		t.candidates += n
	case in == tierDrained:
		t.drained += n
	case in == tierDown:
		t.down += n
	}
}

// classify tells what is known of the choice's region for a service.
func (s *Snapshot) classify(ch *Choice, service *Service) {
	r, p := &s.Regions[ch.Region], &service.Places[ch.Region]
	ch.State, ch.Weight = p.Pool, p.Weight
	if service.Policy == Priority {
		ch.order = p.Order
	}
	switch {
	case !p.HasPool:
		ch.State, ch.Reason, ch.tier = Down, NoPool, tierNoPool
	case r.Dead:
		ch.State, ch.Reason, ch.tier = Down, NoNode, tierDown
	case p.Pool == Down && p.Shut:
		ch.Reason, ch.tier = DoorDown, tierDown
	case p.Pool == Down:
		ch.Reason, ch.tier = PoolDown, tierDown
	case r.Drained:
		ch.State, ch.Reason, ch.tier = Draining, DrainedRegion, tierDrained
	case p.Weight == 0:
		ch.Reason, ch.tier = WeightZero, tierWeightZero
	case p.Pool == Unknown:
		ch.Reason, ch.tier = Unmeasured, tierUnknown
	}
}

// personal changes the choices as drains, spills and residency want it for this client, and counts anew.
func (s *Snapshot) personal(cs []Choice, ready *ready, service *Service, rule *Rule, c *Client, from vector) tally {
	t := ready.tally
	for _, i := range ready.shares {
		ch := &cs[i]
		was := ch.tier
		s.share(ch, &service.Places[i], i, c, from)
		t.add(was, -1)
		t.add(ch.tier, 1)
	}
	if rule == nil {
		return t
	}
	t = tally{}
	for i := range cs {
		if !rule.Allowed[i] {
			reside(&cs[i], rule.Strict)
		}
		t.add(cs[i].tier, 1)
	}
	return t
}

// share sends a client on where it is in the share that region i gives away.
func (s *Snapshot) share(ch *Choice, p *Place, i int, c *Client, from vector) {
	switch {
	case ch.tier > lastUsable:
	case inShare(s.Regions[i].Draining, c.Key, s.hashes[i], saltDrain), inShare(p.Drained, c.Key, s.hashes[i], saltDrain):
		ch.State, ch.Reason, ch.tier = Draining, DrainedRegion, tierDrained
	case ch.tier == tierUp && inShare(p.Return, c.Key, s.hashes[i], saltReturn):
		ch.Reason, ch.tier = Returning, tierFull
	case ch.tier == tierUp && s.sentOn(p, i, c, from):
		ch.Reason, ch.tier = Full, tierFull
	}
}

// reside applies a residency rule to a region that it does not name.
func reside(ch *Choice, strict bool) {
	switch {
	case strict:
		ch.Reason, ch.tier = ResidencyForbids, tierForbidden
	case ch.tier < tierElsewhere:
		ch.Reason, ch.tier = ResidencyPrefers, tierElsewhere
	}
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
	if named >= 0 && cs[named].tier >= tierNoPool {
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

// explainOrder gives each candidate without a reason of its own the reason why it is not the first, and tells how many
// candidates there are.
func explainOrder(cs []Choice, keys []uint64, shift uint) (usable int) {
	for i, k := range keys {
		ch := &cs[i]
		if ch.tier > lastUsable {
			return i
		}
		switch apart := k ^ keys[0]; {
		case i == 0 && ch.Reason == Full:
			ch.Reason = FullToo
		case i == 0:
			ch.Reason = Chosen
		case ch.tier != tierUp || ch.State != Up:
			// keeps the reason it was classified with
		case apart>>shift == 0:
			ch.Reason = ByWeight
		case apart>>orderShift == 0:
			ch.Reason = Farther
		default:
			ch.Reason = LaterInOrder
		}
	}
	return len(keys)
}

// byName puts the region that was asked for first, where it is in the first one's tier and state.
func byName(cs []Choice, region int) {
	for i := range cs {
		if cs[i].tier != cs[0].tier || cs[i].State != cs[0].State {
			return
		}
		if cs[i].Region != region {
			continue
		}
		if i > 0 {
			named := cs[i]
			copy(cs[1:i+1], cs[:i])
			cs[0], cs[0].Reason, cs[1].Reason = named, ByName, ByName
		}
		return
	}
}

// The detour that exploring may cost a client, in round trip: half as much again, and this much in any case.
const (
	detourShare  = 0.5
	detourMillis = 30
)

// explore puts the runner-up first, where both are up and the detour is bounded.
func explore(cs []Choice) {
	if len(cs) < 2 || cs[0].tier != tierUp || cs[1].tier != tierUp || cs[0].State != Up || cs[1].State != Up {
		return
	}
	near, _ := cs[0].RTTMillis()
	if far, ok := cs[1].RTTMillis(); !ok || far > near+math.Max(near*detourShare, detourMillis) {
		return
	}
	cs[0], cs[1] = cs[1], cs[0]
	cs[0].Reason, cs[1].Reason = Explored, Explored
}
