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
	now := m.instant()
	m.mu.Lock()
	m.watchConfigs(now.at)
	m.measure(now.at)
	missing := false
	for _, mb := range m.core.members {
		missing = missing || mb.connected && mb.heard && !mb.alive && mb.info.State != Leaving
	}
	ready := m.core.ready && !m.core.stale
	m.mu.Unlock()
	if missing {
		kick(m.joinKick) // gossip takes a node for dead that lives
	}
	m.savePeers()
	if wall := now.wall; ready && m.store != nil && wall.Sub(m.aliveAt) >= aliveEvery {
		m.aliveAt = wall
		if err := m.store.markAlive(wall); err != nil {
			m.log.Warn("the data folder can't be written", "error", err)
		}
	}
}

// aliveEvery is how often a node writes down that it is in touch with the fleet.
const aliveEvery = time.Minute

// watchConfigs tells when the live nodes begin or cease to run different configs. The caller holds m.mu.
func (m *Mesh) watchConfigs(now time.Time) {
	nodes := map[string][]string{}
	if m.core.self.info.Hash != "" {
		nodes[m.core.self.info.Hash] = []string{m.opt.Node}
	}
	for name, mb := range m.core.members {
		if mb.live(now) && mb.info.Hash != "" {
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
func (m *Mesh) measure(now time.Time) {
	counts := map[NodeState]int{m.core.self.info.State: 1}
	m.metrics.rtt.Reset() // a region that can't be reached has no round trip
	own := m.core.self.info.Region
	least := map[[2]string]time.Duration{}
	add := func(from, to string, d time.Duration) {
		if old, ok := least[[2]string{from, to}]; !ok || d < old {
			least[[2]string{from, to}] = d
		}
	}
	for _, mb := range m.core.members {
		counts[mb.state(now)]++
		if mb.rtt.smoothed > 0 && mb.reach.standing == reachable {
			add(own, mb.info.Region, mb.rtt.smoothed)
		}
		if mb.info.Region != own && mb.fresh(now) {
			for to, d := range mb.rtts {
				add(mb.info.Region, to, d)
			}
		}
	}
	for _, s := range append(told(), Dead) {
		m.metrics.members.WithLabelValues(string(s)).Set(float64(counts[s]))
	}
	for pair, d := range least {
		m.metrics.rtt.WithLabelValues(pair[0], pair[1]).Set(d.Seconds())
	}
	m.metrics.links.Set(float64(len(m.pipes)))
	m.metrics.registers.Set(float64(len(m.core.table.entries)))
	m.metrics.skew.Set(m.core.skew.Seconds())
	m.metrics.placing.Set(m.core.place.own.Error)
}

// savePeers writes down where the others are when that has changed, to find them after a restart without the seeds.
func (m *Mesh) savePeers() {
	at := m.instant().at
	now := m.opt.Now()
	m.mu.Lock()
	changed := false
	for name, mb := range m.core.members {
		p := knownPeer{Gossip: mb.gossip.String(), Seen: now}
		old, have := m.known[name]
		switch {
		case !mb.heard || mb.gone(at):
			continue
		case !have || old.Gossip != p.Gossip:
			m.known[name], changed = p, true
		case mb.alive && now.Sub(old.Seen) >= time.Hour: // often enough to tell the long gone from the rest
			m.known[name], changed = p, true
		}
	}
	for name, p := range m.known {
		mb := m.core.members[name]
		if now.Sub(p.Seen) >= forgetDead && (mb == nil || !mb.alive) || mb != nil && mb.gone(at) {
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
