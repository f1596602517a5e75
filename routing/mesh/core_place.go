package mesh

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"time"

	"github.com/hashicorp/serf/coordinate"
)

// Coordinate is a node's place in a space where the distance between two nodes is about their round trip: Vivaldi with
// height (Dabek et al. 2004, Ledlie et al. 2007). It is worked out from the round trips of heartbeats, and tells of pairs of
// nodes of different regions that never measured each other. At is not to be modified.
type Coordinate struct{ At *coordinate.Coordinate }

// Estimate is the round trip between two nodes that their coordinates let expect.
func (c *Coordinate) Estimate(other *Coordinate) time.Duration { return c.At.DistanceTo(other.At) }

// Settled tells that the coordinate explains the round trips that were measured well enough to be gone by.
func (c *Coordinate) Settled() bool { return c.At.Error <= settledError }

// settledError is a mean error of estimates as a share, as a node's own measurements have it.
const settledError = 0.5

// How a coordinate travels: in steps of a tenth of a millisecond, its error in hundredths. What is beyond the bounds is no
// coordinate: round trips of more than 10 seconds are not taken either.
const (
	placeStep     = float64(100*time.Microsecond/time.Nanosecond) / 1e9 // seconds
	placeMost     = 10 / placeStep
	placeErrors   = 100
	maxPlaceError = 1.5 // before anything is measured
)

// place is this node's own coordinate, and what the other regions tell of theirs.
type place struct {
	client    *coordinate.Client
	regions   map[string]*Coordinate
	own, told *coordinate.Coordinate
	toldAt    time.Time // by the fleet's clock
	tellings  int       // in a row
}

// newPlace begins near the origin, each process at a point of its own: the client draws from the global source of
// randomness only where two nodes are at one point, and the same inputs are to give the same effects.
func newPlace(node, boot string) place {
	config := coordinate.DefaultConfig()
	client, _ := coordinate.NewClient(config) // fails only without dimensions
	start := coordinate.NewCoordinate(config)
	h := fnv.New64a()
	_, _ = h.Write([]byte(node + "\x00" + boot))
	for i := range start.Vec {
		_, _ = h.Write([]byte{byte(i)})
		start.Vec[i] = (float64(h.Sum64()>>11)/(1<<53) - 0.5) * startSpread
	}
	_ = client.SetCoordinate(start) // it is finite and has the right dimensions
	return place{client: client, regions: map[string]*Coordinate{}, own: start, told: start}
}

// startSpread is how far apart nodes begin, in seconds.
const startSpread = 0.002

// heard takes where a region says it is.
func (p *place) heard(region string, at *Coordinate) {
	if p.regions[region] != nil || len(p.regions) < MaxMembers {
		p.regions[region] = at
	}
}

// placeEvery is how often a peer's round trip counts: in restless times beats tell it four times a second.
const placeEvery = time.Second

// measured folds a round trip to a peer into this node's coordinate. Where the peer is, its region tells.
func (p *place) measured(peer, region string, rtt time.Duration) {
	at := p.regions[region]
	if at == nil {
		return
	}
	if own, err := p.client.Update(peer, at.At, rtt); err == nil {
		p.own = own
	}
}

// One node of a region tells where it is, since its neighbours are at about the same place: the first by name of those that
// are reached. It tells anew when the coordinate has moved by a tenth of its distance from the middle of the fleet, and by two
// milliseconds: estimates are not better than that. Each telling changes what the whole fleet compares, so the regions tell in
// the same moments, and ever more rarely where round trips fit no space and keep them moving.
const (
	placeShare = 0.1
	placeLeast = 0.002 // seconds
	placePause = 10 * time.Second
	placeSoon  = 4 // tellings in a row with that pause; then it quadruples
	placeRare  = 3 // times
)

// placeFirst is when a node has met its neighbours.
const placeFirst = 3 * time.Second

// speaksForRegion tells whether this node is the one of its region that tells where the region is.
func (c *core) speaksForRegion() bool {
	for _, mb := range c.order {
		if mb.name > c.node {
			break
		}
		if mb.info.Region == c.region && mb.info.State != Leaving && mb.seen() == reachable {
			return false
		}
	}
	return true
}

// tellPlace tells the fleet where this node is when that has changed by enough.
func (c *core) tellPlace(now instant) {
	p, at := &c.place, c.fleetWall(now)
	pause := placePause << (2 * min(max(p.tellings-placeSoon+1, 0), placeRare))
	if at.UnixNano()/int64(pause) == p.toldAt.UnixNano()/int64(pause) || now.at.Sub(c.started) < placeFirst || !c.speaksForRegion() {
		return
	}
	away, middle := 0.0, 0.0
	for i, v := range p.own.Vec {
		d := v - p.told.Vec[i]
		away, middle = away+d*d, middle+v*v
	}
	moved := math.Sqrt(away) + math.Abs(p.own.Height-p.told.Height)
	surer := p.told.Error > settledError && (p.own.Error <= settledError || p.own.Error < p.told.Error/2)
	if c.self.sections[sectionPlace] != nil && moved <= max(math.Sqrt(middle)*placeShare, placeLeast) && !surer {
		return
	}
	if at.Sub(p.toldAt) > 2*placePause<<(2*placeRare) {
		p.tellings = 0
	}
	p.told, p.toldAt = p.own, at
	p.tellings++
	c.say(now, section{sectionPlace, placeBody(p.own)})
}

// placeBody encodes a coordinate.
func placeBody(at *coordinate.Coordinate) []byte {
	steps := func(v float64) float64 { return math.Round(min(max(v/placeStep, -placeMost), placeMost)) }
	b := binary.AppendUvarint(nil, uint64(len(at.Vec)))
	for _, v := range at.Vec {
		b = binary.AppendVarint(b, int64(steps(v)))
	}
	b = binary.AppendVarint(b, int64(steps(at.Adjustment)))
	b = binary.AppendUvarint(b, uint64(max(steps(at.Height), 0)))
	return binary.AppendUvarint(b, uint64(max(math.Round(min(at.Error, maxPlaceError)*placeErrors), 1)))
}

// placeIn decodes placeBody; nil when it is nothing that this node can go by: of other dimensions, or beyond the bounds.
func placeIn(b []byte) *Coordinate {
	r := &wire{rest: b}
	config := coordinate.DefaultConfig()
	if r.number() != uint64(config.Dimensionality) {
		return nil
	}
	at := coordinate.NewCoordinate(config)
	bounded := func(v float64) float64 {
		r.failed = r.failed || math.Abs(v) > placeMost
		return v * placeStep
	}
	for i := range at.Vec {
		at.Vec[i] = bounded(float64(r.signed()))
	}
	at.Adjustment = bounded(float64(r.signed()))
	at.Height = bounded(float64(r.number()))
	at.Error = float64(r.number()) / placeErrors
	if r.failed || at.Error > maxPlaceError {
		return nil
	}
	return &Coordinate{at}
}
