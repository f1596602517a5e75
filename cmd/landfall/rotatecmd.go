package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"landfall/gateway"
	"landfall/gateway/admin"
)

func fleetKeysCommand() *cobra.Command {
	var n nodeFlags
	c := &cobra.Command{
		Use: "keys", Short: "Which mesh keys each node holds, by fingerprint, and how a rotation stands", Args: cobra.NoArgs,
		RunE: withAPI(&n, func(cmd *cobra.Command, api *admin.Client, _ []string) (admin.KeyStatus, error) {
			return api.Keys(cmd.Context())
		}, printKeys),
	}
	n.add(c)
	return c
}

func printKeys(w io.Writer, s admin.KeyStatus) error {
	fmt.Fprintln(w, keyStep(s))
	rows := [][]string{{"NODE", "REGION", "KEYS", "KEPT", "LACKS"}}
	for _, node := range s.Nodes {
		keys, kept, lacks := strings.Join(node.Keys, " "), "no", ""
		if keys == "" {
			keys = "-"
		}
		if node.Kept {
			kept = "yes"
		}
		for _, wait := range s.Waiting {
			if wait.Node == node.Node {
				lacks = wait.Why
			}
		}
		rows = append(rows, []string{node.Node, node.Region, keys, kept, lacks})
	}
	return table(w, rows...)
}

// keyStep says where a rotation is.
func keyStep(s admin.KeyStatus) string {
	switch {
	case s.Step == "none":
		return "no rotation yet: the keys are those of mesh.key"
	case s.Finished && s.Step == "abort":
		return fmt.Sprintf("key %s: aborted", s.Key)
	case s.Finished:
		return fmt.Sprintf("key %s: rotated", s.Key)
	case len(s.Waiting) > 0:
		return fmt.Sprintf("key %s: step %s, waiting for %d of %d nodes", s.Key, s.Step, len(s.Waiting), len(s.Nodes))
	}
	return fmt.Sprintf("key %s: step %s is done on every node", s.Key, s.Step)
}

func fleetKeyCommand() *cobra.Command {
	var data string
	c := &cobra.Command{
		Use: "key", Short: "Print the mesh key that a rotation brought, out of a node's data folder on this machine", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if data == "" {
				return usageError{errors.New("say with --data which node's data folder to read")}
			}
			key, err := gateway.PrimaryKey(data)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "LANDFALL_MESH_KEY=%s\n", key)
			return err
		},
	}
	c.Flags().StringVar(&data, "data", "", "data folder of a node")
	return c
}

func fleetRotateCommand() *cobra.Command {
	var n nodeFlags
	var change admin.KeyChange
	var patience time.Duration
	c := &cobra.Command{
		Use: "rotate-key", Short: "Give the fleet a new mesh key without a gap: add it, use it, remove the old one", Args: cobra.NoArgs,
		Long: "Give the fleet a new mesh key without a gap: add it, use it, remove the old one.\n\n" +
			"Each step is taken by every node before the next begins. Interrupted, or out of patience, it goes on where it was when it\n" +
			"is run again. The key is made on the node, travels between nodes over mutual TLS alone, and is never shown.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := n.client()
			if err != nil {
				return err
			}
			defer api.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), patience)
			defer cancel()
			var s admin.KeyStatus
			if change.Step != "" {
				s, err = api.RotateKey(ctx, change)
			} else {
				s, err = rotateAll(ctx, api, change.Force, func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), line) })
			}
			if err != nil {
				return err
			}
			return n.output.show(cmd.OutOrStdout(), s, func(w io.Writer) error {
				if s.Finished && s.Step == "remove" {
					fmt.Fprintln(cmd.ErrOrStderr(), "Bring mesh.key (the environment of the nodes) up to it: `landfall fleet key --data DIR` prints it on a node's machine.")
				}
				return printKeys(w, s)
			})
		},
	}
	n.add(c)
	c.Flags().StringVar(&change.Step, "step", "", "take this one step only: add, use, remove or abort")
	c.Flags().BoolVar(&change.Force, "force", false, "go on although nodes have not taken a step: they need the new key in mesh.key to come back")
	c.Flags().DurationVar(&patience, "timeout", 2*time.Minute, "how long to wait in all")
	return c
}

// rotatePoll is how often a rotation is looked at.
const rotatePoll = 300 * time.Millisecond

// forceAfter is how long nothing must have changed before --force goes on without those that are missing.
const forceAfter = 5 * time.Second

// rotateAll takes the steps that are left, one after the other, telling of each change.
func rotateAll(ctx context.Context, api *admin.Client, force bool, tell func(string)) (admin.KeyStatus, error) {
	s, err := api.Keys(ctx)
	if err != nil {
		return s, err
	}
	step, told := "", ""
	waited, since := keysWaited(s), time.Now()
	if s.Step == "none" || s.Finished {
		step = "add"
	}
	poll := time.NewTicker(rotatePoll)
	defer poll.Stop()
	for {
		if step != "" {
			insist := force && len(s.Waiting) > 0
			if s, err = api.RotateKey(ctx, admin.KeyChange{Step: step, Force: insist}); err != nil {
				return s, err
			}
			step = ""
		}
		if w := keysWaited(s); w != waited {
			waited, since = w, time.Now()
		}
		if line := keyStep(s); line != told {
			tell(line)
			told = line
		}
		switch {
		case s.Finished:
			return s, nil
		case s.Next != "":
			step = s.Next
			continue
		case force && time.Since(since) >= forceAfter: // those that are merely slow have taken the step by now
			step = map[string]string{"add": "use", "use": "remove"}[s.Step]
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return s, fmt.Errorf("%s; %s. Run it again to go on, or insist with --force", keyStep(s), keysWaited(s))
		}
		if s, err = api.Keys(ctx); err != nil && ctx.Err() == nil {
			return s, err
		}
	}
}

func keysWaited(s admin.KeyStatus) string {
	var out []string
	for _, w := range s.Waiting {
		out = append(out, w.Node+": "+w.Why)
	}
	return strings.Join(out, "; ")
}
