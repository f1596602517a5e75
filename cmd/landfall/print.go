package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"landfall/gateway/admin"
)

// outputFlag is the -o flag of a reading command: text or json.
type outputFlag string

func (o *outputFlag) add(c *cobra.Command) {
	c.Flags().StringVarP((*string)(o), "output", "o", "text", "text or json")
}

func (o outputFlag) check() error {
	if o != "text" && o != "json" {
		return usageError{fmt.Errorf("-o %s: expected text or json", string(o))}
	}
	return nil
}

// show prints v as JSON, or by text, as the flag says.
func (o outputFlag) show(w io.Writer, v any, text func(w io.Writer) error) error {
	if o == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	return text(w)
}

// table prints aligned columns.
func table(w io.Writer, rows ...[]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(t, strings.TrimRight(strings.Join(r, "\t"), "\t"))
	}
	return t.Flush()
}

func printStatus(w io.Writer, s admin.Status, nodes []admin.Node, drains []admin.Drain) error {
	fmt.Fprintf(w, "fleet %s, seen from %s (%s, %s), config %s, up %s, %.0f requests/s\n", s.Fleet, s.Node, s.Region, s.State, s.ConfigHash, s.Uptime, s.RequestsPerSecond)
	for _, why := range s.NotReady {
		fmt.Fprintf(w, "not ready: %s\n", why)
	}
	if s.SplitConfig {
		fmt.Fprintln(w, "WARNING: the nodes run different configs (landfall status -o json, or /v1/config, tells which)")
	}
	if s.Panic {
		fmt.Fprintln(w, "WARNING: panic: more regions look down than health.panic allows, so all of them are used")
	}
	if s.Faults > 0 {
		fmt.Fprintf(w, "WARNING: %d faults are made on purpose (landfall fault list tells which)\n", s.Faults)
	}
	rows := [][]string{{"", ""}, {"REGION", "STATE", "NODES", "RTT", "SERVICES"}}
	for _, r := range s.Regions {
		way := rtt(r.RTT)
		if r.Estimated {
			way += " (estimated)"
		}
		rows = append(rows, []string{r.Name, r.State, fmt.Sprintf("%d/%d", r.NodesLive, r.NodesTotal), way, services(r.Services)})
	}
	rows = append(rows, []string{""}, []string{"NODE", "REGION", "STATE", "REACHABLE", "RTT", "ADDRESSES"})
	for _, n := range nodes {
		state := n.State
		if n.Drained {
			state += " (drained)"
		}
		rows = append(rows, []string{n.Name, n.Region, state, yes(n.Reachable || n.Self), rtt(n.RTT), strings.Join(n.Addresses, " ")})
	}
	if err := table(w, rows...); err != nil {
		return err
	}
	if err := printPushes(w, s.DNSPush); err != nil || len(drains) == 0 {
		return err
	}
	fmt.Fprintln(w)
	return printDrains(w, drains)
}

// printPushes shows the zones at other DNS providers. How far a push has got only its own node knows.
func printPushes(w io.Writer, pushes []admin.DNSPush) error {
	if len(pushes) == 0 {
		return nil
	}
	rows := [][]string{{""}, {"DNS PUSH", "ZONE", "BY", "STATE"}}
	for _, p := range pushes {
		by, state := p.Node, "ask that node"
		switch {
		case p.Node == "":
			by, state = "-", "no node may: this one reaches less than half of the fleet, or none serves"
		case p.Error != "":
			state = "failing: " + p.Error
		case p.Self && p.Pending > 0:
			state = fmt.Sprintf("names to push: %d", p.Pending)
		case p.Self:
			state = "up to date"
		}
		if len(p.Kept) > 0 {
			state += fmt.Sprintf("; without a usable address, and so left as they are: %d", len(p.Kept))
		}
		rows = append(rows, []string{p.Target, p.Zone, by, state})
	}
	return table(w, rows...)
}

