package upstream

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sony/gobreaker/v2"

	"landfall/configs"
)

var testBreaker = configs.Breaker{
	TripAt: 0.5, MinRequests: 4, Window: configs.Duration(10 * time.Second), Open: configs.Duration(5 * time.Second), Probes: 2,
}

// pass lets virtual time pass.
func pass(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
	synctest.Wait()
}

// TestBreakerStories: "+" success, "-" failure, "0" neither, "." a second passes, "_" five of them. After each the state:
// c(losed), h(alf-open), o(pen); a request that is refused is written in capitals.
func TestBreakerStories(t *testing.T) {
	stories := map[string]struct{ events, want string }{
		"too few requests say nothing":       {"---", "ccc"},
		"half of four fail":                  {"++--", "ccco"},
		"less than half fail":                {"+++-+-+-", "cccccccc"},
		"what is neither isn't counted":      {"000000---0-", "ccccccccc" + "co"},
		"open refuses":                       {"----+", "cccoO"},
		"opens, tries, closes":               {"----_.++", "ccco" + "ohhc"},
		"one failure while half-open":        {"----_.+-", "ccco" + "ohho"},
		"neither while half-open":            {"----_.00000++", "ccco" + "ohhhhhhhc"},
		"failures that left the window":      {"---__.-", "cccccc" + "c"},
		"successes that left the window":     {"++++++__.----", "cccccccccccco"},
		"after closing the window is empty ": {"----_.++---", "ccco" + "ohhcccc"},
	}
	for name, s := range stories {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker(normalBreaker(testBreaker), time.Now, func(_, _ gobreaker.State) {})
				var got strings.Builder
				for _, e := range s.events {
					refused := false
					switch e {
					case '.':
						pass(time.Second)
					case '_':
						pass(5 * time.Second)
					default:
						leave, ok := b.allow()
						if refused = !ok; ok {
							leave.done(map[rune]error{'+': nil, '-': errFailure, '0': errNeutral}[e])
						}
					}
					mark := fmt.Sprint(b.state())[:1]
					if refused {
						mark = strings.ToUpper(mark)
					}
					got.WriteString(mark)
				}
				if got.String() != s.want {
					t.Errorf("after %s: %s, want %s", s.events, got.String(), s.want)
				}
			})
		})
	}
}

// TestBreakerTells: changes are told without a lock held, so the listener may ask for the state.
func TestBreakerTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		var b *breaker
		b = newBreaker(normalBreaker(testBreaker), time.Now, func(from, to gobreaker.State) {
			told = append(told, fmt.Sprintf("%v>%v=%v", from, to, b.state()))
		})
		for range 4 {
			leave, _ := b.allow()
			leave.done(errFailure)
			b.flush()
		}
		pass(6 * time.Second)
		for range 2 {
			leave, ok := b.allow()
			if !ok || !leave.halfOpen {
				t.Errorf("allow: %v, half-open %v", ok, leave.halfOpen)
			}
			leave.done(nil)
			b.flush()
		}
		if got := strings.Join(told, " "); got != "closed>open=open open>half-open=half-open half-open>closed=closed" {
			t.Error(got)
		}
	})
}

func TestNormalBreaker(t *testing.T) {
	want := configs.Breaker{
		TripAt: 0.5, PoolTripAt: 0.8, MinRequests: 20, Window: configs.Duration(10 * time.Second), Open: configs.Duration(5 * time.Second),
		Probes: 3, Requests: 1000, Connections: 1000, Pending: 1000,
	}
	if got := normalBreaker(configs.Breaker{}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := normalBreaker(want); got != want {
		t.Errorf("a full breaker is changed to %+v", got)
	}
}

// TestTripSaysWhy: the event of a trip has the figures that it was decided by.
func TestTripSaysWhy(t *testing.T) {
	var detail string
	var b *breaker
	b = newBreaker(normalBreaker(configs.Breaker{MinRequests: 4}), time.Now, func(from, to gobreaker.State) { _, detail = breakerText(b, from, to) })
	for _, outcome := range []error{nil, errFailure, errFailure, errFailure} {
		l, ok := b.allow()
		if !ok {
			t.Fatal("refused")
		}
		l.done(outcome)
		b.flush()
	}
	if detail != "3 of 4 requests in 10s failed" {
		t.Errorf("%q", detail)
	}
}
