package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"landfall/deploy/drill"
	"landfall/deploy/lab"
)

// labFlags are how a lab is to be.
type labFlags struct {
	o       lab.Options
	latency string
}

func (f *labFlags) flags(c *cobra.Command) {
	c.Flags().IntVar(&f.o.Regions, "regions", 3, fmt.Sprintf("regions, 1 to %d", lab.MaxRegions))
	c.Flags().IntVar(&f.o.Nodes, "nodes", 1, fmt.Sprintf("nodes in each region, 1 to %d", lab.MaxNodes))
	c.Flags().StringVar(&f.o.Dir, "dir", "", "folder for files and logs (default: a new one, removed at the end)")
	c.Flags().StringVar(&f.latency, "latency", "", "round trips between regions: REGION:REGION=DURATION,… or off (default: by distance)")
}

// start starts the lab that the flags ask for.
func (f *labFlags) start(ctx context.Context) (*lab.Lab, error) {
	var err error
	if f.o.Latency, err = lab.ParseLatency(f.latency); err != nil {
		return nil, usageError{err}
	}
	if f.o.Executable, err = os.Executable(); err != nil {
		return nil, fmt.Errorf("find this program's own file: %w", err)
	}
	return lab.Start(ctx, f.o)
}

func labCommand() *cobra.Command {
	var f labFlags
	var lasts time.Duration
	c := &cobra.Command{
		Use: "lab", Short: "Run a whole fleet on this machine", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if lasts > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, lasts)
				defer cancel()
			}
			l, err := f.start(ctx)
			if err != nil {
				return err
			}
			defer l.Stop()
			l.Banner(cmd.OutOrStdout())
			return l.Run(ctx)
		},
	}
	f.flags(c)
	c.Flags().DurationVar(&lasts, "for", 0, "stop by itself after this long (default: run until Ctrl-C)")
	return c
}

// labOriginCommand is a lab's origin process; people have no use for it.
func labOriginCommand() *cobra.Command {
	var region string
	var listen []string
	c := &cobra.Command{
		Use: "lab-origin", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			lab.WatchParent(os.Exit)
			return lab.RunOrigins(cmd.Context(), region, listen)
		},
	}
	c.Flags().StringVar(&region, "region", "", "region that its pages name")
	c.Flags().StringSliceVar(&listen, "listen", nil, "addresses")
	return c
}

func drillCommand() *cobra.Command {
	var f labFlags
	o := drill.Options{}
	var output string
	c := &cobra.Command{
		Use: "drill NAME", Short: "Run a drill under load and account for each request", Args: cobra.ExactArgs(1),
		Long: "Run a drill on the lab that runs on this machine, or on one that it starts for the purpose. Exit code 1: its promise did not hold.",
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Name = args[0]
			if !drill.Known(o.Name) {
				return usageError{fmt.Errorf("there is no drill %q; `landfall drill list` shows them", o.Name)}
			}
			return runDrill(cmd, &f, o, output)
		},
	}
	f.flags(c)
	c.Flags().Uint64Var(&o.Seed, "seed", 1, "picks the region and what the clients ask for")
	c.Flags().StringVar(&o.Region, "region", "", "the region to strike (default: the seed picks one)")
	c.Flags().Float64Var(&o.Rate, "rate", 25, "requests a second from each place")
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	c.AddCommand(&cobra.Command{
		Use: "list", Short: "List the drills and their promises", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, d := range drill.Drills() {
				fmt.Fprintf(t, "%s\t%s\n", d.Name, d.Promise)
			}
			return t.Flush()
		},
	})
	return c
}

func runDrill(cmd *cobra.Command, f *labFlags, o drill.Options, output string) error {
	if output != "text" && output != "json" {
		return usageError{fmt.Errorf("-o %s: expected text or json", output)}
	}
	if o.Rate <= 0 || o.Rate > drill.MaxRate {
		return usageError{fmt.Errorf("--rate %g: expected more than 0 and at most %d", o.Rate, drill.MaxRate)}
	}
	o.Out = cmd.ErrOrStderr()
	if output == "json" {
		o.Out = io.Discard
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	report, err := drill.Run(ctx, o)
	if errors.Is(err, lab.ErrNoLab) {
		fmt.Fprintln(o.Out, "no lab runs; starting one for this drill")
		report, err = drillOnOwnLab(ctx, f, o)
	}
	if err != nil {
		return err
	}
	if output == "json" {
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent("", "  ")
		err = enc.Encode(report)
	} else {
		report.Print(cmd.OutOrStdout())
	}
	if err == nil && !report.Passed {
		return silentError{errors.New("the drill's promise did not hold")}
	}
	return err
}

// drillOnOwnLab starts a lab, runs the drill on it and stops it.
func drillOnOwnLab(ctx context.Context, f *labFlags, o drill.Options) (*drill.Report, error) {
	l, err := f.start(ctx)
	if err != nil {
		return nil, err
	}
	defer l.Stop()
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- l.Run(running) }()
	report, err := drill.Run(ctx, o)
	stop()
	return report, errors.Join(err, <-ended)
}
