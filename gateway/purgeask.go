package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"landfall/gateway/upstream"
	"landfall/routing/mesh"
)

const purgePath = "/landfall/v1/purged"

// purgeQuestion asks a node what records took there. It answers when all are applied, or after some seconds.
type purgeQuestion struct {
	Records []string `json:"records"`
}

// purgeTold is a node's word on one record.
type purgeTold struct {
	Applied  bool `json:"applied"`
	Removed  int  `json:"removed"`
	Counting bool `json:"counting,omitempty"`
}

type purgeAnswer struct {
	Told []purgeTold `json:"told"`
}

func (n *Node) purgedOn(ctx context.Context, m mesh.Member, keys []string) ([]purgeTold, error) {
	if m.Self {
		return n.told(ctx, keys), nil
	}
	a := purgeAnswer{}
	err := n.ask(ctx, m.Name, purgePath, purgeQuestion{keys}, &a)
	return a.Told, err
}

func (n *Node) told(ctx context.Context, keys []string) []purgeTold {
	out := make([]purgeTold, len(keys))
	for i, c := range n.purges.wait(ctx, keys) {
		if c != nil {
			out[i].Applied = true
			out[i].Removed, out[i].Counting = c.load()
		}
	}
	return out
}

// servePurge answers another node's question.
func (n *Node) servePurge(w http.ResponseWriter, r *http.Request) {
	var q purgeQuestion
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxMessage)).Decode(&q)
	if err != nil || len(q.Records) == 0 {
		http.Error(w, "not a question about a purge", http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), purgeAskTimeout*9/10)
	defer cancel()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(purgeAnswer{n.told(ctx, q.Records)}) // the asker sees a cut answer as an error
}

// maxMessage bounds a message between two nodes of this package's kinds.
const maxMessage = 64 << 10

// ask sends one message to a node over the peer channel.
func (n *Node) ask(ctx context.Context, node, path string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+node+upstream.PeerDomain+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := n.peers.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("it can't be reached: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxMessage)).Decode(answer); err != nil {
		return fmt.Errorf("its answer can't be read: %w", err)
	}
	return nil
}
