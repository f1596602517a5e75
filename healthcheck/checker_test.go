package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"landfall/configs"
	"landfall/routing"
)

// origins answers probes in virtual time.
type origins struct {
	mu     sync.Mutex
	status map[string]int // by host; absent: 200, 0: refused, -1: hangs
	probes map[string][]time.Time
	flying map[string]int
	most   map[string]int
}

func newOrigins() *origins {
	return &origins{status: map[string]int{}, probes: map[string][]time.Time{}, flying: map[string]int{}, most: map[string]int{}}
}

func (o *origins) set(host string, status int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.status[host] = status
}

func (o *origins) count(host string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.probes[host])
}

func (o *origins) RoundTrip(r *http.Request) (*http.Response, error) {
	host := r.URL.Host
	o.mu.Lock()
	status, ok := o.status[host]
	if !ok {
		status = 200
	}
	o.probes[host] = append(o.probes[host], time.Now())
	o.flying[host]++
	o.most[host] = max(o.most[host], o.flying[host])
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		o.flying[host]--
		o.mu.Unlock()
	}()
	switch status {
	case 0:
		return nil, errors.New("refused")
	case -1:
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return &http.Response{StatusCode: status, Body: http.NoBody, Request: r}, nil
}

// diary writes down what OnChange hears.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) note(t Target, s routing.State, reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf("%s %s %s: %s", t.Service, t.Origin, s, reason))
}

func (d *diary) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.lines, "\n")
}

var check = configs.Check{
	Path: "/healthz", Expect: configs.StatusRange{From: 200, To: 299}, Interval: configs.Duration(2 * time.Second),
	Timeout: configs.Duration(time.Second), Rise: 2, Fall: 3,
}

func target(service, host string) Target {
	return Target{Service: service, Region: "eu", Origin: "http://" + host, Check: check}
}

// inBubble runs a checker in virtual time.
func inBubble(t *testing.T, o *origins, d *diary, targets []Target, story func(c *Checker)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := NewChecker(Options{Targets: targets, OnChange: d.note, Transport: o, Rand: func() float64 { return 0.5 }})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- c.Run(ctx) }()
		synctest.Wait()
		story(c)
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// pass lets virtual time pass.
func pass(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
	synctest.Wait()
}

func wantState(t *testing.T, c *Checker, service, host string, want routing.State, detail string) {
	t.Helper()
	s, d, _ := c.State(service, "http://"+host)
	if s != want || !strings.Contains(d, detail) {
		t.Errorf("%s at %s is %v (%s), want %v (%s)", service, host, s, d, want, detail)
	}
}

func TestCheckerStory(t *testing.T) {
	o, d := newOrigins(), &diary{}
	inBubble(t, o, d, []Target{target("web", "a:80")}, func(c *Checker) {
		wantState(t, c, "web", "a:80", routing.Unknown, "not measured yet")
		pass(100 * time.Millisecond)
		wantState(t, c, "web", "a:80", routing.Up, "answered 200")
		o.set("a:80", 503)
		pass(4 * time.Second)
		wantState(t, c, "web", "a:80", routing.Up, "answered 503, expected 200-299")
		pass(2 * time.Second)
		wantState(t, c, "web", "a:80", routing.Down, "answered 503")
		o.set("a:80", 301)
		pass(6 * time.Second)
		wantState(t, c, "web", "a:80", routing.Down, "answered 301")
		o.set("a:80", 204)
		pass(4 * time.Second)
		wantState(t, c, "web", "a:80", routing.Up, "answered 204")
	})
	want := `web http://a:80 unknown: not measured yet
web http://a:80 up: GET /healthz answered 200
web http://a:80 down: GET /healthz answered 503, expected 200-299 (3 times in a row)
web http://a:80 up: GET /healthz answered 204`
	if d.String() != want {
		t.Errorf("OnChange heard\n%s\nwant\n%s", d, want)
	}
}

// TestStartDown: what is down at the start is known after fall probes at four times the rate.
func TestStartDown(t *testing.T) {
	o, d := newOrigins(), &diary{}
	o.set("a:80", 0)
	inBubble(t, o, d, []Target{target("web", "a:80")}, func(c *Checker) {
		pass(1200 * time.Millisecond)
		wantState(t, c, "web", "a:80", routing.Down, "failed: refused")
	})
}

// TestConstantWork: a target that hangs is probed no more often than one that answers, one probe at a time.
func TestConstantWork(t *testing.T) {
	o, d := newOrigins(), &diary{}
	inBubble(t, o, d, []Target{target("web", "good:80"), target("web", "hung:80")}, func(c *Checker) {
		pass(10 * time.Second)
		o.set("hung:80", -1)
		good, hung := o.count("good:80"), o.count("hung:80")
		pass(time.Minute)
		good, hung = o.count("good:80")-good, o.count("hung:80")-hung
		if good != hung || good < 29 || good > 31 {
			t.Errorf("in a minute %d probes to the good and %d to the hung one, want 30 each", good, hung)
		}
		wantState(t, c, "web", "hung:80", routing.Down, "no answer within 1s")
		if o.most["hung:80"] != 1 {
			t.Errorf("%d probes in flight at once, want 1", o.most["hung:80"])
		}
	})
}

