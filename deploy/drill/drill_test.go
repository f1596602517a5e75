package drill

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"landfall/deploy/lab"
)

// hasty is a drill in seconds. What a slow machine may break is promised generously.
func hasty() pace {
	return pace{
		settle: 300 * time.Millisecond, outage: 2200 * time.Millisecond, comeHome: 10 * time.Second, afterHome: time.Second,
		dnsPromise: time.Second, gapPromise: 10 * time.Second, leave: 500 * time.Millisecond,
	}
}

func options(l *fakeLab, name string) Options {
	return Options{Name: name, Region: "east", Rate: 25, Control: l.control.Listener.Addr().String(), Out: discard{}}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// carryOut carries out a drill on a fleet with planted faults until the verdict is right, at most three times. A drill is a
// measurement in real time: a machine that is too busy for the pace spoils it, and then gets twice the time.
func carryOut(t *testing.T, drill string, f faults, p pace, right func(*Report) bool) (*fakeLab, *Report) {
	t.Helper()
	for try := 1; ; try++ {
		l := newFakeLab(t, f)
		rep, err := run(t.Context(), options(l, drill), p)
		if err != nil {
			t.Fatal(err)
		}
		if right(rep) {
			return l, rep
		}
		report := t.Logf
		if try == 3 {
			report = t.Fatalf
		}
		report("try %d, with an outage of %s: passed: %t, broken: %q, examples: %q\n%+v", try, p.outage, rep.Passed, rep.Broken, rep.Examples, rep)
		for _, d := range []*time.Duration{&p.settle, &p.outage, &p.dnsPromise, &p.comeHome, &p.afterHome, &p.over, &p.rush, &p.watch, &p.learn} {
			*d *= 2
		}
	}
}

// A drill passes on a fleet that is right and finds each fault that is planted in one that is not.
func TestDrillsTellRightFromWrong(t *testing.T) {
	for _, c := range []struct {
		name   string
		drill  string
		faults faults
		broken []string // a piece of each promise that must be told as broken; none: it passes
	}{
		{"all is well", "kill-region", faults{}, nil},
		{"all is well", "drain-region", faults{}, nil},
		{"DNS goes on naming the dead region", "kill-region", faults{dnsStuck: true}, []string{"DNS named east for"}},
		{"DNS goes on naming the drained region", "drain-region", faults{dnsStuck: true}, []string{"DNS named east for", "still served by east"}},
		{"the other name servers die too", "kill-region", faults{dnsSilent: true}, []string{"stopped answering while east was away", "failed for good"}},
		{"DNS forgets the region", "kill-region", faults{dnsForgets: true}, []string{"were not served at home within"}},
		{"its return is waited out", "kill-region", faults{damped: true}, nil},
		{"the other region answers 503", "kill-region", faults{answers503: true}, []string{"failed for good"}},
		{"the drained region keeps its connections", "drain-region", faults{keepsServing: true}, []string{"still served by east"}},
		{"the drained region breaks its connections", "drain-region", faults{cutsOnDrain: true}, []string{"needed a second try during a planned drain"}},
	} {
		t.Run(c.drill+"/"+c.name, func(t *testing.T) {
			t.Parallel()
			p := hasty()
			switch {
			case c.faults.dnsForgets:
				p.comeHome = 2 * time.Second
			case c.faults.damped:
				p.comeHome = 500 * time.Millisecond
			}
			l, rep := carryOut(t, c.drill, c.faults, p, func(rep *Report) bool {
				broken := strings.Join(rep.Broken, "\n")
				return rep.Passed == (len(c.broken) == 0) && !slices.ContainsFunc(c.broken, func(want string) bool { return !strings.Contains(broken, want) })
			})
			if rep.Requests == 0 || rep.Region != "east" || len(rep.Phases) != 3 {
				t.Errorf("%+v", rep)
			}
			verb, back := "kill", "start"
			if c.drill == "drain-region" {
				verb, back = "drain", "undrain"
			}
			if got := l.called(); got != verb+" east, "+back+" east" {
				t.Errorf("the drill did: %s", got)
			}
		})
	}
}

// A drill begins when what an earlier one struck is whole again.
func TestDrillWaitsForRest(t *testing.T) {
	t.Parallel()
	l := newFakeLab(t, faults{})
	l.setAway("east", true)
	o, waited := options(l, "kill-region"), false
	o.Out = writerFunc(func(line string) {
		if strings.HasPrefix(line, "waiting until the fleet is at rest: 127.") && strings.Contains(line, "sends clients of east to west") {
			waited = true
			l.setAway("east", false)
		}
	})
	p := hasty()
	p.settle, p.outage, p.afterHome = 0, 0, 0
	if rep, err := run(t.Context(), o, p); err != nil || !waited || rep.HomeMS == nil {
		t.Errorf("waited: %t, %+v, %v", waited, rep, err)
	}
}

// A fleet that hangs fails the drill, and the drill ends.
func TestDrillEndsWhenTheFleetHangs(t *testing.T) {
	t.Parallel()
	l := newFakeLab(t, faults{hangs: true})
	p := hasty()
	p.comeHome, p.gapPromise = time.Second, time.Second
	rep, err := run(t.Context(), options(l, "kill-region"), p)
	if err != nil {
		t.Fatal(err)
	}
	if broken := strings.Join(rep.Broken, "\n"); rep.Passed || rep.GapMS < ms(p.outage/2) ||
		!strings.Contains(broken, "the clients of east were without an answer") || !strings.Contains(broken, "the clients of west were without an answer") {
		t.Errorf("a fleet that hung for %s left a gap of %g ms: %q", p.outage, rep.GapMS, rep.Broken)
	}
}

func TestDrillThatCannotBeCarriedOut(t *testing.T) {
	l := newFakeLab(t, faults{refusesKill: true})
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := free.Addr().String()
	_ = free.Close()
	for name, c := range map[string]struct {
		change func(*Options)
		err    string
	}{
		"unknown drill":      {func(o *Options) { o.Name = "flood" }, `there is no drill "flood"`},
		"unknown region":     {func(o *Options) { o.Region = "mars" }, `the lab has no region "mars"`},
		"no rate":            {func(o *Options) { o.Rate = 0 }, "more than 0"},
		"too high a rate":    {func(o *Options) { o.Rate = MaxRate + 1 }, "at most 1000"},
		"no lab":             {func(o *Options) { o.Control = nobody }, lab.ErrNoLab.Error()},
		"the kill is denied": {func(*Options) {}, "the lab refused: the lab is stopping"},
	} {
		o := options(l, "kill-region")
		c.change(&o)
		p := hasty()
		p.settle = 0
		if rep, err := run(t.Context(), o, p); rep != nil || err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, %v", name, rep, err)
		}
	}
	for name, c := range map[string]struct {
		change func(*lab.Fleet)
		err    string
	}{
		"a region is down": {func(f *lab.Fleet) { f.Regions[1].Up = false }, "region west of the lab is not running"},
		"one region":       {func(f *lab.Fleet) { f.Regions = f.Regions[:1] }, "needs at least 2 regions"},
		"another lab's CA": {func(f *lab.Fleet) { f.CA = "/nonexistent/ca.pem" }, "read the lab's CA"},
		"a strange TTL":    {func(f *lab.Fleet) { f.TTL = "soon" }, "the lab's TTL"},
	} {
		l := newFakeLab(t, faults{})
		c.change(&l.fleet)
		if _, err := Run(t.Context(), options(l, "kill-region")); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A drill that is interrupted mends what it struck.
func TestDrillMendsWhenInterrupted(t *testing.T) {
	for drill, want := range map[string]string{"kill-region": "kill east, start east", "drain-region": "drain east, undrain east"} {
		t.Run(drill, func(t *testing.T) {
			t.Parallel()
			l := newFakeLab(t, faults{})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			p := hasty()
			p.settle, p.outage = 0, time.Hour
			o := options(l, drill)
			o.Out = writerFunc(func(line string) {
				if strings.HasPrefix(line, "killing") || strings.HasPrefix(line, "draining") {
					go func() { // once it is struck
						tick := time.NewTicker(5 * time.Millisecond)
						defer tick.Stop()
						for l.called() == "" {
							<-tick.C
						}
						cancel()
					}()
				}
			})
			rep, err := run(ctx, o, p)
			if rep != nil || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "interrupted") {
				t.Errorf("%v, %v", rep, err)
			}
			if got := l.called(); got != want {
				t.Errorf("the drill did: %s", got)
			}
		})
	}
}

type writerFunc func(string)

func (f writerFunc) Write(p []byte) (int, error) { f(string(p)); return len(p), nil }

// The seed alone chooses the region, and every region can be chosen.
func TestSeedChoosesTheRegion(t *testing.T) {
	l := newFakeLab(t, faults{})
	chosen := map[string]string{}
	for range 2 {
		for seed := range uint64(20) {
			s := &session{o: options(l, "kill-region"), control: lab.Control{Addr: l.control.Listener.Addr().String(), Client: l.control.Client()}, now: time.Now}
			s.o.Seed, s.o.Region = seed, ""
			if err := s.prepare(t.Context()); err != nil {
				t.Fatal(err)
			}
			key := fmt.Sprint(seed)
			if was, ok := chosen[key]; ok && was != s.target.Name {
				t.Errorf("seed %d chose %s, then %s", seed, was, s.target.Name)
			}
			chosen[key] = s.target.Name
		}
	}
	regions := map[string]bool{}
	for _, r := range chosen {
		regions[r] = true
	}
	if len(regions) != 2 {
		t.Errorf("20 seeds chose only %v", regions)
	}
}
