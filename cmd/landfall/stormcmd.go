package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"landfall/deploy/storm"
)

// drillStormCommand is a drill that needs no lab: it starts a node, a model origin and clients of its own.
func drillStormCommand() *cobra.Command {
	var output outputFlag
	var beside []string
	c := &cobra.Command{
		Use: storm.Name, Short: "Let an origin's capacity fall to a third under steady load, and see what clients get", Args: cobra.NoArgs,
		Long: "The promise: " + storm.Promise + ". With --beside the same load goes through other gateways, with their defaults, at the same time. Takes about half a minute.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := output.check(); err != nil {
				return err
			}
			for _, name := range beside {
				if !slices.Contains(storm.Known(), name) {
					return usageError{fmt.Errorf("--beside %s: expected %s", name, strings.Join(storm.Known(), " or "))}
				}
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			o := storm.Options{Executable: self, Beside: beside, Out: cmd.ErrOrStderr()}
			if output == "json" {
				o.Out = io.Discard
			}
			report, err := storm.Run(cmd.Context(), o)
			if err != nil {
				return err
			}
			err = output.show(cmd.OutOrStdout(), report, func(w io.Writer) error { report.Print(w); return nil })
			if err == nil && !report.Passed {
				return silentError{errors.New("the drill's promise did not hold")}
			}
			return err
		},
	}
	c.Flags().StringSliceVar(&beside, "beside", nil, "other gateways to send the same load through: nginx, haproxy")
	output.add(c)
	return c
}
