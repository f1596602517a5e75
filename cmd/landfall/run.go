package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"landfall/deploy/lab"
	"landfall/gateway"
)

func runCommand() *cobra.Command {
	var o gateway.Options
	var advertise, latency []string
	var clock time.Duration
	c := &cobra.Command{
		Use: "run --config FILE", Short: "Run one gateway node", Args: cobra.NoArgs,
		Long: `Run one gateway node. It prints one line a listener, then "ready".

SIGTERM stops it in stages: out of DNS and mesh, connections told to go, requests finished. A second one cuts the waits.
SIGHUP reads the config again; a bad file is refused and the old one stays.
Every flag has an environment twin: --region is LANDFALL_REGION.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := envTwins(cmd.Flags()); err != nil {
				return err
			}
			if o.ConfigFile == "" {
				return usageError{errors.New("--config FILE is needed")}
			}
			// LANDFALL_ADMIN is also where the other commands look for a node: a URL.
			o.Admin = strings.TrimSuffix(strings.TrimPrefix(o.Admin, "http://"), "/")
			var err error
			if o.Advertise, err = parseAddrs(advertise); err != nil {
				return usageError{err}
			}
			if o.Latency, err = parseLatency(latency); err != nil {
				return usageError{err}
			}
			o.Now = func() time.Time { return time.Now().Add(clock) }
			lab.WatchParent(os.Exit)
			return runNode(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	f := c.Flags()
	f.StringVar(&o.ConfigFile, "config", "", "the fleet's config file")
	f.StringVar(&o.Name, "node", "", "this node's name (default: the host's)")
	f.StringVar(&o.Region, "region", "", "the region that this node is in (default: the only one of the config)")
	f.StringVar(&o.Bind, "bind", "", "IP for listeners whose address has no host (default: every interface)")
	f.StringSliceVar(&advertise, "advertise", nil, "IPs by which clients and nodes reach this node (default: --bind, or the machine's)")
	f.StringSliceVar(&o.Join, "join", nil, "addresses of nodes to join, beside the config's mesh.join")
	f.StringVar(&o.DataDir, "data", "", "folder for what is kept over a restart: registers, known peers, ACME certificates")
	f.StringVar(&o.Admin, "admin", "", "address (or http URL) of the admin API, instead of listen.admin")
	f.StringSliceVar(&latency, "latency", nil, "REGION=DURATION: delay what is sent to a region's nodes, one way; for labs and drills")
	f.StringVar(&o.Network, "network", "", "file with lines REGION cut, or REGION loss 5%: what the way to other regions' nodes suffers, as it says at the time; for labs and drills")
	f.DurationVar(&clock, "clock", 0, "how far ahead this node's clock goes (behind: -30s); for labs and drills")
	return c
}

// runNode runs a node until a signal or a failure ends it.
func runNode(ctx context.Context, o gateway.Options, out io.Writer) error {
	o.Lookup, o.Version = os.LookupEnv, buildVersion()
	o.Print = func(line string) { fmt.Fprintln(out, line) }
	// Before anything else, so that a signal during the start is not lost. The first SIGTERM or Ctrl-C stops in stages; a
	// second one cuts what is left.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	n, err := gateway.New(o)
	if err != nil {
		return err
	}
	run, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- n.Run(run, stop) }()
	stopping := false
	for {
		select {
		case err := <-ended:
			return err
		case s := <-signals:
			switch {
			case s == syscall.SIGHUP:
				if err := n.Reload(); err != nil {
					fmt.Fprintf(os.Stderr, "landfall: the config was not reloaded; the old one stays in force:\n%v\n", err)
				}
			case stopping:
				cut()
			default:
				stopping = true
				close(stop)
			}
		}
	}
}

// envTwins sets each flag that was not given from its environment twin.
func envTwins(flags *pflag.FlagSet) error {
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		name := "LANDFALL_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if v, ok := os.LookupEnv(name); ok && !f.Changed && f.Name != "help" {
			if err := flags.Set(f.Name, v); err != nil {
				errs = append(errs, usageError{fmt.Errorf("$%s: %w", name, err)})
			}
		}
	})
	return errors.Join(errs...)
}

func parseAddrs(list []string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, s := range list {
		a, err := netip.ParseAddr(s)
		if err != nil || a.IsUnspecified() {
			return nil, fmt.Errorf("--advertise %q: expected an IP address that others can reach", s)
		}
		out = append(out, a)
	}
	return out, nil
}

func parseLatency(list []string) (map[string]time.Duration, error) {
	out := map[string]time.Duration{}
	for _, s := range list {
		if s == "" {
			continue
		}
		region, text, ok := strings.Cut(s, "=")
		d, err := time.ParseDuration(text)
		if !ok || err != nil || d < 0 || d > 5*time.Second {
			return nil, fmt.Errorf("--latency %q: expected REGION=DURATION, at most 5s, such as us-east=40ms", s)
		}
		out[region] = d
	}
	return out, nil
}
