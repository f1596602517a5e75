package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"landfall/configs"
)

func validateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "validate FILE", Short: "Check a config: all errors at once, with line and column", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := configs.Load(args[0], os.LookupEnv)
			if err != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), err)
				return silentError{usageError{err}}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is valid: %d regions, %d services (hash %s)\n", args[0], len(c.Regions), len(c.Services), c.Hash)
			return nil
		},
	}
}

func schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the config's JSON Schema, for editors", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			schema, err := configs.Schema()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", schema)
			return err
		},
	}
}
