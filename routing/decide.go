package routing

import "math"

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
func (s *Snapshot) Decide(dst []Choice, svc int, c Client) Decision {
	service, ready := &s.Services[svc], &s.ready[svc]
	dst = append(dst[:0], ready.choices...)
	t := ready.tally
	rule := service.rule(c.Country)
	if ready.shares || rule != nil {
		t = s.personal(dst, service, rule, &c)
	}
	if c.RTT == nil && c.Point.Located {
		s.distances(dst, c.Point.vector())
	} else {
		s.distancesMixed(dst, &c)
	}
	mode := s.mode(t)
	s.applyMode(dst, mode)
	s.rank(dst, service.Policy, c.Key)
	usable := 0
	for usable < len(dst) && dst[usable].tier <= lastUsable {
		usable++
	}
	explainOrder(dst[:usable], service.Policy)
	if c.Named > 0 {
		byName(dst[:usable], c.Named-1)
		return Decision{Choices: dst, Usable: usable, Mode: mode}
	}
	if c.Explore && rule == nil && mode == Normal && service.Policy == Nearest {
		explore(dst[:usable])
	}
	return Decision{Choices: dst, Usable: usable, Mode: mode}
}

// ready is what a service's decisions have in common, whoever the client is.
type ready struct {
	choices []Choice // by region
	tally   tally
	shares  bool // a drain or a spill sends some clients on
}

func (s *Snapshot) prepare(service *Service) ready {
	var r ready
	for i, p := range service.Places {
		ch := Choice{Region: i}
		s.classify(&ch, service)
		r.tally.count(ch.tier)
		r.choices = append(r.choices, ch)
		r.shares = r.shares || s.Regions[i].Draining > 0 || p.Drained > 0 || p.Spill > 0 || p.Return > 0
	}
	return r
}

func (t *tally) count(in tier) {
	switch {
	case in <= lastUsable:
		t.candidates++
	case in == tierDrained:
		t.drained++
	case in == tierDown:
		t.down++
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
func (s *Snapshot) personal(cs []Choice, service *Service, rule *Rule, c *Client) (t tally) {
	key := c.Key
	for i := range cs {
		ch, p := &cs[i], &service.Places[i]
		switch {
		case ch.tier > lastUsable:
		case inShare(s.Regions[i].Draining, key, s.hashes[i], saltDrain), inShare(p.Drained, key, s.hashes[i], saltDrain):
			ch.State, ch.Reason, ch.tier = Draining, DrainedRegion, tierDrained
		case ch.tier == tierUp && inShare(p.Return, key, s.hashes[i], saltReturn):
			ch.Reason, ch.tier = Returning, tierFull
		case ch.tier == tierUp && s.sentOn(p, i, c):
			ch.Reason, ch.tier = Full, tierFull
		}
		if rule != nil && !rule.Allowed[i] {
			reside(ch, rule.Strict)
		}
		t.count(ch.tier)
	}
	return t
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
	if mode == Normal || mode == Unservable {
		return
	}
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

// rankKey puts all that ranks a choice into one number, the lowest first, with its region's index at the end: sorting
// numbers is many times as fast as sorting choices.
func rankKey(ch *Choice, p Policy) uint64 {
	key := uint64(ch.tier)<<60 | uint64(ch.Region)
	if p != Weighted {
		key |= uint64(ch.order)<<52 | uint64(ch.cost)<<regionBits
	}
	return key
}

const (
	regionBits = 20 // of a rank key: fleets have at most a million regions
	// stackRegions is the fleet that is ranked without allocating.
	stackRegions = 64
)

// rank sorts the choices, which stand in the order of their regions. It is an insertion sort, since fleets have tens of
// regions, and it begins with the order that the client's nearest region would see: that is nearly the client's own.
func (s *Snapshot) rank(cs []Choice, p Policy, client uint64) {
	var room [2][stackRegions]uint64
	plain, keys := room[0][:0], room[1][:]
	if len(cs) > stackRegions {
		plain, keys = make([]uint64, 0, len(cs)), make([]uint64, len(cs))
	}
	nearest := uint64(math.MaxUint64)
	for i := range cs {
		k := rankKey(&cs[i], p)
		plain = append(plain, k)
		nearest = min(nearest, uint64(cs[i].cost)<<regionBits|uint64(i))
	}
	keys = keys[:len(cs)]
	if s.around == nil {
		for i, k := range plain {
			insert(keys, i, k)
		}
	} else if len(cs) > 0 {
		for i, r := range s.around[nearest&(1<<regionBits-1)] {
			insert(keys, i, plain[r])
		}
	}
	s.orderTies(keys, cs, client)
	permute(cs, keys)
}

// insert puts k among the first n keys, which are in order.
func insert(keys []uint64, n int, k uint64) {
	for ; n > 0 && keys[n-1] > k; n-- {
		keys[n] = keys[n-1]
	}
	keys[n] = k
}

// permute puts the choice of region keys[i] at i, going round each cycle of the permutation once. It uses keys up.
func permute(cs []Choice, keys []uint64) {
	const done = math.MaxUint64
	for start := range cs {
		if keys[start] == done {
			continue
		}
		first := cs[start]
		at := start
		for {
			from := int(keys[at] & (1<<regionBits - 1))
			keys[at] = done
			if from == start {
				cs[at] = first
				break
			}
			cs[at] = cs[from]
			at = from
		}
	}
}

// orderTies orders each run of equally ranked candidates by weighted rendezvous hashing, so that each region gets its
// weight's share of the clients, a client keeps its region, and only the clients of a region that goes must move.
// (Thaler and Ravishankar 1998; weights after Schindelhauer and Schomaker 2005.)
func (s *Snapshot) orderTies(keys []uint64, cs []Choice, client uint64) {
	for i := 0; i < len(keys); {
		j := i + 1
		for j < len(keys) && keys[j]>>regionBits == keys[i]>>regionBits {
			j++
		}
		if j-i > 1 {
			s.orderRun(keys[i:j], cs, client)
		}
		i = j
	}
}

func (s *Snapshot) orderRun(run []uint64, cs []Choice, client uint64) {
	var room [stackRegions]float64
	scores := room[:0]
	if len(run) > stackRegions {
		scores = make([]float64, 0, len(run))
	}
	for i, k := range run {
		score := s.score(&cs[k&(1<<regionBits-1)], client)
		scores = append(scores, score)
		j := i
		for ; j > 0 && scores[j-1] > score; j-- {
			scores[j], run[j] = scores[j-1], run[j-1]
		}
		scores[j], run[j] = score, k
	}
}

// score is the rendezvous score of a region for a client: exponentially distributed with the weight as its rate, lowest
// wins.
func (s *Snapshot) score(c *Choice, key uint64) float64 {
	u := (float64(mix(key^s.hashes[c.Region])>>11) + 0.5) / (1 << 53)
	return -math.Log(u) / math.Max(float64(c.Weight), 1e-3)
}

// explainOrder gives each candidate without a reason of its own the reason why it is not the first.
func explainOrder(cs []Choice, p Policy) {
	for i := range cs {
		switch ch := &cs[i]; {
		case i == 0 && ch.tier == tierFull && ch.Reason == Full:
			ch.Reason = FullToo
		case i == 0:
			ch.Reason = Chosen
		case ch.tier != tierUp || ch.State != Up:
			// keeps the reason it was classified with
		case ch.order != cs[0].order:
			ch.Reason = LaterInOrder
		case p != Weighted && ch.cost != cs[0].cost:
			ch.Reason = Farther
		default:
			ch.Reason = ByWeight
		}
	}
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
