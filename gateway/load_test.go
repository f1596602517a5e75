package gateway

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// Under traffic that is as uneven as traffic is, a report changes about once in some seconds and yet stays near the truth;
// a jump is told with the next tick.
func TestReportStandsStillUnderTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		draw := rand.New(rand.NewPCG(7, 7))
		var (
			load   rate
			s      steady
			last   string
			report report
		)
		// run lets requests arrive by a Poisson process, in its normal approximation, and counts what is told.
		run := func(perSecond float64, span time.Duration) (changes int, worst float64) {
			for end := time.Now().Add(span); time.Now().Before(end); {
				<-time.After(tickInterval)
				mean := perSecond * tickInterval.Seconds()
				load.count.Add(uint64(math.Round(max(mean+math.Sqrt(mean)*draw.NormFloat64(), 0))))
				load.tick(time.Now())
				report.Load = threeDigits(load.value())
				report.Strain = map[string]strainReport{"web": {Waiting: twoDigits(load.value() / 50), Stretch: 1}}
				s.hold(&report, time.Now())
				worst = max(worst, math.Abs(report.Load-load.value())/perSecond)
				raw, err := json.Marshal(report)
				if err != nil {
					t.Fatal(err)
				}
				if string(raw) != last {
					changes++
				}
				last = string(raw)
			}
			return changes, worst
		}
		run(1000, time.Minute)
		if changes, worst := run(1000, 10*time.Minute); changes > 60 || worst > 0.1 {
			t.Errorf("at 1000 requests a second a report changes %d times in 10 minutes and is off by up to %.0f%%", changes, worst*100)
		}
		if changes, worst := run(4, 10*time.Minute); changes > 600 {
			t.Errorf("at 4 requests a second a report changes %d times in 10 minutes, off by up to %.0f%%", changes, worst*100)
		}
		before := report.Load
		if run(5000, tickInterval); report.Load < before+100 {
			t.Errorf("a jump is not told at once: %g after %g", report.Load, before)
		}
		run(5000, time.Minute)
		if changes, _ := run(0.001, 5*time.Minute); report.Load != 0 || report.Strain != nil && report.Strain["web"].Waiting != 0 || changes > 60 {
			t.Errorf("once traffic ends the report says %+v, after %d changes", report, changes)
		}
		if changes, _ := run(0.001, time.Minute); changes > 0 {
			t.Errorf("without traffic a report changes %d times", changes)
		}
	})
}

func TestReportForgetsServices(t *testing.T) {
	var s steady
	now := time.Unix(1_800_000_000, 0)
	r := report{Strain: map[string]strainReport{"gone": {Waiting: 20, Stretch: 3}}}
	s.hold(&r, now)
	if r.Strain["gone"].Waiting != 20 {
		t.Fatalf("%+v", r.Strain)
	}
	for range 3 {
		now = now.Add(steadyEvery)
		r.Strain = nil
		s.hold(&r, now)
	}
	if r.Strain != nil || s.strain != nil {
		t.Errorf("what is told of a service outlives it: %+v", r.Strain)
	}
}

// TestReportsOfOtherVersions: what a region sends on is read in each form that it had, and one that nobody knows yet loses
// nothing else of a report.
func TestReportsOfOtherVersions(t *testing.T) {
	told := spillReport{Share: 0.25, Beyond: 7000, Fit: 0.5}
	now, err := json.Marshal(report{Pools: map[string]string{"web": "up"}, Spill: map[string]spillReport{"web": told}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text string
		want spillReport
	}{
		{string(now), told},
		{`{"pools":{"web":"up"},"spill":{"web":0.25}}`, spillReport{Share: 0.25}},
		{`{"pools":{"web":"up"},"spill":{"web":{"share":0.25,"beyond":7000,"fit":0.5}}}`, told},
		{`{"pools":{"web":"up"},"spilling":{"web":["another form"]}}`, spillReport{}},
	} {
		r, err := decodeReport([]byte(c.text))
		if err != nil || r.Pools["web"] != "up" || r.Spill["web"] != c.want || r.OldSpill != nil {
			t.Errorf("%s: %+v, %v", c.text, r, err)
		}
	}
	var first struct {
		Spill map[string]float64 `json:"spill"`
	}
	if err := json.Unmarshal(now, &first); err != nil {
		t.Errorf("the first version drops this one's report: %v", err)
	}
	if _, err := decodeReport([]byte(`[`)); err == nil {
		t.Error("no report at all is taken for one")
	}
}
