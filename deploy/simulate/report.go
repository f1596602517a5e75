package simulate

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"
)

// clock is a time of the simulation as days and hours.
func clock(seconds float64) string {
	d := time.Duration(seconds) * time.Second
	day := ""
	if d >= 24*time.Hour {
		day = fmt.Sprintf("day %d ", int(d/(24*time.Hour))+1)
	}
	return fmt.Sprintf("%s%02d:%02d", day, int(d.Hours())%24, int(d.Minutes())%60)
}

// WriteText tells the result to people.
func (r *Result) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "%s: %.1f million users, %.1f million requests\n", r.Scenario, r.Users/1e6, r.Requests/1e6)
	for _, e := range r.Events {
		fmt.Fprintf(w, "  %-12s %s\n", clock(e.At), e.Text)
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "REGION\tCAPACITY\tPEAK\tPEAK LOAD\tSENT ON\tOVERLOADED")
	for _, g := range r.byLoad() {
		load, over := "-", "never"
		if g.Capacity > 0 {
			load = fmt.Sprintf("%.0f%%", g.PeakLoad*100)
		}
		if g.Overloaded > 0 {
			over = (time.Duration(g.Overloaded) * time.Second).String()
		}
		fmt.Fprintf(t, "%s\t%.0f/s\t%.0f/s\t%s\t%.0f%%\t%s\n", g.Name, g.Capacity, g.Peak, load, g.SpillPeak*100, over)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\ndistance to the region   p50 %.0f km, p99 %.0f km\n", r.P50KM, r.P99KM)
	fmt.Fprintf(w, "sent on by full regions  %.2f million requests (%.2f%%)\n", r.Spilled/1e6, 100*r.Spilled/math.Max(r.Requests, 1))
	verdict := "nothing was ever overloaded"
	if r.OverloadedFor > 0 {
		verdict = fmt.Sprintf("overloaded for %s in all", time.Duration(r.OverloadedFor)*time.Second)
	}
	_, err := fmt.Fprintf(w, "%s; the fullest was %s at %.0f%% at %s\n", verdict, r.Worst.Region, r.Worst.Load*100, clock(r.Worst.At))
	return err
}

// The chart's measures, in pixels.
const (
	chartW, chartH = 960, 360
	marginL        = 48
	marginB        = 28
)

// WriteHTML draws the result: each region's load over time, and the distance, with the events.
func (r *Result) WriteHTML(w io.Writer) error {
	var b strings.Builder
	b.WriteString("<!doctype html><html lang=en><meta charset=utf-8><title>" + html.EscapeString(r.Scenario) + "</title>" +
		"<style>body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em}pre{overflow:auto;font-size:13px}" +
		"svg{width:100%;height:auto;font-size:11px}</style><h1>" + html.EscapeString(r.Scenario) + "</h1>")
	b.WriteString("<h2>Load of each region, as a share of its capacity</h2>")
	r.chart(&b, r.loadLines(), "%.0f%%", 100)
	b.WriteString("<h2>Distance from clients to their region</h2>")
	r.chart(&b, r.distanceLines(), "%.0f km", 1)
	b.WriteString("<h2>In numbers</h2><pre>")
	var text strings.Builder
	if err := r.WriteText(&text); err != nil {
		return err
	}
	b.WriteString(html.EscapeString(text.String()) + "</pre></html>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

type line struct {
	name   string
	values []float64
}

func (r *Result) loadLines() []line {
	var out []line
	for i, g := range r.Regions {
		l := line{name: g.Name}
		for _, s := range r.Samples {
			if g.Capacity > 0 {
				l.values = append(l.values, s.Load[i]/g.Capacity)
			}
		}
		if l.values != nil {
			out = append(out, l)
		}
	}
	return out
}

func (r *Result) distanceLines() []line {
	p50, p99 := line{name: "p50"}, line{name: "p99"}
	for _, s := range r.Samples {
		p50.values, p99.values = append(p50.values, s.P50KM), append(p99.values, s.P99KM)
	}
	return []line{p50, p99}
}

// chart draws lines over the samples' time; unit formats a value times scale.
func (r *Result) chart(b *strings.Builder, lines []line, unit string, scale float64) {
	if len(r.Samples) < 2 || len(lines) == 0 {
		return
	}
	top := 0.0
	for _, l := range lines {
		for _, v := range l.values {
			top = max(top, v)
		}
	}
	top = max(top*1.05, 1e-9)
	last := r.Samples[len(r.Samples)-1].At
	x := func(at float64) float64 { return marginL + at/last*(chartW-marginL-120) }
	y := func(v float64) float64 { return chartH - marginB - v/top*(chartH-marginB-10) }
	fmt.Fprintf(b, `<svg viewBox="0 0 %d %d" role="img">`, chartW, chartH)
	for i := range 6 {
		v := top * float64(i) / 5
		fmt.Fprintf(b, `<line x1="%d" x2="%.0f" y1="%.1f" y2="%.1f" stroke="#8883"/><text x="2" y="%.1f">`+unit+`</text>`, marginL, x(last), y(v), y(v), y(v)+4, v*scale)
	}
	for hour := 0.0; hour*3600 <= last; hour += 3 {
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%02.0f</text>`, x(hour*3600), chartH-8, math.Mod(hour, 24))
	}
	for i, e := range r.Events {
		fmt.Fprintf(b, `<line x1="%[1]f" x2="%[1]f" y1="10" y2="%[2]d" stroke="#c00" stroke-dasharray="4 3"/><text x="%.1[3]f" y="%[4]d" fill="#c00">%[5]s</text>`,
			x(e.At), chartH-marginB, x(e.At)+3, 18+12*(i%4), html.EscapeString(e.Text))
	}
	for i, l := range lines {
		color := fmt.Sprintf("hsl(%d 70%% 45%%)", i*360/len(lines))
		fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="1.5" points="`, color)
		for k, v := range l.values {
			fmt.Fprintf(b, "%.1f,%.1f ", x(r.Samples[k].At), y(v))
		}
		fmt.Fprintf(b, `"/><text x="%d" y="%d" fill="%s">%s</text>`, chartW-112, 20+15*i, color, html.EscapeString(l.name))
	}
	b.WriteString("</svg>")
}
