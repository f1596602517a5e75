package history

import (
	"testing"
	"time"
)

// TestFindsPlantedBugs: the checker finds just what must not be.
func TestFindsPlantedBugs(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	l := New()
	l.Purged("a", 2, at(100), at(200), []string{"away"})
	l.Read("a", "n", at(50), at(60), 1)      // before
	l.Read("a", "n", at(150), at(160), 1)    // while it goes on
	l.Read("a", "n", at(190), at(250), 1)    // began before it returned
	l.Read("a", "away", at(300), at(301), 1) // a node that was named
	l.Read("a", "n", at(300), at(301), 2)    // as it should be
	l.Read("a", "n", at(300), at(301), 3)    // newer
	l.Read("b", "n", at(300), at(301), 0)    // another object
	if r := l.Check(); len(r.Violations) != 0 || r.Reads != 7 || r.Purges != 1 || len(r.Stale) != 1 || r.Stale[0] != 201*time.Millisecond {
		t.Errorf("%+v", r)
	}
	l.Read("a", "n", at(200), at(201), 1) // at the very moment
	l.Read("a", "n", at(900), at(901), 0)
	r := l.Check()
	if len(r.Violations) != 2 || r.Violations[0].Version != 0 || r.Violations[0].After != 700*time.Millisecond || r.Violations[1].Version != 1 {
		t.Errorf("%v", r.Violations)
	}
	if r.Quantile(0.99) != 801*time.Millisecond || (Report{}).Quantile(0.5) != 0 {
		t.Errorf("%v", r.Quantile(0.99))
	}
}
