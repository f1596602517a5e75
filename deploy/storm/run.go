package storm

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// Options of a drill.
type Options struct {
	Executable string    // landfall's own
	Beside     []string  // other gateways: nginx, haproxy
	Out        io.Writer // how it goes
}

// Name is the drill's name.
const Name = "storm"

// Promise is what the drill checks.
const Promise = "an origin's capacity falls to a third under steady load: clients get over 90% of what it can do, it gets less than 1.25 requests for each of theirs, and all is well within 5 s of its return"

// pace is how long the stretches last, what the origin can do and what is promised.
type pace struct {
	calm, storm, after time.Duration
	grace              time.Duration // of the storm that is not judged: the origin's line must be noticed first
	workers            int
	work, patience     time.Duration
	rate               float64

	goodput, amplification float64
	recovery               time.Duration
}

func usualPace() pace {
	return pace{
		calm: 5 * time.Second, storm: 9 * time.Second, after: 8 * time.Second, grace: time.Second,
		workers: 30, work: 100 * time.Millisecond, patience: time.Second, rate: 180,
		goodput: 0.9, amplification: 1.25, recovery: 5 * time.Second,
	}
}

// gateway is one that is drilled. start runs it in front of an origin until ctx ends, and gives its URL; the WaitGroup
// waits for its end.
type gateway struct {
	name  string
	start func(ctx context.Context, running *sync.WaitGroup, origin string) (url string, err error)
}

// Run drills landfall, and what is to be drilled beside it. The error says that it could not be carried out; whether the
// promise held is in the report. It takes about half a minute.
func Run(ctx context.Context, o Options) (*Report, error) {
	list := []gateway{landfall(o.Executable)}
	var absent []string
	for _, name := range o.Beside {
		g, why := other(name)
		if why != "" {
			absent = append(absent, name+": "+why)
			continue
		}
		list = append(list, g)
	}
	rep, err := run(ctx, o.Out, list, usualPace())
	if rep != nil {
		rep.Absent = absent
	}
	return rep, err
}

// run drills each gateway with an origin and clients of its own, all at the same time.
func run(ctx context.Context, out io.Writer, list []gateway, p pace) (*Report, error) {
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	origins, loads := make([]*Origin, len(list)), make([]*load, len(list))
	for i, g := range list {
		var err error
		if origins[i], err = newOrigin(p.workers, p.work); err != nil {
			return nil, fmt.Errorf("start the model origin: %w", err)
		}
		defer origins[i].Close()
		url, err := g.start(ctx, &running, origins[i].URL)
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", g.name, err)
		}
		loads[i] = newLoad(url, p.rate, p.patience)
	}
	loading, quiet := context.WithCancel(ctx)
	var clients sync.WaitGroup
	defer clients.Wait()
	defer quiet()
	for _, l := range loads {
		clients.Go(func() { l.run(loading) })
	}
	phase := func(text string, d time.Duration) error {
		fmt.Fprintf(out, "%s, %s …\n", text, d)
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	began := time.Now()
	if err := phase(fmt.Sprintf("%g requests/s to an origin that can do %g", p.rate, p.full()), p.calm); err != nil {
		return nil, err
	}
	struck, arrivals := time.Now(), make([]int64, len(list))
	for i, o := range origins {
		arrivals[i] = -o.arrived.Load()
		o.resize(p.workers / 3)
	}
	if err := phase(fmt.Sprintf("the origin can do %g", p.third()), p.storm); err != nil {
		return nil, err
	}
	back := time.Now()
	for i, o := range origins {
		arrivals[i] += o.arrived.Load()
		o.resize(p.workers)
	}
	if err := phase("the origin is back", p.after); err != nil {
		return nil, err
	}
	ended := time.Now()
	quiet()
	clients.Wait()
	rep := &Report{Drill: Name, Broken: []string{}}
	for i, g := range list {
		rep.Gateways = append(rep.Gateways, p.measure(g.name, loads[i], arrivals[i], began, struck, back, ended))
	}
	rep.judge(p)
	return rep, nil
}

// full and third are what the origin can do, in requests a second.
func (p pace) full() float64  { return float64(p.workers) / p.work.Seconds() }
func (p pace) third() float64 { return float64(p.workers/3) / p.work.Seconds() }

func (p pace) measure(name string, l *load, arrived int64, began, struck, back, ended time.Time) Figures {
	calm, storm, whole := l.between(began.Add(p.calm/2), struck), l.between(struck.Add(p.grace), back), l.between(struck, back)
	f := Figures{
		Gateway: name, Calm: calm.goodput, Storm: storm.goodput, Share: storm.goodput / p.third(), CalmP99: ms(calm.p99), StormP99: ms(storm.p99),
		Shed: float64(whole.shed) / float64(max(whole.requests, 1)), Amplification: float64(arrived) / float64(max(whole.requests, 1)),
		PerAdmitted: float64(arrived) / float64(max(whole.requests-whole.shed, 1)),
	}
	// The last patience is left out: what was sent in it had no time to be answered.
	if d, ok := l.recovered(back, ended.Add(-p.patience/2), 0.9*p.rate); ok {
		f.RecoveryMS = new(float64)
		*f.RecoveryMS = ms(d)
	}
	return f
}

func ms(d time.Duration) float64 {
	return float64(d.Round(100*time.Microsecond)) / float64(time.Millisecond)
}
