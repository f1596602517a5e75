package simulate

import (
	"cmp"
	"hash/fnv"
	"math"
	"slices"
	"time"

	"landfall/configs"
	"landfall/gateway"
	"landfall/routing"
)

// Result is what came of a scenario.
type Result struct {
	Scenario string         `json:"scenario"`
	Users    float64        `json:"users"`
	Requests float64        `json:"requests"` // in all
	Regions  []RegionResult `json:"regions"`
	P50KM    float64        `json:"p50_km"` // of the requests' distance to their region
	P99KM    float64        `json:"p99_km"`
	Worst    Moment         `json:"worst"` // when the fullest region was the fullest
	Spilled  float64        `json:"spilled"`
	// OverloadedFor is how long any region had more load than capacity, in seconds.
	OverloadedFor float64  `json:"overloaded_s"`
	Samples       []Sample `json:"samples"` // about samplesKept of them, evenly spaced
	Events        []Mark   `json:"events"`
}

// RegionResult is one region over the whole time.
type RegionResult struct {
	Name       string  `json:"name"`
	Capacity   float64 `json:"capacity"`
	Requests   float64 `json:"requests"`
	Peak       float64 `json:"peak"`       // requests a second
	PeakLoad   float64 `json:"peak_load"`  // as a share of the capacity
	SpillPeak  float64 `json:"spill_peak"` // the largest share of its clients that it sent on
	Overloaded float64 `json:"overloaded_s"`
}

// Moment is a point in time.
type Moment struct {
	At     float64 `json:"at_s"`
	Region string  `json:"region"`
	Load   float64 `json:"load"`
}

// Sample is the fleet at one moment.
type Sample struct {
	At    float64   `json:"at_s"`
	Load  []float64 `json:"load"` // requests a second, by region
	P50KM float64   `json:"p50_km"`
	P99KM float64   `json:"p99_km"`
}

// Mark is an event, for people.
type Mark struct {
	At   float64 `json:"at_s"`
	Text string  `json:"text"`
}

const (
	samplesKept = 480
	// perGroup is how many clients stand for a group; each has a key of its own, so that shares and weights divide them.
	perGroup = 48
)

// walker is a client that stands for many.
type walker struct {
	client routing.Client
	group  int
	now    int     // the region it goes to
	full   bool    // it was sent on by a full region
	km     float64 // to that region
}

// run is a simulation under way.
type run struct {
	c       *configs.Config
	s       *Scenario
	paper   gateway.Paper
	start   time.Time
	walkers []walker
	fresh   bool // the walkers' regions are those of the last snapshot
	shares  []float64
	res     *Result
	dist    histogram

	// By region.
	controls     []routing.Spill
	far          []routing.Distances // its clients are
	target, load []float64
}

// Run simulates. It is deterministic.
func Run(c *configs.Config, s *Scenario) *Result {
	r := &run{c: c, s: s, start: time.Unix(0, 0).UTC(), res: &Result{Scenario: s.Name}}
	names := c.RegionNames()
	r.paper = gateway.Paper{Config: c, Down: map[string]bool{}, Load: map[string]float64{}, Spill: map[string]map[string]gateway.Spilled{}}
	r.controls, r.far = make([]routing.Spill, len(names)), make([]routing.Distances, len(names))
	r.target, r.load = make([]float64, len(names)), make([]float64, len(names))
	for _, name := range names {
		r.res.Regions = append(r.res.Regions, RegionResult{Name: name, Capacity: float64(c.Regions[name].Capacity)})
	}
	r.people()
	steps := int(time.Duration(s.Duration) / time.Duration(s.Step))
	every := max(steps/samplesKept, 1)
	event := 0
	for i := range steps {
		at := time.Duration(i) * time.Duration(s.Step)
		died := false
		for ; event < len(s.Events) && time.Duration(s.Events[event].At) <= at; event++ {
			died = r.apply(s.Events[event]) || died
		}
		r.step(at, died || i == 0, i%every == 0)
	}
	r.res.P50KM, r.res.P99KM = r.dist.quantile(0.5), r.dist.quantile(0.99)
	return r.res
}

