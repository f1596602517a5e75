package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"

	"landfall/cache/replay"
)

// ReplayPath is where origins answer a realistic mix of requests, and below it how many they have had.
const ReplayPath = "/replay"

const replayedPath = "/replayed"

// replays answers the mix and counts.
type replays struct {
	origin replay.Origin
	asked  atomic.Int64
}

type replayedCount struct {
	Requests int64 `json:"requests"`
}

func (o *replays) handle(mux *http.ServeMux) {
	mux.Handle("GET "+ReplayPath+"/", http.StripPrefix(ReplayPath, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.asked.Add(1)
		o.origin.ServeHTTP(w, r)
	})))
	mux.HandleFunc("GET "+replayedPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(replayedCount{o.asked.Load()})
	})
}

// Replayed is how many requests of the mix an origin has had since it started.
func Replayed(ctx context.Context, client *http.Client, origin string) (int64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, origin+replayedPath, nil)
	if err != nil {
		return 0, fmt.Errorf("ask an origin of the lab: %w", err)
	}
	resp, err := client.Do(r)
	if err != nil {
		return 0, fmt.Errorf("ask an origin of the lab: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	var count replayedCount
	if err := json.NewDecoder(resp.Body).Decode(&count); err != nil || resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("the lab's origin at %s doesn't tell what it was asked: start the lab anew (status %d)", origin, resp.StatusCode)
	}
	return count.Requests, nil
}

// ServedFromCache tells by Cache-Status (RFC 9211) whether the node that answered a client had the answer, or shared it with
// another client.
func ServedFromCache(h http.Header) bool {
	for _, line := range h["Cache-Status"] {
		for member := range strings.SplitSeq(line, ",") {
			if strings.Contains(member, "; hit") || strings.Contains(member, "; collapsed") {
				return true
			}
		}
	}
	return false
}
