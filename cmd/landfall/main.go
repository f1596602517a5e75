// Command landfall is a multi-region edge gateway and global load balancer: one node of a fleet, and the tools around it.
// It parses flags, calls the packages that do the work, and turns errors into exit codes; it holds no logic of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"landfall/configs"
	"landfall/gateway/admin"
)

// The exit codes. Scripts rely on them.
const (
	exitFailed      = 1 // it failed, or a check or drill did not hold
	exitUsage       = 2 // wrong usage or invalid config
	exitUnreachable = 3 // the node can't be reached
)

// version is set by the build with -ldflags "-X main.version=…".
var version = ""

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// execute runs one command line and returns its exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.InitDefaultCompletionCmd() // writes to the root's output of this moment
	usageArgs(root)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var quiet silentError
	if !errors.As(err, &quiet) {
		fmt.Fprintf(stderr, "landfall: %v\n", err)
		var problem *admin.Problem
		if errors.As(err, &problem) && len(problem.Known) > 0 {
			fmt.Fprintf(stderr, "known: %s\n", strings.Join(problem.Known, ", "))
		}
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var usage usageError
	var invalid configs.Errors
	switch {
	case errors.Is(err, admin.ErrUnreachable):
		return exitUnreachable
	case errors.As(err, &usage), errors.As(err, &invalid):
		return exitUsage
	}
	return exitFailed
}

// usageError is a wrong command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// silentError is a failure that has been told already.
type silentError struct{ error }

func (e silentError) Unwrap() error { return e.error }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "landfall",
		Short:         "A multi-region edge gateway and global load balancer",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(
		runCommand(), validateCommand(), schemaCommand(), fleetCommand(), labCommand(), labOriginCommand(), drillCommand(),
		statusCommand(), explainCommand(), drainCommand(), undrainCommand(), drainsCommand(), verdictsCommand(), forceCommand(), unforceCommand(),
		weightCommand(), flagCommand(), canaryCommand(), faultCommand(), simulateCommand(), poolsCommand(), breakerCommand(), homeCommand(), purgeCommand(), eventsCommand(),
		versionCommand(),
	)
	return root
}

// usageArgs makes wrong arguments of a command and its subcommands usage errors. A command that only groups others shows
// its help, and takes a subcommand that it has not for an error.
func usageArgs(c *cobra.Command) {
	if !c.Runnable() {
		c.Args = cobra.NoArgs
		c.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{fmt.Errorf("%w; see `%s --help`", err, cmd.CommandPath())}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		usageArgs(sub)
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), buildVersion()) },
	}
}

// buildVersion is the version given at build time, else what the Go toolchain recorded.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// nodeFlags are the flags of every command that talks to a node.
type nodeFlags struct {
	admin, token string
	output       outputFlag
}

func (n *nodeFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&n.admin, "admin", envOr("LANDFALL_ADMIN", "http://127.0.0.1:9901"), "URL of a node's admin API ($LANDFALL_ADMIN)")
	c.Flags().StringVar(&n.token, "token", "", "bearer token for it ($LANDFALL_TOKEN)")
	n.output.add(c)
}

// client is the API client that the flags ask for.
func (n *nodeFlags) client() (*admin.Client, error) {
	if err := n.output.check(); err != nil {
		return nil, err
	}
	token := n.token
	if token == "" {
		token = os.Getenv("LANDFALL_TOKEN")
	}
	return admin.NewClient(n.admin, token, nil), nil
}

func envOr(name, otherwise string) string {
	if v, ok := os.LookupEnv(name); ok {
		return v
	}
	return otherwise
}
