package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"landfall/gateway/admin"
)

func breakerCommand() *cobra.Command {
	var n nodeFlags
	var spec admin.BreakerSpec
	var lasts time.Duration
	var region string
	c := &cobra.Command{
		Use: "breaker open|close|reset ORIGIN|SERVICE", Short: "Hold the circuit breaker of an origin, or of a whole pool, on every node, or leave it to itself", Args: cobra.ExactArgs(2),
		Long: "Hold the circuit breaker of an origin on every node, or that of a service's whole pool with --region, or leave it to itself.\n\n" +
			"While a pool's is held open, other regions serve its requests.",
		RunE: func(cmd *cobra.Command, args []string) error {
			order := &spec
			switch args[0] {
			case "open":
				spec.State = "open"
			case "close":
				spec.State = "closed"
			case "reset":
				order = nil
			default:
				return usageError{fmt.Errorf("%q is not open, close or reset", args[0])}
			}
			spec.For = admin.Duration(lasts)
			target := admin.BreakerTarget{Origin: args[1]}
			if region != "" {
				target = admin.BreakerTarget{Pool: args[1] + "/" + region}
			}
			return withAPI(&n, func(cmd *cobra.Command, api *admin.Client, _ []string) (admin.BreakerResult, error) {
				return api.SetBreaker(cmd.Context(), target, order, 0)
			}, printBreakerResult)(cmd, args)
		},
	}
	n.add(c)
	c.Flags().StringVar(&region, "region", "", "the pool of SERVICE in this region, in place of an origin")
	c.Flags().DurationVar(&lasts, "for", 0, "leave it to itself again after this long (default: until reset)")
	c.Flags().StringVar(&spec.Reason, "reason", "", "why, for the others")
	return c
}

func printBreakerResult(w io.Writer, r admin.BreakerResult) error {
	what := "left to itself"
	if r.Order != nil {
		what = "held " + r.Order.State
	}
	if !r.Changed {
		what += ", as before"
	}
	_, err := fmt.Fprintf(w, "breaker of %s: %s\nknown to %s\n", r.BreakerTarget, what, strings.Join(r.Applied, ", "))
	if err == nil && len(r.Missing) > 0 {
		_, err = fmt.Fprintf(w, "not yet known to %s\n", strings.Join(r.Missing, ", "))
	}
	return err
}

func poolsCommand() *cobra.Command {
	var n nodeFlags
	c := &cobra.Command{
		Use: "pools SERVICE", Short: "A service's pools: each origin, its health, breaker and load", Args: cobra.ExactArgs(1),
		RunE: withAPI(&n, func(cmd *cobra.Command, api *admin.Client, args []string) (admin.List[admin.Pool], error) {
			return api.Pools(cmd.Context(), args[0])
		}, printPools),
	}
	n.add(c)
	return c
}

func printPools(w io.Writer, pools admin.List[admin.Pool]) error {
	rows := [][]string{{"REGION", "ORIGIN", "STATE", "BREAKER", "IN FLIGHT", "WEIGHT", "DETAIL"}}
	by := map[bool]string{true: ", held by an operator"}
	for _, p := range pools {
		for _, o := range p.Origins {
			var notes []string
			for note, holds := range map[string]bool{"drained": o.Drained, "ejected": o.Ejected, "held by an operator": o.Forced, "pool in panic": p.Panic,
				"the whole pool's breaker is " + p.Breaker + by[p.Forced]: p.Forced || p.Breaker != "" && p.Breaker != "closed"} {
				if holds {
					notes = append(notes, note)
				}
			}
			slices.Sort(notes)
			if o.Detail != "" {
				notes = append(notes, o.Detail)
			}
			inFlight := fmt.Sprint(o.InFlight)
			if o.Limit > 0 {
				inFlight += fmt.Sprintf(" of %d", o.Limit)
			}
			weight := ""
			if o.Weight > 0 {
				if weight = fmt.Sprint(o.Weight); o.Share < 1 {
					weight += fmt.Sprintf(" (%.0f%%)", o.Share*100)
				}
			}
			rows = append(rows, []string{p.Region, o.URL, o.State, o.Breaker, inFlight, weight, strings.Join(notes, "; ")})
		}
	}
	return table(w, rows...)
}
