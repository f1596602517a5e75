package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"landfall/configs"
	"landfall/deploy/simulate"
)

func simulateCommand() *cobra.Command {
	var output outputFlag
	var scenario, report string
	var check bool
	c := &cobra.Command{
		Use: "simulate FILE --scenario FILE", Short: "On paper: what a fleet does when regions fail, with loads and spill", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := output.check(); err != nil {
				return err
			}
			if scenario == "" {
				return usageError{errors.New("--scenario is needed: a file such as deploy/simulate/examples/largest-lost-at-peak.yaml")}
			}
			fleet, err := configs.Load(args[0], os.LookupEnv)
			if err != nil {
				return err
			}
			s, err := simulate.Load(scenario, fleet)
			if err != nil {
				return usageError{err}
			}
			result := simulate.Run(fleet, s)
			if report != "" {
				if err := writeReport(report, result); err != nil {
					return err
				}
			}
			if err := output.show(cmd.OutOrStdout(), result, result.WriteText); err != nil {
				return err
			}
			if check && result.OverloadedFor > 0 {
				return silentError{errors.New("a region was overloaded")}
			}
			return nil
		},
	}
	output.add(c)
	c.Flags().StringVar(&scenario, "scenario", "", "what happens: clients by place, failures, drains (YAML)")
	c.Flags().StringVar(&report, "report", "", "write a report to look at, with charts, to this HTML file")
	c.Flags().BoolVar(&check, "check", false, "exit 1 when any region was overloaded")
	return c
}

func writeReport(path string, result *simulate.Result) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return errors.Join(result.WriteHTML(f), f.Close())
}
