package drill

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"landfall/cache/history"
	"landfall/deploy/lab"
)

// Options choose a drill.
type Options struct {
	Name    string
	Seed    uint64        // picks the region, and what the clients ask for
	Region  string        // overrides the seed's choice; empty: the seed chooses
	Rate    float64       // requests a second from each place, more than 0 and at most MaxRate
	For     time.Duration // of the purge and the offload drill: how long they last; 0: 20 s
	Control string        // address of the lab's control API, as lab.ControlAddr tells
	Out     io.Writer
}

// Drill is a drill's name and promise.
type Drill struct {
	Name    string `json:"name"`
	Promise string `json:"promise"`
	run     func(context.Context, *session) error
	most    float64 // requests a second from each place that the drill bears beside its own; 0: any
}

// Drills are all drills.
func Drills() []Drill {
	return []Drill{
		{"kill-region", "SIGKILL every process of a region: no request fails for good, no place is without an answer for 2 s, DNS is right within 2 s, traffic comes home", killRegion, 0},
		{"drain-region", "drain a region and undrain it: it empties, no place is without an answer for 2 s, and not one request fails or needs a second try", drainRegion, 0},
		{"gradual-drain", "drain a region over some seconds: a growing share of its clients leaves, each of them once, and not one request fails or needs a second try", gradualDrain, steeringRate},
		{"spill", "a rush at one region: the excess, and only that, goes on to the next, the share settles, and no request fails", spillUnderLoad, steeringRate},
		{"strict-residency", "kill the only region where a service's clients may be served: no DNS answer and no other region takes them, and explain says why", strictResidency, steeringRate},
		{"learnt-rtt", "make a region slow for one network: what is measured beats geography, that network alone is led elsewhere, and home once it is near again", learntRTT, steeringRate},
		{"purge", "writers change objects and purge them with wait=all while a region is killed (SIGKILL) and comes back and another stands still, is cut off from the rest and loses a tenth of its packets in turn: no reader ever gets what is older than a purge that a node has confirmed", purgeDrill, 0},
		{"offload", "replay a realistic mix of requests (static files, an API with short lifetimes, personal pages; Zipf) from a cold cache: at least 85% are hits, origins get at least 85% fewer, and compression saves at least 40% of the bytes", offloadDrill, steeringRate},
	}
}

// pace is how long the stretches of a drill last, and what is promised.
type pace struct {
	settle     time.Duration // before anything happens
	outage     time.Duration // the region is away
	comeHome   time.Duration // bound on the way home
	afterHome  time.Duration // once the first client is at home
	dnsPromise time.Duration // DNS is right within
	gapPromise time.Duration // no place is without an answer for longer, beyond what its rate of requests makes likely
	crowd      int           // clients that a steering drill brings, each of a network of its own
	rate       float64       // requests a second of a rush
	over       time.Duration // a gradual drain takes
	rush       time.Duration // a rush lasts before it is judged, and is watched for
	watch      time.Duration
	slow       time.Duration // the round trip of a way that is made slow
	learn      time.Duration // bound on what is measured to take effect
	leave      time.Duration // after DNS and connections were told: what a drained region may still take to be empty
}

func defaultPace() pace {
	return pace{
		settle: 4 * time.Second, outage: 7 * time.Second, comeHome: 25 * time.Second, afterHome: 5 * time.Second,
		dnsPromise: 2 * time.Second, gapPromise: 2 * time.Second, leave: time.Second,
		crowd: 40, rate: 100, over: 8 * time.Second, rush: 12 * time.Second, watch: 5 * time.Second, learn: 12 * time.Second, slow: 600 * time.Millisecond,
	}
}

// session is one run of a drill on a lab.
type session struct {
	pace
	o       Options
	fleet   lab.Fleet
	ttl     time.Duration // of DNS answers
	dnsWait time.Duration // how long a drained region keeps its connections
	control lab.Control
	target  lab.Region
	account *account
	clients []*lab.Client
	report  *Report
	history *history.Log // of the purge drill
	now     func() time.Time
}

// MaxRate bounds the requests a second from each place.
const MaxRate = 1000