// TestShared: services that share an origin and a check share the probe, each hears of it.
func TestShared(t *testing.T) {
	o, d := newOrigins(), &diary{}
	other := target("api", "a:80")
	other.Check.Path = "/other"
	inBubble(t, o, d, []Target{target("web", "a:80"), target("shop", "a:80"), other}, func(c *Checker) {
		pass(time.Second)
		if n := o.count("a:80"); n != 2 {
			t.Errorf("%d probes, want one for /healthz and one for /other", n)
		}
		for _, service := range []string{"web", "shop", "api"} {
			wantState(t, c, service, "a:80", routing.Up, "")
		}
		results := c.Results()
		if len(results) != 3 || results[0].Service != "api" || results[2].Service != "web" || results[2].Last.IsZero() {
			t.Errorf("results: %+v", results)
		}
	})
	if strings.Count(d.String(), "up:") != 3 {
		t.Errorf("OnChange heard\n%s", d)
	}
}

func TestUpdate(t *testing.T) {
	o, d := newOrigins(), &diary{}
	inBubble(t, o, d, []Target{target("web", "a:80"), target("web", "b:80")}, func(c *Checker) {
		pass(time.Second)
		_, _, since := c.State("web", "http://a:80")
		c.Update([]Target{target("web", "a:80"), target("new", "a:80"), target("web", "c:80")})
		if s, _, now := c.State("web", "http://a:80"); s != routing.Up || !now.Equal(since) {
			t.Errorf("a reload changed an unchanged target: %v since %v, was since %v", s, now, since)
		}
		wantState(t, c, "web", "b:80", routing.Unknown, "not checked")
		wantState(t, c, "web", "c:80", routing.Unknown, "not measured yet")
		gone := o.count("b:80")
		pass(10 * time.Second)
		wantState(t, c, "web", "c:80", routing.Up, "")
		if n := o.count("b:80"); n != gone {
			t.Errorf("%d probes to a target that is gone", n-gone)
		}
	})
	if !strings.Contains(d.String(), "new http://a:80 up: GET /healthz answered 200") {
		t.Errorf("a new target with a shared probe wasn't told what is known:\n%s", d)
	}
}

// TestStale: a state that nobody measures any more becomes unknown, also when the checker itself is dead.
func TestStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewChecker(Options{Targets: []Target{target("web", "a:80")}, Transport: newOrigins()})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- c.Run(ctx) }()
		pass(time.Second)
		wantState(t, c, "web", "a:80", routing.Up, "")
		cancel()
		<-ended
		pass(10 * time.Second)
		wantState(t, c, "web", "a:80", routing.Up, "")
		pass(3 * time.Second)
		wantState(t, c, "web", "a:80", routing.Unknown, "no probe ended for 11s; the last: GET /healthz answered 200")
		if r := c.Results(); r[0].State != routing.Unknown {
			t.Errorf("results say %v", r[0].State)
		}
	})
}

// TestStaleIsTold: a prober that hangs beyond every limit doesn't freeze the state.
func TestStaleIsTold(t *testing.T) {
	d := &diary{}
	release := make(chan struct{})
	var hang bool
	rt := roundTripper(func(r *http.Request) (*http.Response, error) {
		if hang {
			<-release // ignores its context, as no transport should
		}
		hang = true
		return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
	})
	synctest.Test(t, func(t *testing.T) {
		release = make(chan struct{})
		c := NewChecker(Options{Targets: []Target{target("web", "a:80")}, Transport: rt, OnChange: d.note})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- c.Run(ctx) }()
		pass(30 * time.Second)
		wantState(t, c, "web", "a:80", routing.Unknown, "")
		close(release)
		pass(time.Second)
		wantState(t, c, "web", "a:80", routing.Up, "")
		if r := c.Results(); r[0].Duration > time.Second {
			t.Errorf("the probe after the one that hung: %+v", r[0])
		}
		cancel()
		<-ended
	})
	if !strings.Contains(d.String(), "unknown: no probe ended for 11s") {
		t.Errorf("OnChange heard\n%s", d)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// series writes a registry's counters and gauges, one a line: name, label values, value.
func series(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			line := f.GetName()
			for _, l := range m.GetLabel() {
				line += " " + l.GetValue()
			}
			lines = append(lines, fmt.Sprint(line, " ", m.GetCounter().GetValue()+m.GetGauge().GetValue()))
		}
	}
	return strings.Join(lines, "\n")
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := NewMetrics(reg)
	o := newOrigins()
	o.set("b:80", 500)
	synctest.Test(t, func(t *testing.T) {
		targets := []Target{target("web", "a:80"), target("web", "b:80")}
		c := NewChecker(Options{Targets: targets, Transport: o, Metrics: m, Rand: func() float64 { return 0.5 }})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- c.Run(ctx) }()
		pass(1200 * time.Millisecond)
		want := `landfall_healthcheck_probes_total ok web 1
landfall_healthcheck_probes_total status web 3
landfall_origin_healthy http://a:80 eu web 1
landfall_origin_healthy http://b:80 eu web 0`
		if got := series(t, reg); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		c.Update(targets[:1])
		if got := series(t, reg); strings.Contains(got, "landfall_origin_healthy http://b:80") {
			t.Errorf("a target that is gone left a series behind:\n%s", got)
		}
		cancel()
		<-ended
	})
}
