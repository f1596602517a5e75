package storm

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestOrigin: it does no more than its workers can, works on what nobody waits for any more, and follows a resize.
func TestOrigin(t *testing.T) {
	const work = 20 * time.Millisecond
	o, err := newOrigin(2, work)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	l := newLoad(o.URL, 0, 10*time.Second)
	defer l.client.CloseIdleConnections()
	ask := func(n int) time.Duration {
		began := time.Now()
		var all sync.WaitGroup
		for range n {
			all.Go(l.send)
		}
		all.Wait()
		return time.Since(began)
	}
	if took := ask(10); took < 5*work {
		t.Errorf("two workers did ten requests in %s", took)
	}
	o.resize(1)
	if took := ask(6); took < 6*work {
		t.Errorf("one worker did six requests in %s", took)
	}
	gone := newLoad(o.URL, 0, work/4)
	gone.send()
	gone.client.CloseIdleConnections()
	if took := ask(1); gone.results[0].good || took < work {
		t.Errorf("%+v, then %s", gone.results, took)
	}
	if got := o.arrived.Load(); got != 18 {
		t.Errorf("%d arrived", got)
	}
}

// TestDrillWithoutAGateway: what protects nothing is told from what does; the origin's line outlives the storm.
func TestDrillWithoutAGateway(t *testing.T) {
	p := pace{
		calm: 300 * time.Millisecond, storm: time.Second, after: time.Second, grace: 300 * time.Millisecond, workers: 6, work: 50 * time.Millisecond,
		patience: 100 * time.Millisecond, rate: 110, goodput: 0.9, amplification: 1.25, recovery: time.Second,
	}
	direct := gateway{"direct", func(_ context.Context, _ *sync.WaitGroup, origin string) (string, error) { return origin, nil }}
	rep, err := run(t.Context(), io.Discard, []gateway{direct}, p)
	if err != nil {
		t.Fatal(err)
	}
	if f := rep.Gateways[0]; rep.Passed || f.Share > 0.9 || f.Amplification < 0.5 {
		t.Errorf("%+v", rep)
	}
}

func TestJudge(t *testing.T) {
	recovery := func(ms float64) *float64 { return &ms }
	good := Figures{Gateway: "landfall", Calm: 180, Storm: 97, Share: 0.97, Amplification: 0.6, PerAdmitted: 1.05, RecoveryMS: recovery(1500)}
	p := usualPace()
	for _, tt := range []struct {
		name string
		edit func(*Figures)
		want string // in what is broken; empty: it passes
	}{
		{"all well", func(*Figures) {}, ""},
		{"too little", func(f *Figures) { f.Share = 0.89 }, "89% of the 100"},
		{"too much load", func(f *Figures) { f.PerAdmitted = 1.3 }, "1.30 requests for each"},
		{"late", func(f *Figures) { f.RecoveryMS = recovery(5500) }, "5.5 s after"},
		{"never", func(f *Figures) { f.RecoveryMS = nil }, "not served as before"},
		{"a busy machine", func(f *Figures) { f.Calm = 90 }, "too busy to tell"},
	} {
		f := good
		tt.edit(&f)
		r := Report{Gateways: []Figures{f, {Gateway: "nginx"}}, Absent: []string{"haproxy: it is not installed"}}
		r.judge(p)
		var out strings.Builder
		r.Print(&out)
		if r.Passed != (tt.want == "") || !strings.Contains(out.String(), tt.want) || !strings.Contains(out.String(), "haproxy: it is not installed") {
			t.Errorf("%s: %v\n%s", tt.name, r.Broken, out.String())
		}
	}
}

func TestRecovered(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	l := newLoad("", 0, 0)
	for i := range 400 { // 100 a second from 1 s on, but for the third second
		at := start.Add(time.Second + time.Duration(i)*10*time.Millisecond)
		l.results = append(l.results, result{at: at, good: at.Before(start.Add(2*time.Second)) || !at.Before(start.Add(3*time.Second))})
	}
	if d, ok := l.recovered(start, start.Add(5*time.Second), 90); !ok || d != 3500*time.Millisecond {
		t.Error(d, ok)
	}
	if _, ok := l.recovered(start, start.Add(3*time.Second), 90); ok {
		t.Error("it was not well at the end")
	}
	for i := range l.results { // of the fourth second, the answers of the first half come in the second
		if r := &l.results[i]; !r.at.Before(start.Add(4*time.Second)) && r.at.Before(start.Add(4500*time.Millisecond)) {
			r.took = 500 * time.Millisecond
		}
	}
	if d, ok := l.recovered(start, start.Add(5*time.Second), 90); !ok || d != 3500*time.Millisecond {
		t.Error("a hiccup is taken for a relapse:", d, ok)
	}
}

func TestOther(t *testing.T) {
	if _, why := other("caddy"); why == "" {
		t.Error("an unknown gateway is drilled")
	}
	for _, name := range Known() {
		if g, why := other(name); why != "" && why != "it is not installed" || why == "" && g.name != name {
			t.Error(name, g.name, why)
		}
	}
}

// TestSpawn: a program that ends at once is told of, and leaves nothing behind.
func TestSpawn(t *testing.T) {
	var running sync.WaitGroup
	defer running.Wait()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	_, err := spawn(ctx, &running, "/bin/false", func(string, string) (string, []string) { return "", nil })
	if err == nil || !strings.Contains(err.Error(), "ended by itself") {
		t.Error(err)
	}
	if answers(ctx, "http://127.0.0.1:1/") {
		t.Error("nobody answers there")
	}
}
