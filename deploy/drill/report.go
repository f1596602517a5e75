package drill

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is a drill's outcome.
type Report struct {
	Drill    string         `json:"drill"`
	Region   string         `json:"region"`
	Seed     uint64         `json:"seed"`
	Passed   bool           `json:"passed"`
	Verdict  string         `json:"verdict"` // in a sentence
	Broken   []string       `json:"broken"`  // the promises that did not hold
	Requests int            `json:"requests"`
	Errors   int            `json:"errors"`
	Retried  int            `json:"retried"`
	Phases   []Phase        `json:"phases"`
	GapMS    float64        `json:"gap_ms"`            // the longest time without an answer for the region's clients, from a second before it went
	DNSMS    float64        `json:"dns_ms"`            // until no name server of another region named it any more
	HomeMS   *float64       `json:"home_ms"`           // until a newcomer of the region was served at home again; null: never
	Facts    []string       `json:"facts,omitempty"`   // what a steering drill found
	Purge    *PurgeReport   `json:"purge,omitempty"`   // of the purge drill
	Offload  *OffloadReport `json:"offload,omitempty"` // of the offload drill
	Examples []string       `json:"examples"`          // of requests that failed or were sent again, the first few
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
	var failed, retried []string
	for _, r := range a.since(time.Time{}, "") {
		switch {
		case r.Err != nil && len(failed) < examples:
			failed = append(failed, fmt.Sprintf("failed: %s from %s: %s", r.Path, r.Place, oneLine(r.Err)))
		case r.Err == nil && r.Retried && len(retried) < examples:
			retried = append(retried, fmt.Sprintf("sent again: %s from %s: %s", r.Path, r.Place, oneLine(r.Why)))
		}
	}
	rep.Examples = append(rep.Examples, append(failed, retried...)[:min(examples, len(failed)+len(retried))]...)
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// judge settles whether the drill passed.
func (rep *Report) judge() {
	rep.Passed = len(rep.Broken) == 0
	if rep.Passed {
		rep.Verdict = fmt.Sprintf("PASS: %d requests, none failed for good.", rep.Requests)
		if p := rep.Purge; p != nil {
			rep.Verdict = fmt.Sprintf("PASS: %d reads and %d purges, none of the reads older than a purge that its node had confirmed.", p.Reads, p.Purges)
		}
		if p := rep.Offload; p != nil {
			rep.Verdict = fmt.Sprintf("PASS: %.1f%% hits, %.1f%% fewer requests at the origins, %.1f%% of the bytes saved.", 100*p.HitRate, 100*p.Offload, 100*p.BytesSaved)
		}
		return
	}
	rep.Verdict = "FAIL:"
	for _, b := range rep.Broken {
		rep.Verdict += "\n  - " + b
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
	if rep.Purge != nil {
		rep.Purge.print(w)
		fmt.Fprintf(w, "\n%s\n", rep.Verdict)
		return
	}
	if rep.Offload != nil {
		rep.Offload.print(w)
		fmt.Fprintf(w, "\n%s\n", rep.Verdict)
		return
	}
	home := "never"
	if rep.HomeMS != nil {
		home = fmt.Sprintf("%.0f ms", *rep.HomeMS)
	}
	fmt.Fprintf(w, "\nlongest gap between answers for the region's clients:   %.0f ms\n", rep.GapMS)
	if rep.Facts == nil {
		fmt.Fprintf(w, "DNS stopped naming the region after:                     %.0f ms\n", rep.DNSMS)
		fmt.Fprintf(w, "the region's newcomers were served at home again after: %s\n", home)
	}
	for _, f := range rep.Facts {
		fmt.Fprintln(w, f)
	}
	if len(rep.Examples) > 0 {
		fmt.Fprintf(w, "\nthe first few:\n  %s\n", strings.Join(rep.Examples, "\n  "))
	}
	fmt.Fprintf(w, "\n%s\n", rep.Verdict)
}
