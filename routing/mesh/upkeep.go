package mesh

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
)

// upkeepEvery is how often what expires is looked through.
const upkeepEvery = time.Second

// runUpkeep expires, persists and measures.
func (m *Mesh) runUpkeep(ctx context.Context) {
	ticker := time.NewTicker(upkeepEvery)
	defer ticker.Stop()
	for {
		m.upkeep()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			m.savePeers()
			return
		}
	}
}

func (m *Mesh) upkeep() {
	now := m.opt.Now()
	if m.registry.expire(now) {
		m.notify.change()
	}
	m.mu.Lock()
	for name, mb := range m.members {
		if mb.forgotten(now) {
			delete(m.members, name)
			delete(m.known, name)
			m.notify.change()
			kick(m.peersKick)
			continue
		}
		if stale := mb.report != nil && !mb.fresh(now); stale != m.staleReports[name] {
			m.staleReports[name] = stale
			m.notify.change()
		}
	}
	maps.DeleteFunc(m.staleReports, func(name string, _ bool) bool { return m.members[name] == nil })
	m.watchConfigs()
	m.measure()
	m.mu.Unlock()
	m.savePeers()
}

// watchConfigs tells when the live nodes begin or cease to run different configs. The caller holds m.mu.
func (m *Mesh) watchConfigs() {
	nodes := map[string][]string{}
	if m.self.Hash != "" {
		nodes[m.self.Hash] = []string{m.opt.Node}
	}
	for name, mb := range m.members {
		if mb.live() && mb.info.Hash != "" {
			nodes[mb.info.Hash] = append(nodes[mb.info.Hash], name)
		}
	}
	split := describeSplit(nodes)
	switch {
	case split == m.split:
	case split == "":
		m.notify.event("config.whole", m.opt.Fleet, "all nodes run the same config again")
	default:
		m.notify.event("config.split", m.opt.Fleet, split)
	}
	m.split = split
}

// describeSplit says which nodes run which config; empty when there is only one.
func describeSplit(nodes map[string][]string) string {
	if len(nodes) < 2 {
		return ""
	}
	var parts []string
	for _, hash := range slices.Sorted(maps.Keys(nodes)) {
		slices.Sort(nodes[hash])
		parts = append(parts, hash+": "+strings.Join(nodes[hash], ", "))
	}
	return strings.Join(parts, "; ")
}

// measure sets the gauges. The caller holds m.mu.
func (m *Mesh) measure() {
	counts := map[NodeState]int{m.self.State: 1}
	nearest := map[string]time.Duration{}
	for _, mb := range m.members {
		counts[mb.state()]++
		if mb.rtt > 0 && mb.reach.standing == reachable {
			if old, ok := nearest[mb.info.Region]; !ok || mb.rtt < old {
				nearest[mb.info.Region] = mb.rtt
			}
		}
	}
	for _, s := range append(told(), Dead) {
		m.metrics.members.WithLabelValues(string(s)).Set(float64(counts[s]))
	}
	m.metrics.rtt.Reset() // a region that can't be reached has no round trip
	for region, rtt := range nearest {
		m.metrics.rtt.WithLabelValues(m.self.Region, region).Set(rtt.Seconds())
	}
}

// savePeers writes down where the others are when that has changed, to find them after a restart without the seeds.
func (m *Mesh) savePeers() {
	now := m.opt.Now()
	m.mu.Lock()
	changed := false
	for name, mb := range m.members {
		p := knownPeer{Gossip: mb.gossip.String(), Seen: mb.lastSeen}
		old, have := m.known[name]
		switch {
		case !mb.heard || mb.gone():
			continue
		case !have || old.Gossip != p.Gossip:
			m.known[name], changed = p, true
		case mb.alive && now.Sub(old.Seen) >= time.Hour: // often enough to tell the long gone from the rest
			m.known[name], changed = p, true
		}
	}
	for name, p := range m.known {
		mb := m.members[name]
		if now.Sub(p.Seen) >= forgetDead && (mb == nil || !mb.alive) || mb != nil && mb.gone() {
			delete(m.known, name)
			changed = true
		}
	}
	peers := maps.Clone(m.known)
	m.mu.Unlock()
	if !changed || m.store == nil {
		return
	}
	if err := m.store.savePeers(peers); err != nil {
		m.log.Warn("the known peers could not be written down; after a restart only the seeds are asked", "error", err)
	}
}
