package main

import (
	"io"

	"github.com/spf13/cobra"

	"landfall/gateway/admin"
)

// withAPI runs what a command asks of a node and shows the result.
func withAPI[T any](n *nodeFlags, ask func(cmd *cobra.Command, api *admin.Client, args []string) (T, error), text func(io.Writer, T) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		api, err := n.client()
		if err != nil {
			return err
		}
		defer api.Close()
		res, err := ask(cmd, api, args)
		if err != nil {
			return err
		}
		return n.output.show(cmd.OutOrStdout(), res, func(w io.Writer) error { return text(w, res) })
	}
}
