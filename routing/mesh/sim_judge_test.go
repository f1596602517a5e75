package mesh

import (
	"testing"
	"time"

	"landfall/healthcheck"
	"landfall/routing"
)

// jury is what the gateways of a simulated fleet find: at each node a healthcheck.Judge, fed as package gateway feeds its
// own, with a Ballot over what the node's core knows; and the routing decision that comes of it. It checks each verdict.
type jury struct {
	s       *sim
	quorum  string
	regions []string
	seats   []*seat // by node
	lastBad map[[2]string]time.Duration
	lastAny map[[2]string]time.Duration
	blips   map[[2]string]bool // by node and region: it has reached none of the region since the last look, for a moment at least
	found   int                // verdicts that a region is down
	onDown  func(n *simNode, region, evidence string)
	fail    func(format string, args ...any)
	buf     []routing.Choice

	planted func(st *seat, nodes map[string][]routing.Node) // a bug that the checks must find; nil: none
}

type seat struct {
	judge *healthcheck.Judge
	life  int
	calm  bool // at the last look nothing was worth thinking about
}

func newJury(s *sim, fail func(string, ...any)) *jury {
	j := &jury{
		s: s, quorum: "majority", regions: s.regions(), fail: fail, lastBad: map[[2]string]time.Duration{}, lastAny: map[[2]string]time.Duration{},
		blips: map[[2]string]bool{}, onDown: func(*simNode, string, string) {},
	}
	tell := s.onEvent
	s.onEvent = func(n *simNode, e event) {
		if tell(n, e); e.kind == "node.unreachable" {
			j.blip(n, s.nodes[s.index[e.subject]].region)
		}
	}
	for range s.nodes {
		j.seats = append(j.seats, &seat{})
	}
	return j
}

// look lets each node that runs find its verdicts.
func (j *jury) look() {
	j.follow()
	for i, n := range j.s.nodes {
		if n.up && n.frozen <= j.s.now {
			j.lookAt(j.seats[i], n)
		}
	}
}

// newcomer is how long a node that has started may find a region down because it has met only dead nodes of it. It does
// not serve by then. One that was cut off from its start on is a newcomer when the cut heals, until it has met them all.
const newcomer = 5 * time.Second

// recently is how old what others see may be when a verdict is found by it: a node that was paused wakes with old words.
const recently = 12 * time.Second

// blip notes that a node has just lost sight of another, if it now reaches none of that one's region.
func (j *jury) blip(n *simNode, region string) {
	for _, mb := range n.core.order {
		if mb.info.Region == region && mb.reach.standing == reachable {
			return
		}
	}
	j.blips[[2]string{n.name, region}] = true
}

// follow notes which region can't reach which: the truth that verdicts are held against.
func (j *jury) follow() {
	good, bad := map[[2]string]int{}, map[[2]string]int{}
	for _, n := range j.s.nodes {
		if !n.up || n.frozen > j.s.now {
			continue
		}
		reached, not := map[string]bool{}, map[string]bool{}
		for _, mb := range n.core.order {
			if mb.info.Region == n.region {
				continue
			}
			switch mb.reach.standing {
			case reachable:
				reached[mb.info.Region] = true
			case unreachable:
				not[mb.info.Region] = true
			}
		}
		for region := range not {
			if !reached[region] {
				bad[[2]string{n.region, region}]++
			}
		}
		for _, region := range j.regions {
			if reached[region] && j.blips[[2]string{n.name, region}] {
				delete(reached, region)
				bad[[2]string{n.region, region}]++
			}
		}
		for region := range reached {
			good[[2]string{n.region, region}]++
		}
	}
	clear(j.blips)
	for pair := range bad { // most of the region's nodes that look reach none of the other's
		j.lastAny[pair] = j.s.now
		if bad[pair] >= good[pair] {
			j.lastBad[pair] = j.s.now
		}
	}
	for pair := range good {
		j.lastAny[pair] = j.s.now
	}
}

// calm tells whether nothing at a node can lead to any verdict but up, without a full look: all live, and each is found
// unreachable by at most one of many.
func (j *jury) calm(n *simNode) bool {
	at := j.s.epoch().Add(j.s.now)
	for _, mb := range n.core.order {
		noes := mb.noes
		if mb.reach.standing == unreachable {
			noes++
		}
		if mb.seen() != reachable || noes > 1 || mb.yeses < 16 || mb.state(at) != Serving {
			return false
		}
	}
	return len(n.core.order) == len(j.s.nodes)-1
}

func (j *jury) lookAt(st *seat, n *simNode) {
	if st.life != n.life {
		*st = seat{judge: healthcheck.NewJudge(healthcheck.Policy{Hold: 2 * time.Second, Distrust: 0.5}), life: n.life}
	}
	calm := j.calm(n)
	if calm && st.calm {
		return
	}
	st.calm = calm
	at := j.s.epoch().Add(j.s.now)
	ballot := healthcheck.NewBallot(j.observations(n, at), j.quorum)
	var sights []healthcheck.Sight
	nodes, others, heard := map[string][]routing.Node{}, map[string]bool{}, map[string]bool{}
	for _, region := range j.regions {
		seen := healthcheck.Sight{Subject: healthcheck.Subject{Region: region}, State: routing.Unknown}
		if region == n.region {
			seen.State = routing.Up
			nodes[region] = append(nodes[region], routing.Node{Name: n.name})
		}
		for _, mb := range n.core.order {
			if mb.info.Region != region {
				continue
			}
			nodes[region] = append(nodes[region], routing.Node{Name: mb.name})
			others[region] = others[region] || region != n.region || mb.info.State != Leaving
			heard[region] = heard[region] || mb.seen() == reachable
			alive := mb.live(at)
			if alive {
				alive, seen.Evidence = ballot.Reachable(mb.name, region)
			}
			switch {
			case alive:
				seen.State = routing.Up
			case seen.State == routing.Unknown:
				seen.State = routing.Down
			}
		}
		seen.Silent = others[region] && !heard[region]
		st.calm = st.calm && seen.State == routing.Up && !seen.Silent
		sights = append(sights, seen)
	}
	for _, c := range st.judge.Step(at, n.region, sights, nil) {
		if c.Is == routing.Down {
			j.down(n, c)
		}
	}
	for _, s := range sights {
		st.calm = st.calm && st.judge.Verdict(s.Subject).State == routing.Up
	}
	j.answer(n, st, nodes)
}

