package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"landfall/gateway/admin"
)

func homeCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "home", Short: "Where users' data lives: look it up, move it to another hash ring, pin users", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(homeListCommand(), homeFindCommand(), homeMigrateCommand(), homePinCommand(), homeUnpinCommand(), homePinsCommand())
	return c
}

func homeListCommand() *cobra.Command {
	var n nodeFlags
	c := &cobra.Command{
		Use: "list", Short: "The services whose users have homes, and how far users have moved", Args: cobra.NoArgs,
		RunE: withAPI(&n, func(cmd *cobra.Command, api *admin.Client, _ []string) (admin.List[admin.ServiceHomes], error) {
			return api.Homes(cmd.Context())
		}, printHomes),
	}
	n.add(c)
	return c
}

func printHomes(w io.Writer, list admin.List[admin.ServiceHomes]) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "no service has an affinity")
		return err
	}
	for _, h := range list {
		fmt.Fprintf(w, "%s: homes in %s; %d pinned\n", h.Service, strings.Join(h.Ring, ", "), h.Pins)
		if len(h.Next) == 0 {
			continue
		}
		fmt.Fprintf(w, "moving to %s: %s of the users that change homes have moved%s\n", strings.Join(h.Next, ", "), percent(h.Share), movingText(h.Moving))
		rows := [][]string{{"FROM", "TO", "OF ALL USERS", "MOVED"}}
		for _, m := range h.Movers {
			rows = append(rows, []string{m.From, m.To, percent(m.Share), percent(m.Moved)})
		}
		if err := table(w, rows...); err != nil {
			return err
		}
	}
	return nil
}

func movingText(m *admin.Move) string {
	if m == nil {
		return ""
	}
	text := fmt.Sprintf(", %s wanted by %s", percent(m.To), m.By)
	if m.Reason != "" {
		text += " (" + m.Reason + ")"
	}
	return text
}

func percent(share float64) string { return strconv.FormatFloat(share*100, 'f', 1, 64) + "%" }

func homeFindCommand() *cobra.Command {
	var n nodeFlags
	c := &cobra.Command{
		Use: "find SERVICE USER", Short: "Where one user's data lives, and what says so", Args: cobra.ExactArgs(2),
		RunE: withAPI(&n, func(cmd *cobra.Command, api *admin.Client, args []string) (admin.UserHome, error) {
			return api.HomeOf(cmd.Context(), args[0], args[1])
		}, printHome),
	}
	n.add(c)
	return c
}

func printHome(w io.Writer, h admin.UserHome) error {
	why := map[string]string{"ring": "by the hash ring", "moved": "by the ring that users move to", "pinned": "pinned by an operator", "lookup": "by the lookup service"}[h.Why]
	text := fmt.Sprintf("%s lives in %s, %s", h.User, h.Region, why)
	if h.Old != "" {
		text += "; what is not there yet is read from " + h.Old
	}
	if len(h.Then) > 0 {
		text += "; while it is away: " + strings.Join(h.Then, ", ")
	}
	if h.Wait > 0 {
		text += "; moving now, writes wait " + h.Wait.String()
	}
	_, err := fmt.Fprintln(w, text)
	return err
}

func homeMigrateCommand() *cobra.Command {
	var n nodeFlags
	var spec admin.MoveSpec
	var over time.Duration
	c := &cobra.Command{
		Use: "migrate SERVICE SHARE|off", Short: "Move users to the ring that affinity.next describes, as far as said (25%)", Args: cobra.ExactArgs(2),
		RunE: withAPI(&n, func(cmd *cobra.Command, api *admin.Client, args []string) (admin.MoveResult, error) {
			if args[1] == "off" {
				return api.MoveUsers(cmd.Context(), args[0], nil, 0)
			}
			share, err := strconv.ParseFloat(strings.TrimSuffix(args[1], "%"), 64)
			if err != nil || share < 0 || share > 100 {
				return admin.MoveResult{}, usageError{fmt.Errorf("%q is no share: expected 0%% to 100%%, or off", args[1])}
			}
			spec.Share, spec.Over = share/100, admin.Duration(over)
			return api.MoveUsers(cmd.Context(), args[0], &spec, 0)
		}, func(w io.Writer, r admin.MoveResult) error {
			text := "everybody is at home in the first ring"
			if r.Move != nil {
				text = fmt.Sprintf("users move from %s to %s over %s, from %s on", percent(r.Move.From), percent(r.Move.To), r.Move.Over, r.Move.Since.Local().Format("15:04:05"))
			}
			fmt.Fprintf(w, "%s: %s; known to %s\n", r.Service, text, strings.Join(r.Applied, ", "))
			return printMissing(w, r.Missing)
		}),
	}
	n.add(c)
	c.Flags().DurationVar(&over, "over", 0, "move them evenly over this long (default: at once)")
	c.Flags().StringVar(&spec.Reason, "reason", "", "why, for the others")
	return c
}

func printMissing(w io.Writer, missing []string) error {
	if len(missing) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "not heard from: %s; they learn of it as soon as they are\n", strings.Join(missing, ", "))
	return err
}

func homePinCommand() *cobra.Command {
	var n nodeFlags
	var spec admin.PinSpec
	var lasts time.Duration
	c := &cobra.Command{
		Use: "pin SERVICE USER REGION", Short: "Keep a user in a region, whatever else says", Args: cobra.ExactArgs(3),
		RunE: withAPI(&n, func(cmd *cobra.Command, api *admin.Client, args []string) (admin.PinResult, error) {
			spec.Region, spec.For = args[2], admin.Duration(lasts)
			return api.PinUser(cmd.Context(), args[0], args[1], &spec, 0)
		}, printPinResult),
	}
	n.add(c)
	c.Flags().DurationVar(&lasts, "for", 0, "let the user go after this long (default: until unpinned)")
	c.Flags().StringVar(&spec.Reason, "reason", "", "why, for the others")
	return c
}

func homeUnpinCommand() *cobra.Command {
	var n nodeFlags
	c := &cobra.Command{
		Use: "unpin SERVICE USER", Short: "Let a user go", Args: cobra.ExactArgs(2),
		RunE: withAPI(&n, func(cmd *cobra.Command, api *admin.Client, args []string) (admin.PinResult, error) {
			return api.PinUser(cmd.Context(), args[0], args[1], nil, 0)
		}, printPinResult),
	}
	n.add(c)
	return c
}

func printPinResult(w io.Writer, r admin.PinResult) error {
	what := "let go"
	if r.Pin != nil {
		what = "kept in " + r.Pin.Region
	}
	fmt.Fprintf(w, "%s of %s: %s; known to %s\n", r.User, r.Service, what, strings.Join(r.Applied, ", "))
	return printMissing(w, r.Missing)
}

func homePinsCommand() *cobra.Command {
	var n nodeFlags
	c := &cobra.Command{
		Use: "pins", Short: "The users that operators keep in a region", Args: cobra.NoArgs,
		RunE: withAPI(&n, func(cmd *cobra.Command, api *admin.Client, _ []string) (admin.List[admin.Pin], error) {
			return api.Pins(cmd.Context())
		}, func(w io.Writer, pins admin.List[admin.Pin]) error {
			rows := [][]string{{"SERVICE", "USER", "REGION", "BY", "REASON"}}
			for _, p := range pins {
				rows = append(rows, []string{p.Service, p.User, p.Region, p.By, p.Reason})
			}
			return table(w, rows...)
		}),
	}
	n.add(c)
	return c
}
