package healthcheck

import (
	"slices"
	"strings"
	"testing"
	"time"

	"landfall/routing"
)

// A story is what is seen of regions a, b, c, d from home, second by second: u up, d down, s down as it starts, D draining, ? unknown.
func TestJudge(t *testing.T) {
	states := map[rune]routing.State{'u': routing.Up, 'd': routing.Down, 's': routing.Down, 'D': routing.Draining, '?': routing.Unknown}
	letters := map[routing.State]rune{routing.Up: 'u', routing.Down: 'd', routing.Draining: 'D', routing.Unknown: '?'}
	for name, c := range map[string]struct{ seen, want []string }{
		"an ordinary day":                       {[]string{"uuu", "uuu"}, []string{"uuu", "uuu"}},
		"the first finding is believed at once": {[]string{"?du", "udu"}, []string{"?du", "udu"}},
		"down at once, up after the hold": {
			[]string{"uuu", "duu", "duu", "uuu", "uuu", "uuu", "uuu"},
			[]string{"uuu", "duu", "duu", "duu", "duu", "uuu", "uuu"},
		},
		"a break starts the hold anew": {
			[]string{"uuu", "duu", "uuu", "?uu", "uuu", "uuu", "uuu"},
			[]string{"uuu", "duu", "duu", "?uu", "uuu", "uuu", "uuu"},
		},
		"a second fall holds twice as long": {
			[]string{"uuu", "duu", "uuu", "uuu", "uuu", "duu", "uuu", "uuu", "uuu", "uuu", "uuu"},
			[]string{"uuu", "duu", "duu", "duu", "uuu", "duu", "duu", "duu", "duu", "duu", "uuu"},
		},
		"draining is told, not thought about": {[]string{"uuu", "Duu", "uuu"}, []string{"uuu", "Duu", "uuu"}},
		"cut off: what was known is kept": {
			[]string{"uuu", "ddu", "ddd", "ddd", "uuu"},
			[]string{"uuu", "uuu", "uuu", "uuu", "uuu"},
		},
		"one after the other is no isolation": {
			[]string{"uuu", "duu", "duu", "uuu"},
			[]string{"uuu", "duu", "duu", "duu"},
		},
		"a fleet that starts waits nothing out": {
			[]string{"???", "s??", "sss", "uss", "uus", "uud"},
			[]string{"???", "???", "???", "u??", "uu?", "uud"},
		},
		"a region that starts again was down all the same": {
			[]string{"uuu", "duu", "suu", "suu", "uuu", "uuu", "uuu"},
			[]string{"uuu", "duu", "duu", "duu", "duu", "duu", "uuu"},
		},
		"what never was up is not kept": {[]string{"ddd", "ddd"}, []string{"ddd", "ddd"}},
	} {
		t.Run(name, func(t *testing.T) {
			j := NewJudge(Policy{Hold: 2 * time.Second, Distrust: 0.5})
			for second, letter := range c.seen {
				now := epoch.Add(time.Duration(second) * time.Second)
				var sights []Sight
				for i, l := range letter {
					sights = append(sights, Sight{Subject: Subject{Region: "abc"[i : i+1]}, State: states[l], Starting: l == 's'})
				}
				j.Step(now, "home", append(sights, Sight{Subject: Subject{Region: "home"}, State: routing.Up}), nil)
				got := ""
				for _, s := range sights {
					got += string(letters[j.Verdict(s.Subject).State])
				}
				if got != c.want[second] {
					t.Errorf("second %d: seen %s, found %s, not %s", second, letter, got, c.want[second])
				}
			}
		})
	}
}

// An observer whose lines fall one after the other, the shortest first, suspects itself before it finds anybody down.
func TestJudgeHearsFewer(t *testing.T) {
	j := NewJudge(Policy{Hold: time.Second, Distrust: 0.5})
	story := []string{"uuu", "uus", "uss", "sss", "ssd", "sdd", "ddd"} // s: silent, though others reach it
	for second, letters := range story {
		sights := []Sight{{Subject: Subject{Region: "home"}, State: routing.Up}}
		for i, l := range letters {
			s := Sight{Subject: Subject{Region: "abc"[i : i+1]}, State: routing.Up, Silent: l != 'u'}
			if l == 'd' {
				s.State = routing.Down
			}
			sights = append(sights, s)
		}
		if changes := j.Step(epoch.Add(time.Duration(second)*time.Second), "home", sights, nil); second > 0 && len(changes) > 0 {
			t.Errorf("after %s: %+v", letters, changes)
		}
		if isolated, _ := j.Isolated(); isolated != (second >= 2) {
			t.Errorf("after %s it is isolated: %t", letters, isolated)
		}
	}
}

