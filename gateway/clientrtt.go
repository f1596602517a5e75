package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"landfall/configs"
	"landfall/gateway/upstream"
	"landfall/routing"
	"landfall/routing/geo"
	"landfall/routing/mesh"
	"landfall/routing/rtt"
)

const (
	// shareRTTEvery is how often nodes tell each other what they learnt of their clients' round trips.
	shareRTTEvery = 5 * time.Second
	rttPath       = "/rtt/v1/deltas/"
	// exploreFor is how long a client stays with the runner-up once it was chosen to.
	exploreFor = 10 * time.Minute
)

// rttTable is the table of clients' round trips and the regions that its columns are: a reload that adds or takes a
// region away begins a new one.
type rttTable struct {
	*rtt.Table
	regions []string
	rows    int
}

// openRTT begins to remember round trips, or begins anew when the regions are not those that were.
func (n *Node) openRTT(c *configs.Config) {
	old := n.rtts.Load()
	names := c.RegionNames()
	switch {
	case !c.DNS.RTT.Measure:
		n.rtts.Store(nil)
	case old == nil || !slices.Equal(old.regions, names) || old.rows != c.DNS.RTT.Prefixes:
		n.rtts.Store(&rttTable{rtt.New(len(names), slices.Index(names, n.id.region), c.DNS.RTT.Prefixes), names, c.DNS.RTT.Prefixes})
	}
}

// openASN reads the map of autonomous systems.
func (n *Node) openASN(c *configs.Config) (err error) {
	if c.DNS.ASN == "" {
		return nil
	}
	if n.asn, err = geo.OpenASN(c.DNS.ASN); err != nil {
		return fmt.Errorf("open dns.asn: %w", err)
	}
	n.closers = append(n.closers, func() { _ = n.asn.Close() })
	return nil
}

// network is the autonomous system of a client's prefix, where there is a map of them.
func (n *Node) network(client netip.Addr) rtt.Network {
	if n.asn == nil || !client.IsValid() {
		return rtt.Network{}
	}
	prefix := routing.ClientPrefix(client).Addr()
	place, _ := n.geo.Lookup(prefix)
	return rtt.Network{AS: n.asn.ASN(prefix), Country: routing.CountryOf(place.Country)}
}

// observeRTT takes the round trip of a client's connection. That of a trusted proxy tells nothing of the clients behind.
func (n *Node) observeRTT(client netip.Addr, d time.Duration) {
	t := n.rtts.Load()
	if t == nil {
		return
	}
	for _, p := range n.generation.Load().config.Listen.TrustedProxies {
		if p.Contains(client) {
			return
		}
	}
	n.metrics.node.clientRTT.WithLabelValues(n.id.region).Observe(d.Seconds())
	t.Observe(client, n.network(client), d, n.o.Now())
}

// toldRTT takes a client's round trip from a trusted proxy.
func (n *Node) toldRTT(client netip.Addr, d time.Duration) {
	if t := n.rtts.Load(); t != nil {
		n.metrics.node.clientRTT.WithLabelValues(n.id.region).Observe(d.Seconds())
		t.Observe(client, n.network(client), d, n.o.Now())
	}
}

// rttOf is what was measured of a client, in the order of the snapshot's regions; nil when nothing was.
func (n *Node) rttOf(dst []routing.RTT, s *routing.Snapshot, client netip.Addr) []routing.RTT {
	t := n.rtts.Load()
	if t == nil || len(t.regions) != len(s.Regions) {
		return nil
	}
	if len(dst) < len(s.Regions) {
		dst = make([]routing.RTT, len(s.Regions))
	}
	return t.Lookup(dst[:len(s.Regions)], client, n.network(client), n.o.Now())
}

// explores tells whether a client is among those that go to the runner-up now.
func (n *Node) explores(c *configs.Config, key uint64) bool {
	share := float64(c.DNS.RTT.Explore)
	if share <= 0 || !c.DNS.RTT.Measure {
		return false
	}
	return routing.Explores(share, key, uint64(n.o.Now().Unix()/int64(exploreFor/time.Second)))
}

// shareRTT tells the other nodes of this node's measurements until ctx ends. What is not heard is lost: it is measured
// again soon enough.
func (n *Node) shareRTT(ctx context.Context) error {
	tick := time.NewTicker(shareRTTEvery)
	defer tick.Stop()
	client := &http.Client{Transport: n.peers, Timeout: shareRTTEvery}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		t := n.rtts.Load()
		if t == nil {
			continue
		}
		msg := t.Deltas()
		n.metrics.node.rttRows.Set(float64(t.Len()))
		if msg == nil {
			continue
		}
		for _, m := range n.fleet.Members() {
			if !m.Self && m.State != mesh.Dead && m.Reachable && slices.Contains(t.regions, m.Region) {
				n.sendRTT(ctx, client, m.Name, msg)
			}
		}
	}
}

func (n *Node) sendRTT(ctx context.Context, client *http.Client, node string, msg []byte) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+node+upstream.PeerDomain+rttPath+n.id.region, bytes.NewReader(msg))
	if err != nil {
		n.log.Debug("round trips can't be told", "to", node, "error", err)
		return
	}
	resp, err := client.Do(req)
	if err != nil {
		n.log.Debug("round trips can't be told", "to", node, "error", err)
		return
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1024)) // so that the connection can be used again
	_ = resp.Body.Close()
}

// takeRTT takes what another node learnt. One of this region shares this node's column, and so keeps its own figures.
func (n *Node) takeRTT(w http.ResponseWriter, r *http.Request) {
	t := n.rtts.Load()
	if t == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	msg, err := io.ReadAll(http.MaxBytesReader(w, r.Body, rtt.MaxMessage))
	if err != nil {
		http.Error(w, "the deltas are too long", http.StatusRequestEntityTooLarge)
		return
	}
	region := r.PathValue("region")
	if region != n.id.region {
		if err := t.Merge(slices.Index(t.regions, region), msg, n.o.Now()); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}
