package main

import (
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"landfall/gateway/admin"
)

func weightCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "weight", Short: "Weights of services in regions, set at run time", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(weightSetCommand(), weightResetCommand(), weightListCommand())
	return c
}

func weightSetCommand() *cobra.Command {
	var n nodeFlags
	var spec admin.WeightSpec
	c := &cobra.Command{
		Use: "set SERVICE REGION WEIGHT", Short: "Set a weight, in place of the config's", Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			weight, err := strconv.Atoi(args[2])
			if err != nil {
				return usageError{fmt.Errorf("%q is no weight: expected a whole number from 0 to 1000", args[2])}
			}
			spec.Weight = weight
			return changeWeight(cmd, &n, args, &spec)
		},
	}
	n.add(c)
	c.Flags().BoolVar(&spec.Force, "force", false, "set it even if what remains can't carry the load")
	return c
}

func weightResetCommand() *cobra.Command {
	var n nodeFlags
	c := &cobra.Command{
		Use: "reset SERVICE REGION", Short: "Let the config's weight hold again", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return changeWeight(cmd, &n, args, nil) },
	}
	n.add(c)
	return c
}

func changeWeight(cmd *cobra.Command, n *nodeFlags, args []string, spec *admin.WeightSpec) error {
	return withAPI(n, func(cmd *cobra.Command, api *admin.Client, args []string) (admin.WeightResult, error) {
		return api.SetWeight(cmd.Context(), args[0], args[1], spec, 0)
	}, func(w io.Writer, res admin.WeightResult) error {
		_, err := fmt.Fprintf(w, "%s in %s: weight %d; known to %v\n", res.Service, res.Region, res.Weight, res.Applied)
		return err
	})(cmd, args)
}

func weightListCommand() *cobra.Command {
	var n nodeFlags
	c := &cobra.Command{
		Use: "list", Short: "List the weights set at run time", Args: cobra.NoArgs,
		RunE: withAPI(&n, func(cmd *cobra.Command, api *admin.Client, _ []string) (admin.List[admin.Weight], error) {
			return api.Weights(cmd.Context())
		}, func(w io.Writer, weights admin.List[admin.Weight]) error {
			rows := [][]string{{"SERVICE", "REGION", "WEIGHT", "BY"}}
			for _, x := range weights {
				rows = append(rows, []string{x.Service, x.Region, strconv.Itoa(x.Weight), x.By})
			}
			return table(w, rows...)
		}),
	}
	n.add(c)
	return c
}