// Known tells whether there is a drill of that name.
func Known(name string) bool { _, ok := find(name); return ok }

func find(name string) (Drill, bool) {
	for _, d := range Drills() {
		if d.Name == name {
			return d, true
		}
	}
	return Drill{}, false
}

// Run runs a drill on the lab that runs on this machine. The error says that the drill could not be carried out; whether
// its promise held is in the report. Whatever happens, the region that it struck is mended. It
// begins once the fleet is at rest, for which it waits up to six minutes, and ends within two minutes of that, or of Options.For.
func Run(ctx context.Context, o Options) (*Report, error) { return run(ctx, o, defaultPace()) }

func run(ctx context.Context, o Options, p pace) (*Report, error) {
	drill, ok := find(o.Name)
	if !ok {
		return nil, fmt.Errorf("there is no drill %q; `landfall drill list` shows them", o.Name)
	}
	if !(o.Rate > 0 && o.Rate <= MaxRate) {
		return nil, fmt.Errorf("a drill sends more than 0 and at most %d requests a second from each place, not %g", MaxRate, o.Rate)
	}
	if drill.most > 0 {
		o.Rate = min(o.Rate, drill.most)
	}
	s := &session{pace: p, o: o, control: lab.Control{Addr: o.Control, Client: &http.Client{Timeout: controlPatience}}, account: &account{}, now: time.Now}
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	if err := s.rest(ctx); err != nil {
		return nil, err
	}
	s.report = &Report{Drill: o.Name, Region: s.target.Name, Seed: o.Seed, Broken: []string{}, Examples: []string{}}
	stop := make(chan struct{})
	var running sync.WaitGroup
	for i, c := range s.clients {
		rng := rand.New(rand.NewPCG(o.Seed, uint64(i)))
		running.Go(func() { c.Run(ctx, stop, o.Rate, rng, s.account.add) })
	}
	err := drill.run(ctx, s)
	close(stop)
	ended := s.now()
	running.Wait() // requests that began before the end are seen through, unless ctx ended
	for _, c := range s.clients {
		c.Close()
	}
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("the drill was interrupted: %w", ctx.Err()) // wherever it was
	}
	if err != nil {
		return nil, err
	}
	s.conclude(ended)
	return s.report, nil
}

// controlPatience is for an answer of the lab's control API or the admin API.
const controlPatience = 10 * time.Second

// prepare learns the lab and makes its clients.
func (s *session) prepare(ctx context.Context) (err error) {
	if s.fleet, err = s.control.Fleet(ctx); err != nil {
		return err
	}
	if s.ttl, err = time.ParseDuration(s.fleet.TTL); err != nil {
		return fmt.Errorf("the lab's TTL: %w", err)
	}
	if s.dnsWait, err = time.ParseDuration(s.fleet.DNSWait); err != nil {
		return fmt.Errorf("the lab's dns_wait: %w", err)
	}
	if len(s.fleet.Regions) < 2 {
		return fmt.Errorf("a drill needs at least 2 regions, this lab has %d", len(s.fleet.Regions))
	}
	s.target = s.fleet.Regions[rand.New(rand.NewPCG(s.o.Seed, 0)).IntN(len(s.fleet.Regions))]
	if s.o.Region != "" {
		var ok bool
		if s.target, ok = s.fleet.Region(s.o.Region); !ok {
			return fmt.Errorf("the lab has no region %q", s.o.Region)
		}
	}
	for _, r := range s.fleet.Regions {
		if !r.Up {
			return fmt.Errorf("region %s of the lab is not running; start it or start the lab anew", r.Name)
		}
	}
	roots, err := s.fleet.Roots()
	if err != nil {
		return err
	}
	for _, r := range s.fleet.Regions {
		s.clients = append(s.clients, lab.NewClient(s.fleet, r, roots, s.now))
	}
	return nil
}

func (s *session) say(format string, a ...any) { fmt.Fprintf(s.o.Out, format+"\n", a...) }

// phase begins a phase of the account and lets the load run on for a while.
func (s *session) phase(ctx context.Context, name string, d time.Duration) error {
	s.say("%s …", name)
	s.account.begin(name, s.now())
	return pause(ctx, d)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
