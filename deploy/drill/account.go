package drill

import (
	"math"
	"slices"
	"sync"
	"time"

	"landfall/deploy/lab"
)

// Phase is what clients saw in one stretch of a drill. A request counts to the phase that it began in.
type Phase struct {
	Name     string  `json:"name"`
	Requests int     `json:"requests"`
	Errors   int     `json:"errors"`  // failed for good
	Retried  int     `json:"retried"` // served, at the second try or by the answer's second address
	P50MS    float64 `json:"p50_ms"`  // of those that were served, tries included
	P99MS    float64 `json:"p99_ms"`
}

// account collects results. It is safe for concurrent use.
type account struct {
	mu      sync.Mutex
	results []lab.Result
	marks   []mark
}

type mark struct {
	name string
	at   time.Time
}

func (a *account) add(r lab.Result) {
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

// began is when a phase began, or the zero time.
func (a *account) began(name string) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.marks {
		if m.name == name {
			return m.at
		}
	}
	return time.Time{}
}

// since returns the results of requests of a place that began after a moment; an empty place is every place.
func (a *account) since(at time.Time, place string) []lab.Result {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []lab.Result
	for _, r := range a.results {
		if r.Started.After(at) && (place == "" || r.Place == place) {
			out = append(out, r)
		}
	}
	return out
}

// phases sums the results up by phase. Every result is in one: what began before the first mark is in the first.
func (a *account) phases() []Phase {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]Phase, len(a.marks))
	took := make([][]time.Duration, len(a.marks))
	for i, m := range a.marks {
		out[i].Name = m.name
	}
	for _, r := range a.results {
		if len(a.marks) == 0 {
			break
		}
		i := len(a.marks) - 1
		for i > 0 && r.Started.Before(a.marks[i].at) {
			i--
		}
		out[i].Requests++
		switch {
		case r.Err != nil:
			out[i].Errors++
			continue
		case r.Retried:
			out[i].Retried++
		}
		took[i] = append(took[i], r.Took)
	}
	for i := range out {
		slices.Sort(took[i])
		out[i].P50MS, out[i].P99MS = quantileMS(took[i], 0.5), quantileMS(took[i], 0.99)
	}
	return out
}

// quantileMS is the nearest-rank quantile of sorted durations in milliseconds: the smallest that at least that share of
// all are not larger than.
func quantileMS(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q * float64(len(sorted))))
	return ms(sorted[min(max(rank, 1), len(sorted))-1])
}

func ms(d time.Duration) float64 {
	return float64(d.Round(100*time.Microsecond)) / float64(time.Millisecond)
}

// gap is the longest time without a success between two moments. An outage that lasts to the end counts in full.
func gap(results []lab.Result, from, until time.Time) time.Duration {
	ends := []time.Time{from, until}
	for _, r := range results {
		if end := r.Started.Add(r.Took); r.Err == nil && end.After(from) && end.Before(until) {
			ends = append(ends, end)
		}
	}
	slices.SortFunc(ends, time.Time.Compare)
	longest := time.Duration(0)
	for i := 1; i < len(ends); i++ {
		longest = max(longest, ends[i].Sub(ends[i-1]))
	}
	return longest
}
