package drill

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"landfall/deploy/lab"
)

var update = flag.Bool("update", false, "write the golden files anew; commit them only when you understand each change")

var zero = time.Unix(1_700_000_000, 0)

func at(msec int) time.Time { return zero.Add(time.Duration(msec) * time.Millisecond) }

// res is a request of east that began and ended at given milliseconds.
func res(from, to int, err error) lab.Result {
	return lab.Result{Place: "east", Path: "/", Started: at(from), Took: at(to).Sub(at(from)), Region: "east", Visitor: true, Err: err}
}

var errAny = errors.New("refused")

func TestGap(t *testing.T) {
	for _, c := range []struct {
		name    string
		results []lab.Result
		want    int // milliseconds, between 0 and 1000
	}{
		{"no answer at all", nil, 1000},
		{"failures are no answers", []lab.Result{res(100, 110, errAny), res(500, 510, errAny)}, 1000},
		{"an outage in the middle", []lab.Result{res(90, 100, nil), res(190, 200, nil), res(880, 890, nil)}, 690},
		{"an outage to the end", []lab.Result{res(90, 100, nil), res(190, 200, nil)}, 800},
		{"an outage from the start", []lab.Result{res(690, 700, nil), res(890, 900, nil)}, 700},
		{"answers count when they end", []lab.Result{res(10, 600, nil), res(20, 300, nil)}, 400},
		{"in any order", []lab.Result{res(790, 800, nil), res(190, 200, nil), res(490, 500, nil)}, 300},
		{"answers outside do not count", []lab.Result{res(-50, -10, nil), res(400, 500, nil), res(900, 1200, nil)}, 500},
	} {
		if got := gap(c.results, at(0), at(1000)); got != time.Duration(c.want)*time.Millisecond {
			t.Errorf("%s: %s, want %d ms", c.name, got, c.want)
		}
	}
}

func TestQuantile(t *testing.T) {
	upTo := func(n int) []time.Duration {
		var out []time.Duration
		for i := range n {
			out = append(out, time.Duration(i+1)*time.Millisecond)
		}
		return out
	}
	for _, c := range []struct {
		n    int
		q    float64
		want float64
	}{
		{0, 0.5, 0}, {1, 0.5, 1}, {1, 0.99, 1}, {2, 0.5, 1}, {3, 0.5, 2}, {4, 0.5, 2}, {100, 0.5, 50}, {100, 0.99, 99}, {101, 0.99, 100}, {200, 0.99, 198}, {10, 0, 1}, {10, 1, 10},
	} {
		if got := quantileMS(upTo(c.n), c.q); got != c.want {
			t.Errorf("the %g quantile of 1 to %d is %g, want %g", c.q, c.n, got, c.want)
		}
	}
}

func TestPhases(t *testing.T) {
	a := &account{}
	if got := a.phases(); len(got) != 0 || !a.began("during").IsZero() {
		t.Errorf("an empty account: %+v", got)
	}
	a.add(res(-5, 5, nil)) // the load may begin before the first mark
	a.begin("before", at(0))
	a.begin("during", at(100))
	a.begin("after", at(200))
	again := res(150, 180, nil)
	again.Retried, again.Why = true, errAny
	west := res(199, 400, nil) // counts to the phase that it began in
	west.Place = "west"
	failed := res(120, 190, errAny)
	failed.Retried = true // failed at the second try as well: an error, not a retry
	for _, r := range []lab.Result{res(10, 30, nil), res(100, 101, nil), failed, again, west, res(200, 210, nil), res(999, 1000, errAny)} {
		a.add(r)
	}
	want := []Phase{
		{Name: "before", Requests: 2, P50MS: 10, P99MS: 20},
		{Name: "during", Requests: 4, Errors: 1, Retried: 1, P50MS: 30, P99MS: 201},
		{Name: "after", Requests: 2, Errors: 1, P50MS: 10, P99MS: 10},
	}
	if got := a.phases(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant\n%+v", got, want)
	}
	if got := a.since(at(150), "east"); len(got) != 2 {
		t.Errorf("since 150 in east: %+v", got)
	}
	if got := a.since(at(150), ""); len(got) != 3 {
		t.Errorf("since 150 anywhere: %+v", got)
	}
	if got := a.began("after"); !got.Equal(at(200)) {
		t.Errorf("after began at %s", got)
	}
}

// judged is a session whose target east was struck at 0, with the promises of hasty.
func judged(drill string, results ...lab.Result) *session {
	s := &session{pace: hasty(), o: Options{Rate: 100}, account: &account{}, report: &Report{Drill: drill, Region: "east", Broken: []string{}, Examples: []string{}}}
	s.fleet.Regions = []lab.Region{{Name: "east"}}
	s.target, s.gapPromise = s.fleet.Regions[0], 1500*time.Millisecond
	s.account.begin("before", at(-1000))
	s.account.begin("during", at(0))
	for _, r := range results {
		s.account.add(r)
	}
	return s
}

// steady are results that keep every promise until two seconds after the strike.
func steady() []lab.Result {
	var out []lab.Result
	for i := -1000; i < 2000; i += 100 {
		out = append(out, res(i, i+10, nil))
	}
	return out
}

