package storm

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// Figures are what was measured of one gateway.
type Figures struct {
	Gateway       string   `json:"gateway"`
	Calm          float64  `json:"calm_goodput"`  // good answers a second before the storm
	Storm         float64  `json:"storm_goodput"` // and in it
	Share         float64  `json:"share"`         // of what the origin can do then
	CalmP99       float64  `json:"calm_p99_ms"`
	StormP99      float64  `json:"storm_p99_ms"` // of the good answers
	Shed          float64  `json:"shed"`         // share of the clients' requests that the gateway refused itself, with a Retry-After
	Amplification float64  `json:"amplification"`
	PerAdmitted   float64  `json:"per_admitted"` // requests at the origin for each that the gateway did not refuse
	RecoveryMS    *float64 `json:"recovery_ms"`  // until nine in ten requests were answered again; null: never
}

// Report is a drill's outcome. The promise is landfall's, the first of the gateways.
type Report struct {
	Drill    string    `json:"drill"`
	Passed   bool      `json:"passed"`
	Broken   []string  `json:"broken"`
	Gateways []Figures `json:"gateways"`
	Absent   []string  `json:"absent,omitempty"` // gateways that were asked for, and why they are not there
}

func (r *Report) judge(p pace) {
	broke := func(format string, a ...any) { r.Broken = append(r.Broken, fmt.Sprintf(format, a...)) }
	f := r.Gateways[0]
	if f.Calm < 0.95*p.rate {
		broke("before the storm only %.0f of %g requests/s were answered: this machine is too busy to tell", f.Calm, p.rate)
	}
	if f.Share < p.goodput {
		broke("clients got %.0f answers/s, %.0f%% of the %g that the origin could do; the promise is %.0f%%", f.Storm, 100*f.Share, p.third(), 100*p.goodput)
	}
	if most := max(f.Amplification, f.PerAdmitted); most >= p.amplification {
		broke("the origin got %.2f requests for each that was let through; the promise is less than %g", most, p.amplification)
	}
	if f.RecoveryMS == nil {
		broke("clients were not served as before after the origin's return")
	} else if *f.RecoveryMS > ms(p.recovery) {
		broke("clients were served as before %.1f s after the origin's return; the promise is %s", *f.RecoveryMS/1000, p.recovery)
	}
	r.Passed = len(r.Broken) == 0
}

// Print writes the report for people.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintf(w, "\nDrill storm: the origin's capacity fell to a third\n\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "gateway\tcalm\tp99\tin the storm\tof what could be\tp99\tshed\tload added\trecovery\t")
	for _, f := range r.Gateways {
		recovery := "never"
		if f.RecoveryMS != nil {
			recovery = (time.Duration(*f.RecoveryMS) * time.Millisecond).String()
		}
		fmt.Fprintf(t, "%s\t%.0f/s\t%.0f ms\t%.0f/s\t%.0f%%\t%.0f ms\t%.0f%%\t%.2f\t%s\t\n",
			f.Gateway, f.Calm, f.CalmP99, f.Storm, 100*f.Share, f.StormP99, 100*f.Shed, f.Amplification, recovery)
	}
	_ = t.Flush() // writing to a terminal
	for _, a := range r.Absent {
		fmt.Fprintf(w, "not beside it: %s\n", a)
	}
	if r.Passed {
		fmt.Fprintln(w, "\nPASS")
		return
	}
	fmt.Fprintln(w, "\nFAIL:")
	for _, b := range r.Broken {
		fmt.Fprintf(w, "  - %s\n", b)
	}
}
