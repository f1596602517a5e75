package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"landfall/gateway/admin"
)

func verdictsCommand() *cobra.Command {
	var n nodeFlags
	c := &cobra.Command{
		Use: "verdicts", Short: "What a node finds of each region and service, and why", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := n.client()
			if err != nil {
				return err
			}
			defer api.Close()
			verdicts, forces, err := api.Verdicts(cmd.Context())
			if err != nil {
				return err
			}
			all := struct {
				Verdicts admin.List[admin.Verdict] `json:"verdicts"`
				Forces   admin.List[admin.Force]   `json:"forces"`
			}{verdicts, forces}
			return n.output.show(cmd.OutOrStdout(), all, func(w io.Writer) error { return printVerdicts(w, verdicts) })
		},
	}
	n.add(c)
	return c
}

func printVerdicts(w io.Writer, verdicts []admin.Verdict) error {
	rows := [][]string{{"REGION", "SERVICE", "STATE", "SEEN", "SINCE", "EVIDENCE"}}
	for _, v := range verdicts {
		service, state := v.Service, v.State
		if service == "" {
			service = "-"
		}
		switch {
		case v.Forced:
			state += " (forced)"
		case v.Kept:
			state += " (kept)"
		}
		rows = append(rows, []string{v.Region, service, state, v.Seen, v.Since.Local().Format(time.DateTime), v.Evidence})
	}
	return table(w, rows...)
}

func forceCommand() *cobra.Command {
	var n nodeFlags
	var service string
	var lasts time.Duration
	spec := admin.ForceSpec{}
	c := &cobra.Command{
		Use: "force REGION up|down", Short: "Force a region's state for a time, whatever is seen", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec.State, spec.For = args[1], admin.Duration(lasts)
			return changeForce(cmd, &n, args[0], service, &spec)
		},
	}
	n.add(c)
	c.Flags().StringVar(&service, "service", "", "only this service there")
	c.Flags().DurationVar(&lasts, "for", 10*time.Minute, "how long, at most 168h: a force always ends by itself")
	c.Flags().StringVar(&spec.Reason, "reason", "", "why, for the others (required)")
	return c
}

func unforceCommand() *cobra.Command {
	var n nodeFlags
	var service string
	c := &cobra.Command{
		Use: "unforce REGION", Short: "Lift a forced state", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return changeForce(cmd, &n, args[0], service, nil) },
	}
	n.add(c)
	c.Flags().StringVar(&service, "service", "", "the force on this service there")
	return c
}

// changeForce forces a state by a spec, or lifts it without one.
func changeForce(cmd *cobra.Command, n *nodeFlags, region, service string, spec *admin.ForceSpec) error {
	if spec != nil && (spec.State != "up" && spec.State != "down" || spec.Reason == "") {
		return usageError{fmt.Errorf("give the state to force, up or down, and a --reason")}
	}
	return withAPI(n, func(cmd *cobra.Command, api *admin.Client, _ []string) (admin.ForceResult, error) {
		return api.Force(cmd.Context(), region, service, spec)
	}, func(w io.Writer, res admin.ForceResult) error {
		what := "no state is forced"
		if res.Force != nil {
			what = fmt.Sprintf("forced %s until %s", res.Force.State, res.Force.Expires.Local().Format(time.DateTime))
		}
		_, err := fmt.Fprintf(w, "%s %s: %s; known to %d nodes, %d have not answered\n", res.Region, res.Service, what, len(res.Applied), len(res.Missing))
		return err
	})(cmd, nil)
}
