package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"landfall/gateway/admin"
)

func flagCommand() *cobra.Command {
	c := &cobra.Command{Use: "flag", Short: "Flags: whom new behaviour is on for, turned at run time"}
	c.AddCommand(flagListCommand(), flagSetCommand(), flagResetCommand())
	return c
}

// parsePercent reads a share of the clients: 25% or 25.
func parsePercent(text string) (float64, error) {
	p, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
	if err != nil || !(p >= 0 && p <= 100) {
		return 0, usageError{fmt.Errorf("%q is no share of the clients: write 0%% to 100%%", text)}
	}
	return p, nil
}

func showPercent(p float64) string { return strconv.FormatFloat(p, 'f', -1, 64) + "%" }

func flagSetCommand() *cobra.Command {
	var n nodeFlags
	c := &cobra.Command{
		Use: "set NAME WEIGHT", Short: "Set for how many of the clients a flag is on, such as 25%", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			weight, err := parsePercent(args[1])
			if err != nil {
				return err
			}
			return changeFlag(cmd, &n, args[0], &admin.FlagSpec{Weight: weight})
		},
	}
	n.add(c)
	return c
}

func flagResetCommand() *cobra.Command {
	var n nodeFlags
	c := &cobra.Command{
		Use: "reset NAME", Short: "Let the config's weight hold again", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return changeFlag(cmd, &n, args[0], nil) },
	}
	n.add(c)
	return c
}

func changeFlag(cmd *cobra.Command, n *nodeFlags, name string, spec *admin.FlagSpec) error {
	return withAPI(n, func(cmd *cobra.Command, api *admin.Client, _ []string) (admin.FlagResult, error) {
		return api.SetFlag(cmd.Context(), name, spec, 0)
	}, func(w io.Writer, res admin.FlagResult) error {
		_, err := fmt.Fprintf(w, "flag %s: on for %s of the clients\n", res.Flag.Name, showPercent(res.Flag.Weight))
		return orErr(err, printKnown(w, res.Applied, res.Missing))
	})(cmd, nil)
}

// printKnown says which nodes know of a change.
func printKnown(w io.Writer, applied, missing []string) error {
	_, err := fmt.Fprintf(w, "known to %s\n", strings.Join(applied, ", "))
	if err == nil && len(missing) > 0 {
		_, err = fmt.Fprintf(w, "not yet known to %s\n", strings.Join(missing, ", "))
	}
	return err
}

func orErr(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

func flagListCommand() *cobra.Command {
	var n nodeFlags
	c := &cobra.Command{
		Use: "list", Short: "List the flags and whom they are on for", Args: cobra.NoArgs,
		RunE: withAPI(&n, func(cmd *cobra.Command, api *admin.Client, _ []string) (admin.List[admin.Flag], error) {
			return api.Flags(cmd.Context())
		}, func(w io.Writer, flags admin.List[admin.Flag]) error {
			rows := [][]string{{"FLAG", "ON FOR", "CONFIG", "THE SAME FOR", "SET BY"}}
			for _, f := range flags {
				rows = append(rows, []string{f.Name, showPercent(f.Weight), showPercent(f.Config), f.By, f.SetBy})
			}
			return table(w, rows...)
		}),
	}
	n.add(c)
	return c
}