// In a fleet of two regions an observer that loses the other region and its own neighbours at about one moment suspects
// itself; one whose neighbours had died long before, or still speak, believes that the other region is gone.
func TestJudgeIsAlone(t *testing.T) {
	for name, c := range map[string]struct {
		story    []string // the own region's other nodes, then the other region: u up, s silent, d down
		isolated bool
		find     routing.State
	}{
		"both at once":              {[]string{"uu", "sd", "sd"}, true, routing.Up},
		"the neighbours first":      {[]string{"uu", "su", "su", "sd"}, true, routing.Up},
		"the other region first":    {[]string{"uu", "ud", "sd"}, false, routing.Down},
		"neighbours that speak":     {[]string{"uu", "ud", "ud"}, false, routing.Down},
		"neighbours dead for long":  {append([]string{"uu"}, append(slices.Repeat([]string{"su"}, 12), "sd", "sd")...), false, routing.Down},
		"no neighbours":             {[]string{"uu", "ud"}, false, routing.Down},
		"for as long as it lasts":   {append([]string{"uu"}, slices.Repeat([]string{"sd"}, 60)...), true, routing.Up},
		"back at the neighbours'":   {[]string{"uu", "sd", "ud"}, false, routing.Down},
		"it hears the other region": {[]string{"uu", "su", "su"}, false, routing.Up},
	} {
		t.Run(name, func(t *testing.T) {
			j := NewJudge(Policy{Hold: time.Second, Distrust: 0.5})
			for second, l := range c.story {
				state := map[byte]routing.State{'u': routing.Up, 'd': routing.Down}
				j.Step(epoch.Add(time.Duration(second)*time.Second), "home", []Sight{
					{Subject: Subject{Region: "home"}, State: routing.Up, Silent: l[0] == 's'}, {Subject: Subject{Region: "a"}, State: state[l[1]]},
				}, nil)
			}
			isolated, why := j.Isolated()
			if v := j.Verdict(Subject{Region: "a"}); isolated != c.isolated || v.State != c.find || v.Kept != c.isolated {
				t.Errorf("isolated %t (%s), finds %+v", isolated, why, v)
			}
		})
	}
}

func TestJudgeIsForced(t *testing.T) {
	j := NewJudge(Policy{Hold: time.Second, Distrust: 1})
	region, shop := Subject{Region: "a"}, Subject{"a", "shop"}
	sights := []Sight{{Subject: region, State: routing.Up, Evidence: "reached from b"}, {Subject: shop, State: routing.Up}}
	force := []Force{
		{region, routing.Down, "cable works", "ann", epoch.Add(10 * time.Second)},
		{shop, routing.Up, "the check is wrong", "bob", epoch.Add(20 * time.Second)},
	}
	step := func(second int) (Verdict, Verdict, []Change) {
		changes := j.Step(epoch.Add(time.Duration(second)*time.Second), "home", sights, force)
		return j.Verdict(region), j.Verdict(shop), changes
	}
	r, s, changes := step(0)
	if r.State != routing.Down || !r.Forced || s.State != routing.Up || len(changes) != 2 {
		t.Errorf("not forced: %+v, %+v, %v", r, s, changes)
	}
	for _, part := range []string{"forced down by ann", "cable works", "seen up"} {
		if !strings.Contains(r.Evidence, part) {
			t.Errorf("the evidence does not say %q: %s", part, r.Evidence)
		}
	}
	if r, _, _ = step(10); r.State != routing.Up || r.Forced || r.Evidence != "reached from b" {
		t.Errorf("the force did not expire: %+v", r)
	}
}

func TestFlapsAreDamped(t *testing.T) {
	j := NewJudge(Policy{Hold: time.Second, Distrust: 1})
	changes := 0
	for second := range 3600 {
		state := routing.Up
		if second%4 == 0 {
			state = routing.Down
		}
		changes += len(j.Step(epoch.Add(time.Duration(second)*time.Second), "home", []Sight{{Subject: Subject{Region: "a"}, State: state}}, nil))
	}
	if changes > 60 {
		t.Errorf("a region that flaps 900 times in an hour makes %d changes", changes)
	}
}

func BenchmarkJudge(b *testing.B) {
	var sights []Sight
	for _, region := range strings.Fields("a b c d e f g h i j") {
		for _, service := range []string{"", "shop", "web"} {
			sights = append(sights, Sight{Subject: Subject{region, service}, State: routing.Up, Evidence: "reached"})
		}
	}
	j := NewJudge(Policy{Hold: time.Second, Distrust: 0.5})
	b.ReportAllocs()
	for b.Loop() {
		j.Step(epoch, "a", sights, nil)
	}
}

// What comes up for the first time is no return; what fell and comes up is one, until it falls again.
func TestReturnIsTold(t *testing.T) {
	start := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	j := NewJudge(Policy{Hold: time.Second, Distrust: 1})
	s := Subject{Region: "us"}
	for second, c := range []struct {
		seen routing.State
		back int // the second at which it returned; -1: it didn't
	}{
		{routing.Unknown, -1}, {routing.Down, -1}, {routing.Up, -1}, {routing.Up, -1}, {routing.Down, -1}, {routing.Up, -1},
		{routing.Up, 6}, {routing.Up, 6}, {routing.Draining, 6}, {routing.Up, 6}, {routing.Down, -1},
	} {
		now := start.Add(time.Duration(second) * time.Second)
		j.Step(now, "home", []Sight{{Subject: s, State: c.seen}}, nil)
		want := time.Time{}
		if c.back >= 0 {
			want = start.Add(time.Duration(c.back) * time.Second)
		}
		if got := j.Verdict(s).Returned; !got.Equal(want) {
			t.Errorf("second %d: returned %v, want %v", second, got, want)
		}
	}
}