func services(m admin.Map[string]) string {
	var bad []string
	for name, state := range m {
		if state != "up" {
			bad = append(bad, name+" "+state)
		}
	}
	if len(bad) == 0 {
		return fmt.Sprintf("%d up", len(m))
	}
	slices.Sort(bad)
	return strings.Join(bad, ", ")
}

func rtt(ms float64) string {
	if ms == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", ms)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func printDrains(w io.Writer, drains admin.List[admin.Drain]) error {
	if len(drains) == 0 {
		fmt.Fprintln(w, "nothing is drained")
		return nil
	}
	rows := [][]string{{"DRAINED", "SINCE", "UNTIL", "BY", "REASON"}}
	for _, d := range drains {
		until := "undrained"
		if !d.Expires.IsZero() {
			until = d.Expires.Local().Format(time.DateTime)
		}
		rows = append(rows, []string{d.Kind + " " + d.Name, d.Since.Local().Format(time.DateTime), until, d.By, d.Reason})
	}
	return table(w, rows...)
}

func printExplanation(w io.Writer, e admin.Explanation) error {
	who := e.Client.Address
	if who == "" {
		who = "a client of whom nothing is known"
	}
	place := "place unknown"
	if e.Client.Location != nil {
		place = fmt.Sprintf("at %.2f, %.2f by %s", e.Client.Location.Lat, e.Client.Location.Lon, e.Client.Source)
	}
	if e.Client.Country != "" {
		place += ", " + e.Client.Country
	}
	fmt.Fprintf(w, "%s for %s (%s), service %s\ndecision: %s\n\n", e.URL, who, place, e.Service, e.ModeText)
	rows := [][]string{{"", "REGION", "STATE", "DISTANCE", "LOAD", "WEIGHT", "WHY"}}
	for _, r := range e.Regions {
		mark, dist := "  ", "-"
		if r.Usable {
			mark = fmt.Sprintf("%d.", r.Rank)
		}
		switch {
		case r.RTT != nil && r.DistanceSource == "coordinates":
			dist = fmt.Sprintf("%.1f ms (estimated from coordinates)", *r.RTT)
		case r.RTT != nil && r.DistanceSource != "geography":
			dist = fmt.Sprintf("%.1f ms (%s)", *r.RTT, r.DistanceSource)
		case r.DistanceKM != nil:
			dist = fmt.Sprintf("%.0f km (%s)", *r.DistanceKM, r.DistanceSource)
		}
		why := r.ReasonText
		if r.Moved > 0 && r.Moved < 1 {
			why += fmt.Sprintf(" (a drain has moved %.0f%% of its clients so far)", r.Moved*100)
		}
		if r.Spill > 0 {
			why += fmt.Sprintf(" (it sends %.1f%% of its clients on%s)", r.Spill*100, beyond(r.SpillBeyond))
		}
		if r.Returning > 0 {
			why += fmt.Sprintf(" (it is coming back; %.0f%% of its clients wait)", r.Returning*100)
		}
		if r.State == "down" && r.Evidence != "" {
			why += ": " + r.Evidence
		}
		if r.Fit > 0 && r.Fit < 1 {
			why += fmt.Sprintf(" (its latency says that it can take %.0f%% of its capacity)", r.Fit*100)
		}
		rows = append(rows, []string{mark, r.Region, r.State, dist, loadText(r), fmt.Sprint(r.Weight), why})
	}
	if err := table(w, rows...); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if e.Answer != nil {
		fmt.Fprintf(w, "DNS answers  %s (TTL %d s, %s; scope /%d)\n", strings.Join(e.Answer.Addresses, ", "), e.Answer.TTL, e.Answer.TTLText, e.Answer.Scope)
	}
	if s := e.Steering; s != nil {
		fmt.Fprintf(w, "steering     %s\n", steeringText(s))
	}
	if e.Route != nil {
		fmt.Fprintf(w, "route        %d: %s, cache %s\n", e.Route.Index, e.Route.Match, e.Route.Cache)
		printExplainedCanary(w, e.Route.Canary)
		for _, h := range e.Route.Holders {
			fmt.Fprintf(w, "             a miss asks %s in %s first (%s)\n", h.Node, h.Region, h.Role)
		}
	} else {
		fmt.Fprintln(w, "route        none matches: 404")
	}
	if e.Pool != nil {
		fmt.Fprintf(w, "pool         %s\n", e.Pool.Region)
		for _, o := range e.Pool.Origins {
			breaker := ""
			if o.Breaker != "" {
				breaker = ", breaker " + o.Breaker
			}
			fmt.Fprintf(w, "             %s %s%s%s\n", o.URL, o.State, breaker, paren(o.Detail))
		}
	}
	return nil
}

