package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"landfall/gateway/admin"
)

func statusCommand() *cobra.Command {
	var n nodeFlags
	c := &cobra.Command{
		Use: "status", Short: "The fleet at a glance", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := n.client()
			if err != nil {
				return err
			}
			defer api.Close()
			status, err := api.Status(cmd.Context())
			if err != nil {
				return err
			}
			nodes, err1 := api.Nodes(cmd.Context())
			drains, err2 := api.Drains(cmd.Context())
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			all := struct {
				admin.Status
				Nodes  admin.List[admin.Node]  `json:"nodes"`
				Drains admin.List[admin.Drain] `json:"drains"`
			}{status, nodes, drains}
			return n.output.show(cmd.OutOrStdout(), all, func(w io.Writer) error { return printStatus(w, status, nodes, drains) })
		},
	}
	n.add(c)
	return c
}

func explainCommand() *cobra.Command {
	var n nodeFlags
	var client string
	c := &cobra.Command{
		Use: "explain URL|HOST", Short: "Where a client goes, and why", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := n.client()
			if err != nil {
				return err
			}
			defer api.Close()
			var addr netip.Addr
			if client != "" {
				if addr, err = netip.ParseAddr(client); err != nil {
					return usageError{fmt.Errorf("--client %q: expected an IP address", client)}
				}
			}
			target := args[0]
			if !strings.Contains(target, "://") {
				target = "https://" + target + "/"
			}
			e, err := api.Explain(cmd.Context(), target, addr)
			if err != nil {
				return err
			}
			return n.output.show(cmd.OutOrStdout(), e, func(w io.Writer) error { return printExplanation(w, e) })
		},
	}
	n.add(c)
	c.Flags().StringVar(&client, "client", "", "the client's IP address (default: one of whom nothing is known)")
	return c
}

// drainArgs reads `region R`, `node N`, `origin URL`, or `service S` with the flag --region R.
func drainArgs(args []string, region string) (admin.DrainTarget, error) {
	t := admin.DrainTarget{Kind: args[0], Name: args[1]}
	switch {
	case t.Kind == admin.DrainService && region == "":
		return t, usageError{errors.New("a service is drained in one region: add --region")}
	case t.Kind == admin.DrainService:
		t.Name += "/" + region
	case t.Kind != admin.DrainRegion && t.Kind != admin.DrainNode && t.Kind != admin.DrainOrigin:
		return t, usageError{fmt.Errorf("%q can't be drained: expected `region NAME`, `node NAME`, `origin URL` or `service NAME --region R`", t.Kind)}
	case region != "":
		return t, usageError{errors.New("--region is for services only")}
	}
	return t, nil
}

func drainCommand() *cobra.Command {
	var n nodeFlags
	var spec admin.DrainSpec
	var lasts, over time.Duration
	var region string
	c := &cobra.Command{
		Use: "drain region|node|origin|service NAME", Short: "Move traffic away from a region, a node, an origin, or of a service from a region", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec.For, spec.Over = admin.Duration(lasts), admin.Duration(over)
			return changeDrain(cmd, &n, args, region, &spec)
		},
	}
	n.add(c)
	c.Flags().DurationVar(&lasts, "for", 0, "undrain by itself after this long (default: until undrained)")
	c.Flags().DurationVar(&over, "over", 0, "move the clients in a share that grows for this long (default: all at once)")
	c.Flags().StringVar(&region, "region", "", "the region that a service is drained in")
	c.Flags().StringVar(&spec.Reason, "reason", "", "why, for the others")
	c.Flags().BoolVar(&spec.Force, "force", false, "drain even if no other region is left, or too little capacity")
	return c
}

func undrainCommand() *cobra.Command {
	var n nodeFlags
	var region string
	c := &cobra.Command{
		Use: "undrain region|node|origin|service NAME", Short: "End a drain", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return changeDrain(cmd, &n, args, region, nil) },
	}
	n.add(c)
	c.Flags().StringVar(&region, "region", "", "the region that a service is drained in")
	return c
}

