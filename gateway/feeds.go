package gateway

import (
	"context"
	"errors"
	"fmt"

	"landfall/configs"
	"landfall/gateway/admin"
	"landfall/gateway/feeds"
)

// openFeeds makes what takes purges from event streams and webhooks. Run consumes.
func (n *Node) openFeeds(c *configs.Config) error {
	n.feeds = feeds.New(feeds.Options{
		Node: n.id.name, Purge: n.purgeFeed, Event: n.event, Metrics: n.metrics.feeds, Logger: n.log, Now: n.o.Now,
	})
	n.feeds.Set(c.Purge)
	return nil
}

// runFeeds consumes event streams once the node is in the fleet: before, it could tell nobody of a purge.
func (n *Node) runFeeds(ctx context.Context) error {
	select {
	case <-n.joined:
		return n.feeds.Run(ctx)
	case <-ctx.Done():
		return nil
	}
}

// purgeFeed implements feeds.Purger: it returns once the purge is on this node's disk and on its way to the others.
func (n *Node) purgeFeed(ctx context.Context, p feeds.Purge) error {
	req := admin.PurgeRequest{Service: p.Service, Keys: p.Keys, URLs: p.URLs, Prefixes: p.Prefixes, Soft: p.Soft}
	res, err := n.purge(ctx, req, admin.WaitNode, p.By)
	var problem *admin.Problem
	switch {
	case errors.As(err, &problem):
		return fmt.Errorf("%w: %w", feeds.ErrRefused, err)
	case err != nil:
		return err
	case len(res.Missing) > 0: // of this node alone
		return fmt.Errorf("the purge is not durable yet: %s", res.Missing[0].Reason)
	}
	return nil
}

// sources are how the event streams stand on this node.
func (n *Node) sources() (out []admin.PurgeSource) {
	for _, s := range n.feeds.Status() {
		out = append(out, admin.PurgeSource{
			Name: s.Name, Connected: s.Connected, Lag: s.Lag, Purged: s.Purged, Ignored: s.Ignored, Poison: s.Poison, Error: s.Error,
		})
	}
	return out
}
