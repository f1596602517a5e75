package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"landfall/deploy/drill"
	"landfall/deploy/lab"
	"landfall/deploy/storm"
)

// labFlags are how a lab is to be.
type labFlags struct {
	o       lab.Options
	latency string
}

func (f *labFlags) flags(c *cobra.Command) {
	c.Flags().IntVar(&f.o.Net, "net", 0, fmt.Sprintf("second byte of the lab's addresses, 127.NET.REGION.NODE, 0 to %d: labs of different nets run side by side", lab.MaxNet))
	c.Flags().IntVar(&f.o.Regions, "regions", 3, fmt.Sprintf("regions, 1 to %d", lab.MaxRegions))
	c.Flags().IntVar(&f.o.Nodes, "nodes", 1, fmt.Sprintf("nodes in each region, 1 to %d", lab.MaxNodes))
	c.Flags().StringVar(&f.o.Dir, "dir", "", "folder for files and logs (default: a new one, removed at the end)")
	c.Flags().StringVar(&f.latency, "latency", "", "round trips between regions: REGION:REGION=DURATION,… or off (default: by distance)")
}

// start starts the lab that the flags ask for.
func (f *labFlags) start(ctx context.Context, tell io.Writer) (*lab.Lab, error) {
	err := f.o.Check()
	if err != nil {
		return nil, usageError{err}
	}
	f.o.Out = tell
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
			l, err := f.start(cmd.Context(), cmd.ErrOrStderr())
			if cmd.Context().Err() != nil {
				return nil // Ctrl-C during the start
			}
			if err != nil {
				return err
			}
			defer l.Stop()
			l.Banner(cmd.OutOrStdout())
			ctx := cmd.Context()
			if lasts > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, lasts)
				defer cancel()
			}
			return l.Run(ctx)
		},
	}
	f.flags(c)
	c.Flags().DurationVar(&lasts, "for", 0, "stop by itself after this long (default: run until Ctrl-C)")
	c.Flags().Float64Var(&f.o.Traffic, "traffic", 2, fmt.Sprintf("requests a second that the lab itself sends from each place, 0 (none) to %d", lab.MaxTraffic))
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
	var output outputFlag
	c := &cobra.Command{
		Use: "drill NAME", Short: "Run a drill under load and account for each request", Args: cobra.ExactArgs(1),
		Long: "Run a drill on the lab that runs on this machine, or on one that it starts for the purpose. Exit code 1: its promise did not hold.",
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Name = args[0]
			if !drill.Known(o.Name) {
				return usageError{fmt.Errorf("there is no drill %q; `landfall drill list` shows them", o.Name)}
			}
			o.Control = lab.ControlAddr(f.o.Net)
			return runDrill(cmd, &f, o, output)
		},
	}
	f.flags(c)
	c.Flags().Uint64Var(&o.Seed, "seed", 1, "picks the region and what the clients ask for")
	c.Flags().StringVar(&o.Region, "region", "", "the region to strike (default: the seed picks one)")
	c.Flags().Float64Var(&o.Rate, "rate", 25, "requests a second from each place")
	c.Flags().DurationVar(&o.For, "for", 0, "how long the purge drill and the offload drill last (default 20s)")
	output.add(c)
	c.AddCommand(drillListCommand(), drillStormCommand())
	return c
}

func drillListCommand() *cobra.Command {
	var out outputFlag
	c := &cobra.Command{
		Use: "list", Short: "List the drills and their promises", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			drills := append(drill.Drills(), drill.Drill{Name: storm.Name, Promise: storm.Promise})
			return out.show(cmd.OutOrStdout(), drills, func(w io.Writer) error {
				var rows [][]string
				for _, d := range drills {
					rows = append(rows, []string{d.Name, d.Promise})
				}
				return table(w, rows...)
			})
		},
	}
	out.add(c)
	return c
}

func runDrill(cmd *cobra.Command, f *labFlags, o drill.Options, output outputFlag) error {
	if err := output.check(); err != nil {
		return err
	}
	if !(o.Rate > 0 && o.Rate <= drill.MaxRate) {
		return usageError{fmt.Errorf("--rate %g: expected more than 0 and at most %d", o.Rate, drill.MaxRate)}
	}
	o.Out = cmd.ErrOrStderr() // how it goes; the report alone is the output
	if output == "json" {
		o.Out = io.Discard
	}
	report, err := drill.Run(cmd.Context(), o)
	if errors.Is(err, lab.ErrNoLab) {
		fmt.Fprintln(o.Out, "no lab runs; starting one for this drill")
		report, err = drillOnOwnLab(cmd, f, o)
	}
	if cmd.Context().Err() != nil {
		return errors.New("interrupted; what the drill had struck is mended")
	}
	if err != nil {
		return err
	}
	err = output.show(cmd.OutOrStdout(), report, func(w io.Writer) error { report.Print(w); return nil })
	if err == nil && !report.Passed {
		return silentError{errors.New("the drill's promise did not hold")}
	}
	return err
}

// drillOnOwnLab starts a lab, runs the drill on it and stops it.
func drillOnOwnLab(cmd *cobra.Command, f *labFlags, o drill.Options) (*drill.Report, error) {
	if f.o.Regions < 2 {
		return nil, usageError{errors.New("--regions: a drill needs at least 2")}
	}
	l, err := f.start(cmd.Context(), cmd.ErrOrStderr())
	if err != nil {
		return nil, err
	}
	defer l.Stop()
	running, stop := context.WithCancel(cmd.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(running) }()
	report, err := drill.Run(cmd.Context(), o)
	stop()
	return report, errors.Join(err, <-ended)
}