// observations are those of gateway.view.
func (j *jury) observations(n *simNode, at time.Time) []healthcheck.Observation {
	self := healthcheck.Observation{Observer: n.name, ObserverRegion: n.region, Watches: []string{}}
	all := []healthcheck.Observation{self}
	for _, mb := range n.core.order {
		if mb.reach.standing != untried {
			all[0].Watches = append(all[0].Watches, mb.name)
		}
		if mb.reach.standing == unreachable {
			all[0].Unreachable = append(all[0].Unreachable, mb.name)
		}
		if m := mb.view(at); m.State != Dead {
			all = append(all, healthcheck.Observation{
				Observer: m.Name, ObserverRegion: m.Region, Watches: m.Watches, Unreachable: m.Unreachable, Unheard: !m.Reachable,
			})
		}
	}
	return all
}

// deadTo tells whether a node takes a whole region for dead.
func (j *jury) deadTo(n *simNode, region string) bool {
	at := j.s.epoch().Add(j.s.now)
	for _, mb := range n.core.order {
		if mb.info.Region == region && mb.live(at) {
			return false
		}
	}
	return region != n.region
}

// wordless tells whether a node hears a region, maybe its own, that has told of no link with another.
func (j *jury) wordless(n *simNode, from, region string) (wordless bool) {
	wordless = from == n.region
	for _, mb := range n.core.order {
		if from == n.region && mb.info.Region == region && mb.reach.standing != untried {
			return false
		}
		if mb.info.Region != from || mb.seen() != reachable {
			continue
		}
		wordless = true
		for _, name := range mb.watches {
			if j.s.nodes[j.s.index[name]].region == region {
				return false
			}
		}
	}
	return wordless
}

// down holds a verdict against the truth: most regions can't reach the fallen one now or could not a moment ago, but for
// those that the node takes for dead and those that have not looked.
func (j *jury) down(n *simNode, c healthcheck.Change) {
	j.found++
	region := c.Subject.Region
	j.onDown(n, region, c.Evidence)
	if c.Evidence == "" || j.s.epoch().Add(j.s.now).Sub(n.core.started) < newcomer || !j.metAll(n, region) {
		return // nobody votes on what is gone, silent for long to all that are heard; and who just started knows few nodes yet
	}
	against, others := 0, 0
	for _, from := range j.regions {
		pair := [2]string{from, region}
		if from == region || j.deadTo(n, from) || j.wordless(n, from, region) || j.s.now-j.lastAny[pair] > recently || j.lastAny[pair] == 0 {
			continue
		}
		others++
		if t, ok := j.lastBad[pair]; ok && j.s.now-t <= recently {
			against++
		}
	}
	if against*2 <= others {
		j.fail("%s finds %s down by the word of %d of %d regions: %s", n.name, region, against, others, c.Evidence)
	}
}

// metAll tells whether a node knows every running node of a region.
func (j *jury) metAll(n *simNode, region string) bool {
	for _, p := range j.s.nodes {
		if p.region == region && p.up && n.core.members[p.name] == nil {
			return false
		}
	}
	return true
}

// answer checks that among the regions that the decision names one has a node, whatever was found.
func (j *jury) answer(n *simNode, st *seat, nodes map[string][]routing.Node) {
	if j.planted != nil {
		j.planted(st, nodes)
	}
	s := routing.Snapshot{Panic: 0.5, AllDown: -1, Services: []routing.Service{{Name: "web"}}}
	for _, region := range j.regions {
		dead := st.judge.Verdict(healthcheck.Subject{Region: region}).State == routing.Down || len(nodes[region]) == 0
		s.Regions = append(s.Regions, routing.Region{Name: region, Nodes: nodes[region], Dead: dead})
		s.Services[0].Places = append(s.Services[0].Places, routing.Place{HasPool: true, Pool: routing.Up, Weight: 1})
	}
	d := routing.NewSnapshot(s).Decide(j.buf, 0, routing.Client{})
	j.buf = d.Choices[:0]
	for _, c := range d.Choices[:d.Usable] {
		if len(s.Regions[c.Region].Nodes) > 0 {
			return
		}
	}
	j.fail("%s has no answer left", n.name)
}

// A jury that goes by any one region's word is caught.
func TestSimMinorityIsCaught(t *testing.T) {
	for _, quorum := range []string{"majority", "any"} {
		s, _ := settled(t, 51, 5, 2)
		caught := 0
		j := newJury(s, func(string, ...any) { caught++ })
		j.quorum = quorum
		for range 8 {
			s.run(s.now + 250*time.Millisecond)
			j.look()
		}
		s.cuts[[2]string{"r01", "r03"}], s.cuts[[2]string{"r03", "r01"}] = true, true
		for range 40 {
			s.run(s.now + 250*time.Millisecond)
			j.look()
		}
		if (caught > 0) != (quorum == "any") {
			t.Errorf("quorum %s: %d verdicts of a minority were caught", quorum, caught)
		}
	}
}
