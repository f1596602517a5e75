package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"landfall/gateway/admin"
)

func canaryCommand() *cobra.Command {
	c := &cobra.Command{Use: "canary", Short: "Canaries: how they fare, and how many clients they serve"}
	c.AddCommand(
		canaryListCommand(),
		canaryChange("set SERVICE TO WEIGHT", "Set how many of the clients a canary serves, such as 25%", 3, func(args []string) (*admin.CanarySpec, error) {
			weight, err := parsePercent(args[2])
			return &admin.CanarySpec{Weight: weight}, err
		}),
		canaryChange("promote SERVICE TO", "Let a canary serve all clients", 2, func([]string) (*admin.CanarySpec, error) {
			return &admin.CanarySpec{Weight: 100}, nil
		}),
		canaryChange("rollback SERVICE TO", "Take a canary back: nobody goes there any more", 2, func([]string) (*admin.CanarySpec, error) {
			return &admin.CanarySpec{Stopped: true}, nil
		}),
		canaryChange("reset SERVICE TO", "Let the config hold again, also after a rollback", 2, func([]string) (*admin.CanarySpec, error) { return nil, nil }),
	)
	return c
}

func canaryChange(use, short string, args int, specOf func(args []string) (*admin.CanarySpec, error)) *cobra.Command {
	var n nodeFlags
	var reason string
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(args),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := specOf(args)
			if err != nil {
				return err
			}
			if spec != nil {
				spec.Reason = reason
			}
			return withAPI(&n, func(cmd *cobra.Command, api *admin.Client, _ []string) (admin.CanaryResult, error) {
				return api.SetCanary(cmd.Context(), args[0], args[1], spec, 0)
			}, func(w io.Writer, res admin.CanaryResult) error {
				_, err := fmt.Fprintf(w, "canary %s of %s: %s\n", res.Canary.To, res.Canary.Service, canaryState(res.Canary))
				return orErr(err, printKnown(w, res.Applied, res.Missing))
			})(cmd, args)
		},
	}
	n.add(c)
	c.Flags().StringVar(&reason, "reason", "", "why, for the others")
	return c
}

func canaryState(c admin.Canary) string {
	if c.State == "stopped" {
		return "taken back"
	}
	return "serves " + showPercent(c.Weight) + " of the clients"
}

func canaryListCommand() *cobra.Command {
	var n nodeFlags
	c := &cobra.Command{
		Use: "list", Short: "List the canaries beside their stable sides, as the node that is asked sees them", Args: cobra.NoArgs,
		RunE: withAPI(&n, func(cmd *cobra.Command, api *admin.Client, _ []string) (admin.List[admin.Canary], error) {
			return api.Canaries(cmd.Context())
		}, printCanaries),
	}
	n.add(c)
	return c
}

func printCanaries(w io.Writer, canaries admin.List[admin.Canary]) error {
	rows := [][]string{{"SERVICE", "SIDE", "STATE", "REQUESTS", "FAILED", "P99", "WINDOW", "WHY"}}
	for _, c := range canaries {
		why := c.Reason
		if c.SetBy != "" {
			why = "by " + c.SetBy + paren(c.Reason)
		}
		side := func(name, state string, s admin.CanarySide, why string) []string {
			return []string{c.Service, name, state, fmt.Sprint(s.Requests), fmt.Sprint(s.Failed), fmt.Sprintf("%.1f ms", s.P99), c.Window.String(), why}
		}
		rows = append(rows, side("stable", "", c.Stable, ""), side(c.To, canaryState(c), c.Canary, why))
	}
	return table(w, rows...)
}

// printExplainedCanary says how a route's clients are shared with its canary.
func printExplainedCanary(w io.Writer, c *admin.ExplainedCanary) {
	if c == nil {
		return
	}
	share, sticky := showPercent(c.Weight)+" of the clients", map[string]string{
		"cookie": "kept there by the cookie landfall-side", "client": "kept there by their address", "off": "each request drawn anew",
	}[c.Sticky]
	if c.Stopped {
		share, sticky = "stopped", "nobody goes there"
	}
	fmt.Fprintf(w, "             canary %s: %s, %s", c.To, share, sticky)
	for _, by := range []string{c.Header, c.Cookie} {
		if by != "" && !c.Stopped {
			fmt.Fprintf(w, "; also with %s", by)
		}
	}
	if c.Side != "" {
		fmt.Fprintf(w, "; this client is on the %s side", c.Side)
	}
	fmt.Fprintf(w, "\n             taken back by itself: %s\n", c.Rules)
}
