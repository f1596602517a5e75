package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	"landfall/gateway/admin"
)

// readyPatience is for a whole fleet to come up; on an idle machine it takes a second or two.
const readyPatience = time.Minute

// waitReady waits until every node may take traffic and sees every region up, so that the first thing a person tries
// works. It fails as soon as a process ends.
func (l *Lab) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyPatience, fmt.Errorf("it took longer than %s", readyPatience))
	defer cancel()
	for _, r := range l.fleet.Regions {
		for _, n := range r.Nodes {
			if err := l.waitNode(ctx, n); err != nil {
				return err
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.up = true // from here on the end of a process is told, until here it is an error
	return l.allAlive()
}

func (l *Lab) waitNode(ctx context.Context, n Node) error {
	api := admin.NewClient(n.Admin(), "", l.client)
	for {
		missing := l.missing(ctx, api)
		if missing == nil {
			return nil
		}
		l.mu.Lock()
		err := l.allAlive()
		l.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.Canceled) {
				return fmt.Errorf("the start of the lab was interrupted: %w", context.Canceled)
			}
			return fmt.Errorf("node %s was not ready in time (%w): %w; the end of its log:\n%s", n.Name, context.Cause(ctx), missing, l.lastLines(n.Name, 8))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// missing is what a node still lacks, or nil. What an operator has drained (a folder that is used again remembers it) is
// not waited for.
func (l *Lab) missing(ctx context.Context, api *admin.Client) error {
	s, err := api.Status(ctx)
	if err != nil {
		return err
	}
	drains, err := api.Drains(ctx)
	if err != nil {
		return err
	}
	if s.State == "joining" {
		return fmt.Errorf("it waits: %v", s.NotReady)
	}
	if len(drains) > 0 {
		return nil
	}
	for _, r := range s.Regions {
		if r.State != "up" || r.NodesLive != l.o.Nodes {
			return fmt.Errorf("it sees %s %s with %d of %d nodes", r.Name, r.State, r.NodesLive, l.o.Nodes)
		}
	}
	return nil
}

// allAlive is nil as long as no process that was started has ended. Callers hold mu.
func (l *Lab) allAlive() error {
	for _, p := range l.processes {
		if !p.alive() {
			return fmt.Errorf("%s ended before the lab was up (%s); the end of its log:\n%s", p.name, p.state(), l.lastLines(p.name, 8))
		}
	}
	return nil
}
