package drill

import (
	"strings"
	"testing"
	"time"
)

// Each steering drill passes on a fleet that steers right and finds each fault that is planted in one that does not.
func TestSteeringDrillsTellRightFromWrong(t *testing.T) {
	for _, c := range []struct {
		name, drill string
		faults      steeringFaults
		broken      string // a piece of the promise that must be told as broken; empty: it passes
	}{
		{"all is well", "strict-residency", steeringFaults{}, ""},
		{"the other region serves them", "strict-residency", steeringFaults{vaultLeaks: true}, "not a 503"},
		{"DNS sends them elsewhere", "strict-residency", steeringFaults{vaultNamed: true}, "DNS sent clients of east to"},
		{"all is well", "gradual-drain", steeringFaults{}, ""},
		{"everybody at once", "gradual-drain", steeringFaults{drainsAtOnce: true}, "half-way through the drain 100%"},
		{"there and back", "gradual-drain", steeringFaults{drainFlaps: true}, "were moved more than once"},
		{"nobody", "gradual-drain", steeringFaults{drainStalls: true}, "only 0 of 10 networks"},
		{"all is well", "spill", steeringFaults{}, ""},
		{"nobody", "spill", steeringFaults{spillsNobody: true}, "0 are sent on"},
		{"all of them", "spill", steeringFaults{spillsAll: true}, "0 networks stay and 10 are sent on"},
		{"it swings", "spill", steeringFaults{spillSwings: true}, "swung from 0.00 to 0.50"},
		{"explain is silent", "spill", steeringFaults{spillSilently: true}, "rather than full"},
		{"all is well", "learnt-rtt", steeringFaults{}, ""},
		{"it is ignored", "learnt-rtt", steeringFaults{rttIgnored: true}, "DNS still sends"},
		{"everybody moves", "learnt-rtt", steeringFaults{rttMovesAll: true}, "are led to west as well"},
		{"not home again", "learnt-rtt", steeringFaults{rttSticks: true}, "did not lead"},
	} {
		t.Run(c.drill+"/"+c.name, func(t *testing.T) {
			t.Parallel()
			p := hasty()
			p.crowd, p.rate = 10, 30
			p.settle, p.over, p.leave, p.rush, p.watch, p.outage = 300*time.Millisecond, time.Second, 200*time.Millisecond, 300*time.Millisecond, 700*time.Millisecond, 400*time.Millisecond
			if c.drill == "gradual-drain" {
				p.over = 3 * time.Second // a busy machine that looks half a second late still sees some gone and some not
			}
			p.slow, p.learn = 200*time.Millisecond, 3*time.Second
			if c.faults.rttIgnored {
				p.learn = time.Second
			}
			_, rep := carryOut(t, c.drill, faults{steeringFaults: c.faults}, p, func(rep *Report) bool {
				return rep.Passed == (c.broken == "") && strings.Contains(strings.Join(rep.Broken, "\n"), c.broken)
			})
			if rep.Passed && (rep.Requests == 0 || len(rep.Facts) == 0) {
				t.Errorf("%+v", rep)
			}
		})
	}
}