// changeDrain drains by a spec, or undrains without one.
func changeDrain(cmd *cobra.Command, n *nodeFlags, args []string, region string, spec *admin.DrainSpec) error {
	target, err := drainArgs(args, region)
	if err != nil {
		return err
	}
	return withAPI(n, func(cmd *cobra.Command, api *admin.Client, _ []string) (admin.DrainResult, error) {
		if spec != nil {
			return api.Drain(cmd.Context(), target, *spec, 0)
		}
		return api.Undrain(cmd.Context(), target, 0)
	}, printDrainResult)(cmd, nil)
}

func drainsCommand() *cobra.Command {
	var n nodeFlags
	c := &cobra.Command{
		Use: "drains", Short: "List the drains in force", Args: cobra.NoArgs,
		RunE: withAPI(&n, func(cmd *cobra.Command, api *admin.Client, _ []string) (admin.List[admin.Drain], error) {
			return api.Drains(cmd.Context())
		}, printDrains),
	}
	n.add(c)
	return c
}

func purgeCommand() *cobra.Command {
	var n nodeFlags
	var p admin.PurgeRequest
	var urls, prefixes, hosts, keys []string
	var wait string
	var timeout time.Duration
	c := &cobra.Command{
		Use: "purge --service S --url U…|--prefix P…|--host H…|--key K…|--all", Short: "Invalidate cached objects on every node of the fleet", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			some := len(urls)+len(prefixes)+len(hosts)+len(keys) > 0
			if p.Service == "" || some == p.All {
				return usageError{errors.New("--service is needed, and at least one --url, --prefix, --host or --key, or --all alone")}
			}
			p.URLs, p.Prefixes, p.Hosts, p.Keys = urls, prefixes, hosts, keys
			api, err := n.client()
			if err != nil {
				return err
			}
			defer api.Close()
			res, err := api.Purge(cmd.Context(), p, wait, timeout)
			if err != nil {
				return err
			}
			if err := n.output.show(cmd.OutOrStdout(), res, func(w io.Writer) error { return printPurge(w, res) }); err != nil {
				return err
			}
			if len(res.Missing) > 0 {
				return silentError{errors.New("some nodes have not confirmed")}
			}
			return nil
		},
	}
	n.add(c)
	c.Flags().StringVar(&p.Service, "service", "", "the service whose objects are purged")
	c.Flags().StringArrayVar(&urls, "url", nil, "a URL, with all its variants; may be given many times")
	c.Flags().StringArrayVar(&prefixes, "prefix", nil, "a URL: everything of its host whose path begins like this; may be given many times")
	c.Flags().StringArrayVar(&hosts, "host", nil, "a host: everything of it; may be given many times")
	c.Flags().StringArrayVar(&keys, "key", nil, "a surrogate key (Surrogate-Key or Cache-Tag); may be given many times")
	c.Flags().BoolVar(&p.All, "all", false, "everything of the service")
	c.Flags().StringVar(&wait, "wait", admin.WaitAll, "whose word to wait for: node, region or all")
	c.Flags().BoolVar(&p.Soft, "soft", false, "mark stale instead of removing")
	c.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "how long to wait for the other nodes")
	return c
}

func eventsCommand() *cobra.Command {
	var n nodeFlags
	var follow bool
	var limit int
	c := &cobra.Command{
		Use: "events", Short: "What happened, as the node saw it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := n.client()
			if err != nil {
				return err
			}
			defer api.Close()
			out := cmd.OutOrStdout()
			one := func(e admin.Event) error {
				if n.output == "json" {
					return json.NewEncoder(out).Encode(e)
				}
				printEvent(out, e)
				return nil
			}
			events, err := api.Events(cmd.Context(), 0, limit)
			if err != nil {
				return err
			}
			last := uint64(0)
			for _, e := range events {
				last = max(last, e.Seq)
				if err := one(e); err != nil {
					return err
				}
			}
			if !follow {
				return nil
			}
			if err := api.Follow(cmd.Context(), last, one); cmd.Context().Err() == nil {
				return err
			}
			return nil // Ctrl-C
		},
	}
	n.add(c)
	c.Flags().BoolVar(&follow, "follow", false, "go on with new ones until Ctrl-C")
	c.Flags().IntVar(&limit, "limit", 100, "the last so many events")
	return c
}