func TestEachPromiseIsJudged(t *testing.T) {
	sights := func(named, answered int) *dnsWatch {
		return &dnsWatch{seen: map[string]sight{"ns": {named: at(named), answered: at(answered)}, "ns2": {answered: at(2000)}}}
	}
	again := res(500, 510, nil)
	again.Retried, again.Why = true, errAny
	elsewhere := res(1500, 1510, nil)
	elsewhere.Region = "west"
	stays := elsewhere
	stays.Visitor = false
	for _, c := range []struct {
		name   string
		drill  string
		extra  []lab.Result
		judge  func(*session)
		broken string // none: it passes
	}{
		{"kept", "kill-region", nil, func(*session) {}, ""},
		{"a failure", "kill-region", []lab.Result{res(500, 510, errAny)}, func(*session) {}, "1 requests failed for good"},
		{"a failure in a drain", "drain-region", []lab.Result{res(500, 510, errAny)}, func(*session) {}, "1 requests failed for good"},
		{"a second try", "kill-region", []lab.Result{again}, func(*session) {}, ""},
		{"a second try in a drain", "drain-region", []lab.Result{again}, func(*session) {}, "1 requests needed a second try during a planned drain"},
		{"DNS in time", "kill-region", nil, func(s *session) { s.judgeDNS(sights(1000, 2000)) }, ""},
		{"DNS never named it", "kill-region", nil, func(s *session) { s.judgeDNS(sights(-1000, 2000)) }, ""},
		{"DNS too late", "kill-region", nil, func(s *session) { s.judgeDNS(sights(1001, 2000)) }, "DNS named east for 1.001s, longer than 1s"},
		{"a silent name server", "kill-region", nil, func(s *session) { s.judgeDNS(sights(0, 900)) }, "stopped answering while east was away: [ns]"},
		{"no name server", "kill-region", nil, func(s *session) { s.judgeDNS(&dnsWatch{}) }, "there was no name server to ask"},
		{"emptied", "drain-region", []lab.Result{{Place: "east", Started: at(2500), Took: time.Millisecond, Region: "west"}}, func(s *session) { s.judgeEmptied(at(2000)) }, ""},
		{"not emptied", "drain-region", nil, func(s *session) { s.judgeEmptied(at(1850)) }, "1 requests were still served by east"},
		{"emptied or not, nobody knows", "drain-region", nil, func(s *session) { s.judgeEmptied(at(2000)) }, "nothing tells whether it did"},
		{"at home", "kill-region", nil, func(s *session) { s.judgeHome(at(1000)) }, ""},
		{"at home but for one who stays", "kill-region", []lab.Result{stays}, func(s *session) { s.judgeHome(at(1850)) }, ""},
		{"not at home", "kill-region", []lab.Result{elsewhere, elsewhere}, func(s *session) { s.judgeHome(at(1000)) }, "only 9 of 11 newcomers of east"},
		{"at home but for one in ten", "kill-region", []lab.Result{elsewhere}, func(s *session) { s.judgeHome(at(1000)) }, ""},
		{"a gap", "kill-region", []lab.Result{res(3600, 3610, nil)}, func(s *session) { s.account.begin("after", at(3000)) }, "the clients of east were without an answer for 1.7s, longer than 1.52s"},
	} {
		t.Run(c.drill+"/"+c.name, func(t *testing.T) {
			s := judged(c.drill, append(steady(), c.extra...)...)
			c.judge(s)
			end := at(2000)
			if len(c.extra) > 0 && c.extra[0].Started.After(end) {
				end = c.extra[0].Started.Add(time.Second)
			}
			s.conclude(end)
			rep := s.report
			if got := strings.Join(rep.Broken, "; "); rep.Passed != (c.broken == "") || c.broken == "" && got != "" || !strings.Contains(got, c.broken) || len(rep.Broken) > 1 {
				t.Errorf("passed %t, broken %q; want %q", rep.Passed, got, c.broken)
			}
			if verdict := "PASS: "; rep.Passed != strings.HasPrefix(rep.Verdict, verdict) || !rep.Passed && !strings.HasPrefix(rep.Verdict, "FAIL:\n  - ") {
				t.Errorf("verdict %q", rep.Verdict)
			}
		})
	}
	s := judged("kill-region")
	s.conclude(at(2000))
	if s.report.Passed || !slices.Contains(s.report.Broken, "no request was sent") {
		t.Errorf("no request at all: %+v", s.report)
	}
}

// The report's two forms, for scripts and for people.
func TestReportGolden(t *testing.T) {
	again := res(520, 600, nil)
	again.Retried, again.Why = true, errors.New("127.0.1.1: connect: connection refused\nand more")
	bad := judged("kill-region", append(steady(), again, res(530, 540, errors.New("127.0.2.1: status 503")))...)
	bad.report.Seed, bad.report.DNSMS = 7, 512.25
	bad.conclude(at(2000))
	good := judged("drain-region", steady()...)
	good.report.HomeMS = new(1830.0)
	good.conclude(at(2000))
	for name, rep := range map[string]*Report{"fail": bad.report, "pass": good.report} {
		data, err := json.MarshalIndent(rep, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name+".json", append(data, '\n'))
		var text bytes.Buffer
		rep.Print(&text)
		golden(t, name+".txt", text.Bytes())
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is now\n%s\nand was\n%s", name, got, want)
	}
}
