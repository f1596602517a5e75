package healthcheck

import (
	"testing"

	"landfall/routing"
)

func TestReachable(t *testing.T) {
	hold(t, map[string]ballotCase{
		"nobody looks": {nil, "majority", true, "no observer"},
		"its own word doesn't count": {
			[]Observation{sees("x1", "y", "x1")}, "any", true, "no observer in another region",
		},
		"all reach it": {
			[]Observation{sees("a1", "a"), sees("b1", "b", "c1")}, "any", true, "reached from a (a1), b (b1)",
		},
		"one of three moves nothing": {
			[]Observation{sees("a1", "a", "x1"), sees("b1", "b"), sees("c1", "c")}, "majority", true,
			"unreachable from a (a1), reached from b (b1), c (c1); 2 of 3 regions must agree",
		},
		"two of three agree": {
			[]Observation{sees("a1", "a", "x1"), sees("b1", "b", "x1"), sees("c1", "c")}, "majority", false,
			"unreachable from a (a1), b (b1), reached from c (c1); 2 of 3 regions must agree",
		},
		"half is no majority": {
			[]Observation{sees("a1", "a", "x1"), sees("b1", "b")}, "majority", true,
			"unreachable from a (a1), reached from b (b1); 2 of 2 regions must agree",
		},
		"many nodes of one region are one voice": {
			[]Observation{sees("a1", "a", "x1"), sees("a2", "a", "x1"), sees("a3", "a", "x1"), sees("b1", "b"), sees("c1", "c")},
			"majority", true, "unreachable from a (a1, a2, a3), reached from b (b1), c (c1); 2 of 3 regions must agree",
		},
		"one that reaches it speaks for its region": {
			[]Observation{sees("a1", "a", "x1"), sees("a2", "a"), sees("b1", "b", "x1")}, "majority", true,
			"unreachable from b (b1), reached from a (a2); 2 of 2 regions must agree",
		},
		"those that live and can't be heard count": {
			[]Observation{sees("a1", "a", "x1"), {Observer: "b1", ObserverRegion: "b", Unheard: true}, {Observer: "c1", ObserverRegion: "c", Unheard: true}},
			"majority", true, "unreachable from a (a1); 2 of 3 regions must agree",
		},
		"its own region's observers don't, heard or not": {
			[]Observation{sees("a1", "a", "x1"), {Observer: "x1", ObserverRegion: "x", Unheard: true}}, "majority", false,
			"unreachable from a (a1); 1 of 1 regions must agree",
		},
		"one of two that are heard is not enough, though the other has not looked": {
			[]Observation{sees("a1", "a", "x1"), {Observer: "b1", ObserverRegion: "b", Watches: []string{}}}, "majority", true,
			"unreachable from a (a1); 2 of 2 regions must agree",
		},
		"two regions: the other decides": {
			[]Observation{sees("a1", "a", "x1"), sees("x2", "x")}, "majority", false,
			"unreachable from a (a1); 1 of 1 regions must agree",
		},
		"any": {
			[]Observation{sees("a1", "a", "x1"), sees("b1", "b")}, "any", false,
			"unreachable from a (a1), reached from b (b1); 1 of 2 regions must agree",
		},
		"all": {
			[]Observation{sees("a1", "a", "x1"), sees("b1", "b", "x1"), sees("c1", "c")}, "all", true,
			"unreachable from a (a1), b (b1), reached from c (c1); 3 of 3 regions must agree",
		},
		"who has no link has no say": {
			[]Observation{
				sees("a1", "a", "x1"), sees("b1", "b", "x1"),
				{Observer: "c1", ObserverRegion: "c", Watches: []string{"x2"}}, {Observer: "d1", ObserverRegion: "d", Watches: []string{}},
			}, "majority", false, "unreachable from a (a1), b (b1); 2 of 2 regions must agree",
		},
		"those of a region who look can't be heard, others of it can": {
			[]Observation{
				sees("a1", "a", "x1"), sees("b1", "b", "x1"), {Observer: "c1", ObserverRegion: "c", Watches: []string{"x1"}, Unheard: true},
				{Observer: "c2", ObserverRegion: "c", Watches: []string{"x2"}}, sees("d1", "d"),
			}, "majority", true,
			"unreachable from a (a1), b (b1), reached from d (d1), no word from those who look in c; 3 of 4 regions must agree",
		},
		"who has a link has": {
			[]Observation{sees("a1", "a", "x1"), {Observer: "c1", ObserverRegion: "c", Watches: []string{"x1"}}},
			"majority", true, "unreachable from a (a1), reached from c (c1); 2 of 2 regions must agree",
		},
		"an observer that is told of twice counts once": {
			[]Observation{sees("a1", "a", "x1", "x1"), sees("a1", "a", "x1")}, "all", false,
			"unreachable from a (a1); 1 of 1 regions must agree",
		},
	})
}

