package healthcheck

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"landfall/routing"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// TestMachine tells stories: each letter is one second. "+" and "-" are results, "." is silence looked at by expire.
// The states wanted after each: u(nknown), U(p), D(own). rise 2, fall 3, stale after 4s.
func TestMachine(t *testing.T) {
	stories := map[string]struct{ events, want string }{
		"one success is enough at the start":          {"+", "U"},
		"fall failures are needed at the start":       {"---", "uuD"},
		"a failure before the first success":          {"-+", "uU"},
		"failures in a row take it down":              {"+---", "UUUD"},
		"a success starts the failures anew":          {"+--+--", "UUUUUU"},
		"flapping below the counts changes nothing":   {"+-+-+-+-", "UUUUUUUU"},
		"rise successes bring it up":                  {"---++", "uuDDU"},
		"a failure starts the successes anew":         {"---+-+-++", "uuDDDDDDU"},
		"a failed probe never brings it up":           {"------", "uuDDDD"},
		"silence makes it unknown":                    {"+.....", "UUUUUu"},
		"silence makes down unknown too":              {"---.....", "uuDDDDDu"},
		"after silence one success is enough":         {"---.....+", "uuDDDDDuU"},
		"after silence the failures are counted anew": {"+--.....--", "UUUUUUUuuu"},
		"a shorter silence changes nothing":           {"+...+", "UUUUU"},
	}
	for name, story := range stories {
		t.Run(name, func(t *testing.T) {
			m := newMachine(2, 3, 4*time.Second, epoch)
			var got strings.Builder
			for i, e := range story.events {
				now := epoch.Add(time.Duration(i) * time.Second)
				if e == '.' {
					m.expire(now)
				} else {
					m.step(now, e == '+')
				}
				got.WriteString(map[routing.State]string{routing.Up: "U", routing.Down: "D", routing.Unknown: "u"}[m.state])
			}
			if got.String() != story.want {
				t.Errorf("after %s: got %s, want %s", story.events, got.String(), story.want)
			}
		})
	}
}

// TestMachineAfterSilence: a result after a silence that nobody looked at doesn't build on what was before it.
func TestMachineAfterSilence(t *testing.T) {
	m := newMachine(2, 3, 4*time.Second, epoch)
	for i := range 3 {
		m.step(epoch.Add(time.Duration(i)*time.Second), false)
	}
	late := epoch.Add(time.Hour)
	if changed := m.step(late, true); !changed || m.state != routing.Up || !m.since.Equal(late) {
		t.Errorf("got changed %v, state %v since %v; want up since %v", changed, m.state, m.since, late)
	}
}

// TestMachineProperties: whatever comes, up needs a success just seen or believed, down needs fall failures, and changed
// says exactly when the state differs.
func TestMachineProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rise, fall := rapid.IntRange(1, 5).Draw(t, "rise"), rapid.IntRange(1, 5).Draw(t, "fall")
		m := newMachine(rise, fall, 10*time.Second, epoch)
		now, bad, good := epoch, 0, 0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(1, 12).Draw(t, "gap")) * time.Second)
			if m.stale(now) {
				good, bad = 0, 0
			}
			healthy := rapid.Bool().Draw(t, "healthy")
			before := m.state
			changed := m.step(now, healthy)
			if healthy {
				good, bad = good+1, 0
			} else {
				good, bad = 0, bad+1
			}
			if changed != (before != m.state) {
				t.Fatalf("changed %v from %v to %v", changed, before, m.state)
			}
			if healthy && changed && m.state == routing.Down || !healthy && changed && m.state == routing.Up {
				t.Fatalf("a result of %v led to %v", healthy, m.state)
			}
			if bad >= fall && m.state != routing.Down || good >= rise && m.state != routing.Up {
				t.Fatalf("%d failures and %d successes in a row (rise %d, fall %d) and it is %v", bad, good, rise, fall, m.state)
			}
		}
	})
}
