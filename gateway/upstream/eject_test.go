package upstream

import (
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"landfall/configs"
	"landfall/routing"
)

func ejectedOf(p *Pool) (out []int) {
	for i, o := range p.Status().Origins {
		if o.Ejected {
			out = append(out, i)
		}
	}
	return out
}

// TestEjection tells stories of what origins did, and who is left out then.
func TestEjection(t *testing.T) {
	type did struct {
		origin int
		ok     bool
		took   time.Duration
		times  int
	}
	ms := time.Millisecond
	stories := map[string]struct {
		eject configs.Eject
		did   []did
		want  []int
	}{
		"five in a row":               {did: []did{{0, false, ms, 5}}, want: []int{0}},
		"four in a row":               {did: []did{{0, false, ms, 4}}},
		"a success between":           {did: []did{{0, false, ms, 4}, {0, true, ms, 1}, {0, false, ms, 4}}},
		"half of twenty":              {did: []did{{0, true, ms, 10}, {0, false, ms, 4}, {0, true, ms, 1}, {0, false, ms, 4}, {0, true, ms, 1}, {0, false, ms, 4}}, want: []int{0}},
		"half is the most":            {did: []did{{0, false, ms, 5}, {1, false, ms, 5}, {2, false, ms, 5}, {3, false, ms, 5}}, want: []int{0, 1}},
		"off":                         {eject: configs.Eject{For: 1, Max: 0.5, MinRequests: 20}, did: []did{{0, false, ms, 50}}},
		"none may be":                 {eject: configs.Eject{ConsecutiveErrors: 1, MinRequests: 1, For: configs.Duration(time.Second)}, did: []did{{0, false, ms, 50}}},
		"twenty times slower":         {did: []did{{0, true, 400 * ms, 20}, {1, true, 20 * ms, 20}, {2, true, 20 * ms, 20}, {3, true, 20 * ms, 20}}, want: []int{0}},
		"a little slower":             {did: []did{{0, true, 80 * ms, 20}, {1, true, 20 * ms, 20}, {2, true, 20 * ms, 20}, {3, true, 20 * ms, 20}}},
		"all are slow":                {did: []did{{0, true, 400 * ms, 20}, {1, true, 400 * ms, 20}, {2, true, 400 * ms, 20}, {3, true, 400 * ms, 20}}},
		"microseconds say nothing":    {did: []did{{0, true, 5 * ms, 20}, {1, true, ms / 10, 20}, {2, true, ms / 10, 20}, {3, true, ms / 10, 20}}},
		"too few to compare it with":  {did: []did{{0, true, 400 * ms, 20}, {1, true, 20 * ms, 20}}},
		"too few requests to tell by": {did: []did{{0, true, 400 * ms, 10}, {1, true, 20 * ms, 20}, {2, true, 20 * ms, 20}, {3, true, 20 * ms, 20}}},
	}
	for name, s := range stories {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newTestPool(t, PoolOptions{Origins: names(4), Eject: s.eject})
				for _, d := range s.did {
					for range d.times {
						p.members.Load().list[d.origin].judge(d.ok, d.took)
					}
				}
				pass(2 * time.Second)
				p.lookForSlow(time.Now())
				if got := ejectedOf(p); !slices.Equal(got, s.want) {
					t.Errorf("ejected: %v, want %v", got, s.want)
				}
			})
		})
	}
}

// TestEjectionEnds: an ejected origin returns on trial, and one that fails its trial stays out for longer.
func TestEjectionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		heard := &events{}
		reg := prometheus.NewRegistry()
		p := newTestPool(t, PoolOptions{Origins: names(3), OnEvent: heard.note, Metrics: NewMetrics(reg), Breaker: configs.Breaker{MinRequests: 1000}})
		o := p.members.Load().list[0]
		fail := func() {
			for range 5 {
				o.judge(false, time.Millisecond)
			}
		}
		fail()
		if got := spread(t, p, 300, nil); got[0] != 0 {
			t.Errorf("an ejected origin got %d of 300", got[0])
		}
		pass(10 * time.Second)
		if got := spread(t, p, 3000, nil); got[0] == 0 || got[0] > 400 {
			t.Errorf("on trial it got %d of 3000", got[0])
		}
		fail()
		pass(15 * time.Second)
		if got := ejectedOf(p); !slices.Equal(got, []int{0}) {
			t.Error("the second ejection should last for 20 seconds")
		}
		pass(5 * time.Second)
		spread(t, p, 1, nil)
		for range trialRequests {
			o.judge(true, time.Millisecond)
		}
		if got := spread(t, p, 3000, nil); got[0] < 800 {
			t.Errorf("after its trial it got %d of 3000", got[0])
		}
		if heard.String() != "origin.ejected origin.returned origin.ejected origin.returned" || o.passive.times.Load() != 0 {
			t.Errorf("%s, %d ejections in a row", heard, o.passive.times.Load())
		}
		if got := series(t, reg); !strings.Contains(got, "landfall_ejections_total consecutive_errors web 2") {
			t.Error(got)
		}
	})
}