// In a fleet of one region nobody but a node's neighbours looks at it.
func TestReachableByNeighbours(t *testing.T) {
	hold(t, map[string]ballotCase{
		"one region: its neighbours decide": {
			[]Observation{sees("x2", "x", "x1"), sees("x3", "x", "x1")}, "majority", false, "unreachable from its neighbours in x (x2, x3)",
		},
		"one region: a neighbour that reaches it outweighs": {
			[]Observation{sees("x2", "x", "x1"), sees("x3", "x")}, "any", true, "reached by its neighbour x3",
		},
		"one region: who asks of itself is there": {
			[]Observation{sees("x1", "x"), {Observer: "x2", ObserverRegion: "x", Unheard: true}}, "any", true, "no observer",
		},
		"one region: who is cut off does not decide": {
			[]Observation{sees("x2", "x", "x1", "x3", "x4", "x5"), unheard("x1"), unheard("x3"), unheard("x4"), unheard("x5")}, "majority", true, "3 of its neighbours can't be heard",
		},
		"one region: two that were killed at once": {
			[]Observation{sees("x2", "x", "x1", "x3"), unheard("x1"), unheard("x3"), sees("x4", "x", "x1", "x3"), sees("x5", "x", "x1", "x3")}, "majority", false, "unreachable from its neighbours in x (x2, x4, x5)",
		},
		"others that have not looked leave it to nobody": {
			[]Observation{sees("x2", "x", "x1"), {Observer: "a1", ObserverRegion: "a", Watches: []string{}}}, "any", true, "no observer in another region",
		},
	})
}

func sees(observer, region string, unreachable ...string) Observation {
	return Observation{Observer: observer, ObserverRegion: region, Unreachable: unreachable}
}

func unheard(observer string) Observation {
	return Observation{Observer: observer, ObserverRegion: "x", Unheard: true, Watches: []string{"x1"}}
}

type ballotCase struct {
	obs      []Observation
	quorum   string
	want     bool
	evidence string
}

// hold asks whether x1 of region x is reachable.
func hold(t *testing.T, tests map[string]ballotCase) {
	t.Helper()
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ok, evidence := NewBallot(tt.obs, tt.quorum).Reachable("x1", "x")
			if ok != tt.want || evidence != tt.evidence {
				t.Errorf("got %v, %q\nwant %v, %q", ok, evidence, tt.want, tt.evidence)
			}
		})
	}
}

func TestPoolState(t *testing.T) {
	const up, unknown, draining, down = routing.Up, routing.Unknown, routing.Draining, routing.Down
	for _, tt := range []struct {
		reports []routing.State
		want    routing.State
	}{
		{nil, unknown},
		{[]routing.State{up}, up},
		{[]routing.State{down}, down},
		{[]routing.State{down, down}, down},
		{[]routing.State{down, up, down}, up},
		{[]routing.State{down, unknown}, unknown},
		{[]routing.State{unknown}, unknown},
		{[]routing.State{draining, down}, unknown},
	} {
		if got := PoolState(tt.reports); got != tt.want {
			t.Errorf("PoolState(%v) = %v, want %v", tt.reports, got, tt.want)
		}
	}
}
