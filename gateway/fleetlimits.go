package gateway

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"landfall/gateway/ratelimit"
	"landfall/gateway/server"
	"landfall/gateway/upstream"
)

const (
	limitsPath = "/limits/v1/demand"
	// maxTelling bounds the nodes that are told at once.
	maxTelling = 16
)

// shareLimits tells the other nodes, once a round, how often the keys of the fleet's rate limits come here, until ctx
// ends. What is not heard is lost: the next round tells all of it again.
func (n *Node) shareLimits(ctx context.Context) error {
	tick := time.NewTicker(ratelimit.Round)
	defer tick.Stop()
	client := &http.Client{Transport: n.peers, Timeout: ratelimit.Round}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if n.lasting.Limits.Empty() {
			continue
		}
		msg, shared := n.lasting.Limits.Step(n.o.Now())
		n.metrics.controls.sharedKeys.Set(float64(shared))
		var g errgroup.Group
		g.SetLimit(maxTelling)
		for _, m := range n.fleet.Members() {
			if !m.Self && m.Reachable {
				g.Go(func() error {
					result := "sent"
					if err := sendLimits(ctx, client, m.Name, msg); err != nil {
						result = "failed"
						n.log.Debug("the demand on rate limits can't be told", "to", m.Name, "error", err)
					}
					n.metrics.controls.limitMessages.WithLabelValues(result).Inc()
					return nil
				})
			}
		}
		_ = g.Wait() // each has told its own error
	}
}

func sendLimits(ctx context.Context, client *http.Client, node string, msg []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+node+upstream.PeerDomain+limitsPath, bytes.NewReader(msg))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1024)) // so that the connection can be used again
	return resp.Body.Close()
}

// takeLimits takes another node's demand.
func (n *Node) takeLimits(w http.ResponseWriter, r *http.Request) {
	msg, err := io.ReadAll(http.MaxBytesReader(w, r.Body, ratelimit.MaxMessage))
	if err != nil {
		http.Error(w, "the demand is too long", http.StatusRequestEntityTooLarge)
		return
	}
	info, _ := server.Info(r.Context())
	if err := n.lasting.Limits.Hear(info.PeerName, msg, n.o.Now()); err != nil {
		n.metrics.controls.limitMessages.WithLabelValues("refused").Inc()
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	n.metrics.controls.limitMessages.WithLabelValues("heard").Inc()
	w.WriteHeader(http.StatusNoContent)
}
