package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"landfall/gateway/admin"
)

func faultCommand() *cobra.Command {
	c := &cobra.Command{Use: "fault", Short: "Faults made on purpose, for drills, where the config has chaos enabled"}
	c.AddCommand(faultAddCommand(), faultRmCommand(), faultListCommand())
	return c
}

func faultAddCommand() *cobra.Command {
	var n nodeFlags
	var spec admin.FaultSpec
	var delay, lasts time.Duration
	var share string
	c := &cobra.Command{
		Use: "add NAME", Short: "Make a fault on every node, for a time", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if spec.Share, err = parsePercent(share); err != nil {
				return err
			}
			spec.Delay, spec.For = admin.Duration(delay), admin.Duration(lasts)
			return changeFault(cmd, &n, args[0], &spec)
		},
	}
	n.add(c)
	f := c.Flags()
	f.StringVar(&spec.Service, "service", "", "whose requests meet it (default: every service's)")
	f.StringVar(&spec.Route, "route", "", "path pattern of the routes that meet it (default: all)")
	f.StringVar(&spec.Origin, "origin", "", "URL of the origin that seems to be at fault (default: each)")
	f.StringVar(&share, "share", "100%", "share of the attempts that meet it")
	f.DurationVar(&delay, "delay", 0, "ask the origin so much later")
	f.IntVar(&spec.Abort, "abort", 0, "answer with this status in the origin's place")
	f.BoolVar(&spec.Reset, "reset", false, "break the connection in place of an answer")
	f.IntVar(&spec.SlowBody, "slow-body", 0, "bytes of a response's body a second")
	f.DurationVar(&lasts, "for", 5*time.Minute, "end by itself after this long, at most 24h")
	f.StringVar(&spec.Reason, "reason", "", "why, for the others")
	return c
}

func faultRmCommand() *cobra.Command {
	var n nodeFlags
	c := &cobra.Command{
		Use: "rm NAME", Short: "End a fault", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return changeFault(cmd, &n, args[0], nil) },
	}
	n.add(c)
	return c
}

func changeFault(cmd *cobra.Command, n *nodeFlags, id string, spec *admin.FaultSpec) error {
	return withAPI(n, func(cmd *cobra.Command, api *admin.Client, _ []string) (admin.FaultResult, error) {
		return api.SetFault(cmd.Context(), id, spec, 0)
	}, func(w io.Writer, res admin.FaultResult) error {
		what := "ended"
		if res.Fault != nil {
			what = "in force until " + res.Fault.Expires.Local().Format(time.DateTime)
		}
		_, err := fmt.Fprintf(w, "fault %s: %s\n", res.ID, what)
		return orErr(err, printKnown(w, res.Applied, res.Missing))
	})(cmd, nil)
}

func faultListCommand() *cobra.Command {
	var n nodeFlags
	c := &cobra.Command{
		Use: "list", Short: "List the faults in force", Args: cobra.NoArgs,
		RunE: withAPI(&n, func(cmd *cobra.Command, api *admin.Client, _ []string) (admin.List[admin.Fault], error) {
			return api.Faults(cmd.Context())
		}, printFaults),
	}
	n.add(c)
	return c
}

func printFaults(w io.Writer, faults admin.List[admin.Fault]) error {
	if len(faults) == 0 {
		_, err := fmt.Fprintln(w, "no fault is made")
		return err
	}
	rows := [][]string{{"FAULT", "SERVICE", "ROUTE", "ORIGIN", "SHARE", "DOES", "UNTIL", "BY", "REASON"}}
	for _, f := range faults {
		var does []string
		for text, holds := range map[string]bool{
			"delay " + f.Delay.String(): f.Delay > 0, fmt.Sprint("abort ", f.Abort): f.Abort > 0, "reset": f.Reset, fmt.Sprint("slow body ", f.SlowBody, " B/s"): f.SlowBody > 0,
		} {
			if holds {
				does = append(does, text)
			}
		}
		until := "removed from the config"
		if !f.Expires.IsZero() {
			until = f.Expires.Local().Format(time.DateTime)
		}
		rows = append(rows, []string{f.ID, orAll(f.Service), orAll(f.Route), orAll(f.Origin), showPercent(f.Share), strings.Join(does, ", "), until, f.By, f.Reason})
	}
	return table(w, rows...)
}

func orAll(s string) string {
	if s == "" {
		return "all"
	}
	return s
}
