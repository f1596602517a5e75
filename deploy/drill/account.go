package drill

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"text/tabwriter"
	"time"
)

// Phase is what clients saw in one stretch of a drill. A request counts to the phase that it began in.
type Phase struct {
	Name     string  `json:"name"`
	Requests int     `json:"requests"`
	Errors   int     `json:"errors"`  // failed for good
	Retried  int     `json:"retried"` // served by the answer's second address
	P50MS    float64 `json:"p50_ms"`
	P99MS    float64 `json:"p99_ms"`
}

// Report is a drill's outcome.
type Report struct {
	Drill    string   `json:"drill"`
	Region   string   `json:"region"`
	Seed     uint64   `json:"seed"`
	Passed   bool     `json:"passed"`
	Broken   []string `json:"broken"` // the promises that did not hold
	Requests int      `json:"requests"`
	Errors   int      `json:"errors"`
	Retried  int      `json:"retried"`
	Phases   []Phase  `json:"phases"`
	GapMS    float64  `json:"gap_ms"`      // the longest time that a client of the region waited between two successes
	DNSMS    float64  `json:"dns_ms"`      // until no name server named the region any more
	HomeMS   float64  `json:"home_ms"`     // until the region's clients were served at home again
	Examples []string `json:"examples"`    // of failed or retried requests, the first few
	Last     string   `json:"last_phrase"` // the verdict in a sentence
}

// account collects results. It is safe for concurrent use.
type account struct {
	mu      sync.Mutex
	results []result
	marks   []mark
}

type mark struct {
	name string
	at   time.Time
}

func (a *account) add(r result) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.results = append(a.results, r)
}

// begin starts a phase.
func (a *account) begin(name string, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.marks = append(a.marks, mark{name, at})
}

// since returns the results of requests of a place that began after a moment; an empty place is every place.
func (a *account) since(at time.Time, place string) []result {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []result
	for _, r := range a.results {
		if r.started.After(at) && (place == "" || r.place == place) {
			out = append(out, r)
		}
	}
	return out
}

// phases sums the results up by phase.
func (a *account) phases() []Phase {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []Phase
	for i, m := range a.marks {
		p := Phase{Name: m.name}
		var took []time.Duration
		for _, r := range a.results {
			if r.started.Before(m.at) || i+1 < len(a.marks) && !r.started.Before(a.marks[i+1].at) {
				continue
			}
			p.Requests++
			switch {
			case r.err != nil:
				p.Errors++
				continue
			case r.retried:
				p.Retried++
			}
			took = append(took, r.took)
		}
		slices.Sort(took)
		p.P50MS, p.P99MS = quantileMS(took, 0.5), quantileMS(took, 0.99)
		out = append(out, p)
	}
	return out
}

// quantileMS is the nearest-rank quantile of sorted durations in milliseconds.
func quantileMS(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	i := min(int(q*float64(len(sorted))), len(sorted)-1)
	return ms(sorted[i])
}

func ms(d time.Duration) float64 {
	return float64(d.Round(100*time.Microsecond)) / float64(time.Millisecond)
}

// gap is the longest time between two successes in a row of a place, after a moment.
func gap(results []result) time.Duration {
	ends := make([]time.Time, 0, len(results))
	for _, r := range results {
		if r.err == nil {
			ends = append(ends, r.started.Add(r.took))
		}
	}
	slices.SortFunc(ends, time.Time.Compare)
	longest := time.Duration(0)
	for i := 1; i < len(ends); i++ {
		longest = max(longest, ends[i].Sub(ends[i-1]))
	}
	return longest
}

// fill sums the account up into a report.
func (rep *Report) fill(a *account) {
	rep.Phases = a.phases()
	for _, p := range rep.Phases {
		rep.Requests += p.Requests
		rep.Errors += p.Errors
		rep.Retried += p.Retried
	}
	const examples = 5
	for _, r := range a.since(time.Time{}, "") {
		if len(rep.Examples) < examples && r.err != nil {
			rep.Examples = append(rep.Examples, fmt.Sprintf("%s from %s: %v", r.path, r.place, r.err))
		}
	}
}

// Print writes the report for people.
func (rep *Report) Print(w io.Writer) {
	fmt.Fprintf(w, "\nDrill %s of region %s (seed %d)\n\n", rep.Drill, rep.Region, rep.Seed)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "phase\trequests\tfailed\tretried\tp50\tp99\t")
	for _, p := range rep.Phases {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%.1f ms\t%.1f ms\t\n", p.Name, p.Requests, p.Errors, p.Retried, p.P50MS, p.P99MS)
	}
	_ = t.Flush() // writing to a terminal
	fmt.Fprintf(w, "\nlongest gap between answers for the region's clients: %.0f ms\n", rep.GapMS)
	fmt.Fprintf(w, "DNS stopped naming the region after:                   %.0f ms\n", rep.DNSMS)
	fmt.Fprintf(w, "the region's clients were served at home again after:  %.0f ms\n", rep.HomeMS)
	for _, e := range rep.Examples {
		fmt.Fprintf(w, "failed: %s\n", e)
	}
	fmt.Fprintf(w, "\n%s\n", rep.Last)
}

// judge settles whether the drill passed.
func (rep *Report) judge() {
	rep.Passed = len(rep.Broken) == 0
	if rep.Passed {
		rep.Last = fmt.Sprintf("PASS: %d requests, none failed for good.", rep.Requests)
		return
	}
	rep.Last = "FAIL:"
	for _, b := range rep.Broken {
		rep.Last += "\n  - " + b
	}
}