// people makes the clients: evenly over a few hundred kilometres around their place, by a fixed sequence.
func (r *run) people() {
	for g, group := range r.s.Clients {
		r.res.Users += group.Users
		for k := range perGroup {
			h := fnv.New64a()
			_, _ = h.Write([]byte(group.Place)) // never fails
			_, _ = h.Write([]byte{byte(k), byte(k >> 8)})
			key := h.Sum64() * 0x9e3779b97f4a7c15
			angle, away := float64(k)*2.399963, 3*math.Sqrt(float64(k)/perGroup) // a sunflower of 3 degrees
			at := routing.Point{Lat: min(max(group.At[0]+away*math.Sin(angle), -89), 89), Lon: group.At[1] + away*math.Cos(angle), Located: true}
			r.walkers = append(r.walkers, walker{group: g, client: routing.Client{Point: at, Key: key ^ key>>29, Country: routing.CountryOf(group.Country)}})
		}
	}
}

// apply does an event. It tells whether a region died.
func (r *run) apply(e Event) (died bool) {
	at, text := time.Duration(e.At), ""
	switch {
	case e.Down != "":
		r.paper.Down[e.Down], died, text = true, true, e.Down+" goes down"
	case e.Up != "":
		delete(r.paper.Down, e.Up)
		text = e.Up + " is back"
	case e.Drain != "":
		r.paper.Drains = append(r.paper.Drains, gateway.RegionDrain(e.Drain, r.start.Add(at), time.Duration(e.Over)))
		text = e.Drain + " is drained"
		if e.Over > 0 {
			text += " over " + time.Duration(e.Over).String()
		}
	case e.Undrain != "":
		r.paper.Drains = slices.DeleteFunc(r.paper.Drains, func(d gateway.Drain) bool { return d.Name == e.Undrain })
		text = e.Undrain + " is undrained"
	}
	r.fresh = false
	r.res.Events = append(r.res.Events, Mark{At: at.Seconds(), Text: text})
	return died
}

// step moves the clock to at: where everybody goes, how much that is, and what the control makes of it.
func (r *run) step(at time.Duration, jump, keep bool) {
	dt := time.Duration(r.s.Step)
	names := r.c.RegionNames()
	for i, name := range names {
		r.paper.Load[name] = r.load[i]
		r.paper.Spill[name] = map[string]gateway.Spilled{r.s.Service: {Share: r.controls[i].Told(), Beyond: r.controls[i].Beyond}}
	}
	snapshot := r.paper.Snapshot(r.start.Add(at))
	service := snapshot.Service(r.s.Service)
	r.decide(snapshot, service)
	clear(r.target)
	var now histogram
	for i := range r.walkers {
		w := &r.walkers[i]
		rate := r.rate(w.group, at) / perGroup
		if w.now >= 0 {
			r.target[w.now] += rate
		}
		now.add(w.km, rate*dt.Seconds())
		if w.full {
			r.res.Spilled += rate * dt.Seconds()
		}
		r.res.Requests += rate * dt.Seconds()
	}
	r.dist.merge(&now)
	r.look(snapshot, service, at, dt)
	lag := gateway.FollowLag(r.c)
	follow := 1 - math.Exp(-dt.Seconds()/lag.Seconds())
	if jump {
		follow = 1
	}
	overloaded := false
	spillAt := float64(r.c.Services[r.s.Service].Steering.SpillAt)
	for i, name := range names {
		r.load[i] += (r.target[i] - r.load[i]) * follow
		overloaded = r.account(i, at, dt) || overloaded
		if capacity := float64(r.c.Regions[name].Capacity); capacity > 0 {
			room := gateway.RoomElsewhere(snapshot, service, i, spillAt)
			r.controls[i] = r.controls[i].Next(routing.Load{Ratio: r.load[i] / capacity}, routing.MarksAt(spillAt), room, lag, dt).Aim(&r.far[i])
		}
	}
	if overloaded {
		r.res.OverloadedFor += dt.Seconds()
	}
	if keep {
		r.res.Samples = append(r.res.Samples, Sample{At: at.Seconds(), Load: slices.Clone(r.load), P50KM: now.quantile(0.5), P99KM: now.quantile(0.99)})
	}
}