// TestAllEjectedStillServe: ejection alone refuses nobody.
func TestAllEjectedStillServe(t *testing.T) {
	var sick atomic.Bool
	serve := func(w http.ResponseWriter, r *http.Request) {
		if sick.Load() {
			w.WriteHeader(503)
			return
		}
		hello(w, r)
	}
	p := newTestPool(t, PoolOptions{
		Origins: []string{good(t, serve), good(t, serve)}, Breaker: configs.Breaker{MinRequests: 1000},
		Eject: configs.Eject{ConsecutiveErrors: 2, MinRequests: 100, For: configs.Duration(time.Hour), Max: 1},
	})
	sick.Store(true)
	for range 10 {
		_, _, _, _ = do(p, request(t, "GET", nil), policy())
	}
	if got := ejectedOf(p); len(got) != 2 {
		t.Fatalf("ejected: %v", got)
	}
	sick.Store(false)
	if text, _, _, err := do(p, request(t, "GET", nil), policy()); text != "hello" {
		t.Error(text, err)
	}
}

// TestOrders: an operator's word holds, and is told.
func TestOrders(t *testing.T) {
	heard := &events{}
	a, b := good(t, hello), good(t, hello)
	p := newTestPool(t, PoolOptions{Origins: []string{a, b}, OnEvent: heard.note})
	p.SetOrders(Orders{Breakers: map[string]Hold{a: {Open: true}}})
	p.SetOrders(Orders{Breakers: map[string]Hold{a: {Open: true}}})
	if got := spread(t, p, 100, nil); got[0] != 0 {
		t.Error("an origin whose breaker an operator opened got", got[0])
	}
	p.SetOrders(Orders{Breakers: map[string]Hold{a: {Open: true}, b: {Open: true}}})
	if _, _, _, err := do(p, request(t, "GET", nil), policy()); err == nil {
		t.Error("both are open")
	}
	p.SetOrders(Orders{Breakers: map[string]Hold{b: {}}, Drained: map[string]bool{a: true}})
	if got := spread(t, p, 100, nil); got[0] != 0 {
		t.Error("a drained origin got", got[0])
	}
	o := p.members.Load().byName[b]
	for range 100 {
		leave, ok := o.breaker.allow()
		if !ok {
			t.Fatal("a breaker that an operator closed refuses")
		}
		leave.done(errFailure)
	}
	if s := p.Status().Origins[1]; s.Breaker != "closed" || !s.Forced {
		t.Errorf("%+v", s)
	}
	if heard.String() != "breaker.open breaker.open breaker.closed breaker.closed" {
		t.Error(heard)
	}
}

// TestOrdersOnThePool: an operator opens and closes the breaker of the whole pool, whatever its requests show.
func TestOrdersOnThePool(t *testing.T) {
	var heard []string
	sick := good(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	p := newTestPool(t, PoolOptions{
		Service: "web", Region: "eu", Origins: []string{sick, sick + "/"}, Eject: configs.Eject{ConsecutiveErrors: 1000, MinRequests: 1e6},
		Breaker: configs.Breaker{TripAt: 1, MinRequests: 1e6}, OnEvent: func(kind, subject, detail string) { heard = append(heard, kind+" "+subject+" "+detail) },
	})
	p.SetOrders(Orders{Pool: &Hold{Open: true, Why: "by ann: the database is down"}})
	p.SetOrders(Orders{Pool: &Hold{Open: true, Why: "by ann: the database is down"}})
	if _, _, _, err := do(p, request(t, "GET", nil), policy()); causeOf(err) != CauseBreakerOpen {
		t.Error("a pool that is held open served:", err)
	}
	if s := p.Status(); s.Breaker != "open" || !s.Forced || s.State != routing.Down || s.Origins[0].Requests != 0 {
		t.Errorf("%+v", s)
	}
	p.SetOrders(Orders{Pool: &Hold{}})
	p.breaker.c.MinRequests = 2 // whatever its requests show
	for range 20 {
		if _, _, info, err := do(p, request(t, "GET", nil), policy()); err != nil || info.Cause != CauseStatus {
			t.Fatal("a pool that is held closed refused:", info, err)
		}
	}
	p.SetOrders(Orders{})
	if s := p.Status(); s.Breaker != "closed" || s.Forced {
		t.Errorf("%+v", s)
	}
	want := []string{"breaker.open web/eu of the whole pool: by ann: the database is down", "breaker.closed web/eu of the whole pool: by an operator",
		"breaker.closed web/eu of the whole pool: an operator leaves it to itself again"}
	if !slices.Equal(heard, want) {
		t.Errorf("%q", heard)
	}
}

// TestPoolBreaker: when requests fail whatever origin they go to, the pool says so and other regions may serve.
func TestPoolBreaker(t *testing.T) {
	heard := &events{}
	p := newTestPool(t, PoolOptions{
		Origins: []string{good(t, status(503)), good(t, status(503))}, OnEvent: heard.note,
		Breaker: configs.Breaker{TripAt: 1, PoolTripAt: 0.8, MinRequests: 10, Probes: 1, Open: configs.Duration(time.Hour)},
		Eject:   configs.Eject{MinRequests: 1},
	})
	pol := policy()
	pol.Attempts = 1
	for range 10 {
		_, _, _, _ = do(p, request(t, "GET", nil), pol)
	}
	if s := p.Status(); s.Breaker != "open" || s.State.String() != "down" {
		t.Errorf("%+v", s)
	}
	_, _, a, err := do(p, request(t, "GET", nil), pol)
	wantError(t, err, CauseBreakerOpen, "")
	if a.Sent || a.Tries != 0 {
		t.Errorf("%+v", a)
	}
	wantIdle(t, p)
}
