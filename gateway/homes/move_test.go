package homes

import (
	"context"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// series are a registry's counters and gauges, by name and label values.
func series(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			out[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return out
}

// clock is a time that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// migrating is a service whose users move from eu and us to a ring that has ap, too.
func migrating(t *testing.T, c *clock) *Directory {
	t.Helper()
	d := New(Options{Service: "shop", Regions: map[string]int{"eu": 1, "us": 1}, Next: map[string]int{"eu": 1, "us": 1, "ap": 1}, Handover: time.Second, Now: c.Now})
	t.Cleanup(d.Close)
	return d
}

func find(t *testing.T, d *Directory, user string) Home {
	t.Helper()
	h, err := d.Find(context.Background(), user)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Users move once each, in their order, as the share grows; who is not to move never does; and back again.
func TestMigrationMovesEachUserOnce(t *testing.T) {
	c := newClock()
	d := migrating(t, c)
	start := c.now
	const n = 3000
	before := make([]Home, n)
	for i := range n {
		before[i] = find(t, d, user(i))
	}
	d.Take([]Move{{Service: "shop", Rings: d.rings, To: 1, Since: start, Over: 100 * time.Minute}}, nil)
	moved := make([]time.Duration, n)
	count := 0
	for at := time.Duration(0); at <= 100*time.Minute; at += 10 * time.Minute {
		c.now = start.Add(at)
		count = 0
		for i := range n {
			h := find(t, d, user(i))
			switch {
			case h.Region == before[i].Region:
				if moved[i] != 0 {
					t.Fatalf("%s moved back by itself", user(i))
				}
			case h.Region != "ap" || h.Why != Moved || h.Old != before[i].Region:
				t.Fatalf("%+v, before %+v", h, before[i])
			default:
				moved[i] = max(moved[i], 1)
				count++
			}
		}
		want := float64(at) / float64(100*time.Minute) / 3 * n
		if math.Abs(float64(count)-want) > 0.04*n {
			t.Errorf("after %s %d users moved, want about %.0f", at, count, want)
		}
	}
	d.Take([]Move{{Service: "shop", Rings: d.rings, From: 1, To: 0, Since: c.now}}, nil)
	for i := range n {
		if h := find(t, d, user(i)); h.Region != before[i].Region || h.Old != "" {
			t.Fatalf("%s did not come back: %+v", user(i), h)
		}
	}
	s := d.Show()
	if len(s.Movers) != 2 || math.Abs(s.Movers[0].Share-1.0/6) > 0.02 || s.Movers[0].To != "ap" {
		t.Errorf("%+v", s.Movers)
	}
}

// A write near its user's moment waits until the moment is over; a read never does.
func TestHandover(t *testing.T) {
	c := newClock()
	d := migrating(t, c)
	mover := ""
	for i := 0; mover == ""; i++ {
		if d.next.Home(KeyOf(user(i))) == "ap" {
			mover = user(i)
		}
	}
	m := Move{Service: "shop", Rings: d.rings, To: 1, Since: c.now.Add(10 * time.Second), Over: time.Hour}
	d.Take([]Move{m}, nil)
	moment, moves := m.moment(placeOf(KeyOf(mover)))
	if !moves {
		t.Fatal("does not move")
	}
	for _, tt := range []struct {
		at   time.Duration // after the moment
		wait time.Duration
		home string
	}{
		{-time.Minute, 0, "old"}, {-2 * time.Second, 0, "old"}, {-500 * time.Millisecond, 1500 * time.Millisecond, "old"},
		{500 * time.Millisecond, 500 * time.Millisecond, "ap"}, {2 * time.Second, 0, "ap"},
	} {
		c.now = moment.Add(tt.at)
		h := find(t, d, mover)
		if h.Wait != tt.wait || (h.Region == "ap") != (tt.home == "ap") || h.Wait > 0 && h.Next != "ap" {
			t.Errorf("%s after the moment: %+v", tt.at, h)
		}
	}
}

// A register of another service, or of a migration that is over, moves nobody.
func TestMovesOfOthers(t *testing.T) {
	c := newClock()
	d := migrating(t, c)
	for _, m := range []Move{{Service: "other", Rings: d.rings, To: 1}, {Service: "shop", Rings: "before", To: 1}, {Service: "shop", To: 1}} {
		d.Take([]Move{m}, nil)
		if s := d.Show(); s.Share != 0 || s.Move != nil {
			t.Errorf("%+v took effect: %+v", m, s)
		}
	}
	plain := New(Options{Service: "shop", Regions: map[string]int{"eu": 1}, Now: c.Now})
	defer plain.Close()
	plain.Take([]Move{{Service: "shop", To: 1}}, nil)
	if h := find(t, plain, "u"); h.Region != "eu" || len(h.Then) != 0 {
		t.Errorf("%+v", h)
	}
}

func TestPins(t *testing.T) {
	c := newClock()
	reg := prometheus.NewRegistry()
	d := New(Options{Service: "shop", Regions: map[string]int{"eu": 1, "us": 1}, Now: c.Now, Metrics: NewMetrics(reg)})
	d.Take(nil, []Pin{{Service: "shop", User: "vip", Region: "ap"}, {Service: "other", User: "u", Region: "ap"}, {Service: "shop", User: "guest", Region: "ap", Until: c.now.Add(time.Minute)}})
	if h := find(t, d, "vip"); h.Region != "ap" || h.Why != Pinned || len(h.Then) != 2 {
		t.Errorf("%+v", h)
	}
	if h := find(t, d, "guest"); h.Why != Pinned {
		t.Errorf("%+v", h)
	}
	c.now = c.now.Add(time.Hour)
	if h := find(t, d, "guest"); h.Why != ByRing {
		t.Errorf("a pin that is over: %+v", h)
	}
	if h := find(t, d, "u"); h.Why != ByRing {
		t.Errorf("another service's pin: %+v", h)
	}
	if got := series(t, reg); got["landfall_home_pins shop"] != 2 {
		t.Errorf("%v", got)
	}
	d.Close()
	if got := series(t, reg); len(got) != 0 {
		t.Errorf("series of a service that is gone: %v", got)
	}
}

// TestTakeHasNoGap: who has moved stays so while the same orders are put into force again, as each look at the fleet does.
func TestTakeHasNoGap(t *testing.T) {
	c := newClock()
	d := New(Options{Service: "shop", Regions: map[string]int{"eu": 1}, Next: map[string]int{"us": 1}, Now: c.Now})
	defer d.Close()
	moves := append(slices.Repeat([]Move{{Service: "another"}}, 2000), Move{Service: "shop", Rings: d.rings, From: 1, To: 1, Since: c.now})
	d.Take(moves, nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 300 {
			d.Take(moves, nil)
		}
	}()
	for {
		if got := d.Share(); got != 1 {
			t.Errorf("%g of the users have moved, want all", got)
			break
		}
		select {
		case <-done:
			return
		default:
		}
	}
	<-done
}