// look takes the distances of each region's clients, as its nodes do.
func (r *run) look(s *routing.Snapshot, service int, at, dt time.Duration) {
	for i := range r.walkers {
		if w := &r.walkers[i]; w.now >= 0 {
			r.far[w.now].Add(s, w.now, &w.client, r.rate(w.group, at)/perGroup*dt.Seconds())
		}
	}
	for i := range r.far {
		r.far[i].Tick(dt, s.Services[service].Places[i].SpillBeyond)
	}
}

// decide asks for each client, when anything that a decision depends on is not as it was.
func (r *run) decide(s *routing.Snapshot, service int) {
	var shares []float64
	for i, region := range s.Regions {
		// Spills wander a little all the time; a thousandth is what nodes tell each other.
		p := s.Services[service].Places[i]
		shares = append(shares, region.Draining, math.Round(p.Spill*1000), float64(p.SpillBeyond))
	}
	if r.fresh && slices.Equal(shares, r.shares) {
		return
	}
	r.fresh, r.shares = true, shares
	buf := make([]routing.Choice, 0, len(s.Regions))
	for i := range r.walkers {
		w := &r.walkers[i]
		d := s.Decide(buf, service, w.client)
		w.now, w.km, w.full = -1, 0, false
		if d.Usable == 0 {
			continue
		}
		w.now = d.Choices[0].Region
		w.km, _ = s.DistanceKM(w.now, &w.client)
		_, w.full = d.SpilledFrom()
	}
}

// rate is a group's requests a second: its daily mean, on a curve that peaks at peak_hour in the place's own time.
func (r *run) rate(group int, at time.Duration) float64 {
	g := &r.s.Clients[group]
	mean := g.Users * r.s.Requests / 86400
	swing := (1 - r.s.Night) / (1 + r.s.Night)
	hour := at.Hours() + g.At[1]/15
	return mean * (1 + swing*math.Cos(2*math.Pi*(hour-r.s.Peak)/24))
}

// account keeps what region i has come to. It tells whether it is overloaded.
func (r *run) account(i int, at, dt time.Duration) bool {
	g, load := &r.res.Regions[i], r.load[i]
	g.Requests += load * dt.Seconds()
	g.Peak = max(g.Peak, load)
	g.SpillPeak = max(g.SpillPeak, r.controls[i].Share)
	if g.Capacity <= 0 {
		return false
	}
	ratio := load / g.Capacity
	g.PeakLoad = max(g.PeakLoad, ratio)
	if ratio > r.res.Worst.Load {
		r.res.Worst = Moment{At: at.Seconds(), Region: g.Name, Load: ratio}
	}
	if ratio > 1 {
		g.Overloaded += dt.Seconds()
	}
	return ratio > 1
}

// histogram is of distances, in steps of 50 km.
type histogram struct {
	steps [histogramSteps]float64
	sum   float64
}

const (
	stepKM         = 50
	histogramSteps = 20100 / stepKM
)

func (h *histogram) add(km, weight float64) {
	h.steps[min(int(km/stepKM), histogramSteps-1)] += weight
	h.sum += weight
}

func (h *histogram) merge(o *histogram) {
	for i, v := range o.steps {
		h.steps[i] += v
	}
	h.sum += o.sum
}

// quantile is the middle of the step that q falls into.
func (h *histogram) quantile(q float64) float64 {
	seen := 0.0
	for i, v := range h.steps {
		if seen += v; seen >= q*h.sum && h.sum > 0 {
			return (float64(i) + 0.5) * stepKM
		}
	}
	return 0
}

// byLoad is the regions, the fullest first.
func (r *Result) byLoad() []RegionResult {
	return slices.SortedStableFunc(slices.Values(r.Regions), func(a, b RegionResult) int { return cmp.Compare(b.PeakLoad, a.PeakLoad) })
}