// steeringText says what a page's request meets that reached the answering node's region all the same.
func steeringText(s *admin.ExplainedSteering) string {
	why := fmt.Sprintf("%.0f ms nearer", s.Saves)
	if s.Must {
		why = "residency forbids " + s.From
	}
	if !s.Sent {
		return fmt.Sprintf("a page asked for in %s is served there: %s is %s, which is too little, or has no name", s.From, s.To, why)
	}
	how := "is redirected"
	if s.By == "alt_svc" {
		how = "is told by Alt-Svc"
	}
	return fmt.Sprintf("a page asked for in %s %s to %s: %s is %s", s.From, how, s.Name, s.To, why)
}

func beyond(ms float64) string {
	if ms <= 0 {
		return ""
	}
	return fmt.Sprintf(", those farther than %.0f ms first", ms)
}

// loadText is a region's load as a share of its capacity, where that is known, with what it was measured by.
func loadText(r admin.ExplainedRegion) string {
	var parts []string
	if r.Load != nil {
		parts = append(parts, fmt.Sprintf("%.0f%%", *r.Load*100))
	}
	if r.Requests > 0 || r.Load != nil {
		parts = append(parts, fmt.Sprintf("%.0f/s", r.Requests))
	}
	if r.Waiting >= 1 {
		parts = append(parts, fmt.Sprintf("%.0f waiting", r.Waiting))
	}
	if r.Latency > 0 {
		parts = append(parts, fmt.Sprintf("latency %.1fx", r.Latency))
	}
	if parts == nil {
		return "-"
	}
	return strings.Join(parts, ", ")
}

func paren(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}

func printPurge(w io.Writer, p admin.PurgeResult) error {
	switch {
	case p.Counting:
		fmt.Fprintf(w, "purge %s: done; still counting what went, %d objects so far\n", p.ID, p.Removed)
	case p.Removed == 0 && len(p.Missing) == 0:
		fmt.Fprintf(w, "purge %s: nothing found; no node held any of these\n", p.ID)
	case p.Removed == 1:
		fmt.Fprintf(w, "purge %s: 1 object went\n", p.ID)
	default:
		fmt.Fprintf(w, "purge %s: %d objects went\n", p.ID, p.Removed)
	}
	rows := [][]string{{"NODE", "REGION", "REMOVED"}}
	for _, a := range p.Applied {
		removed := fmt.Sprint(a.Removed)
		if a.Counting {
			removed += " so far"
		}
		rows = append(rows, []string{a.Node, a.Region, removed})
	}
	for _, m := range p.Missing {
		rows = append(rows, []string{m.Node, m.Region, "MISSING: " + m.Reason})
	}
	return table(w, rows...)
}

func printDrainResult(w io.Writer, r admin.DrainResult) error {
	verb := "undrained"
	if r.Drained {
		verb = "drained"
	}
	if !r.Changed {
		verb = "already " + verb
	}
	fmt.Fprintf(w, "%s %s: %s; known to %s\n", r.Kind, r.Name, verb, strings.Join(r.Applied, ", "))
	if len(r.Missing) > 0 {
		fmt.Fprintf(w, "not heard from: %s; they learn of it as soon as they are\n", strings.Join(r.Missing, ", "))
	}
	return nil
}

func printEvent(w io.Writer, e admin.Event) {
	fmt.Fprintf(w, "%s  %-16s %-18s %-20s %s\n", e.Time.Local().Format("15:04:05.000"), e.Node, e.Kind, e.Subject, e.Detail)
}
