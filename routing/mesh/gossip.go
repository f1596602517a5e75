package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
)

// Timing of gossip. Probes tolerate round trips of half a second; a silent node is dead after five to ten seconds. The
// heartbeats are what is fast.
const (
	streamTimeout = 5 * time.Second
	updateWait    = time.Second
	bindTries     = 10 // for port 0, where UDP may not get the port that TCP was given
)

func (m *Mesh) listConfig(bridge *log.Logger) (*memberlist.Config, error) {
	ring, err := memberlist.NewKeyring(m.opt.Keys, m.opt.Keys[0])
	if err != nil {
		return nil, fmt.Errorf("mesh: the gossip keys can't be used: %w", err)
	}
	c := memberlist.DefaultLANConfig()
	c.Name = m.opt.Node
	c.Label = m.opt.Fleet
	c.Keyring, m.ring = ring, ring
	c.Logger = bridge
	c.TCPTimeout = streamTimeout
	c.ProbeInterval = time.Second
	c.ProbeTimeout = 750 * time.Millisecond
	c.SuspicionMult = 5
	c.PushPullInterval = time.Minute // longer in large fleets; each exchange carries every node's meta
	c.GossipToTheDeadTime = 30 * time.Second
	c.DeadNodeReclaimTime = time.Second // a node that comes back at another address is the same node
	c.EnableCompression = false         // nothing here is large, and nothing can be blown up
	c.UDPBufferSize = 1200              // fits IPv6's smallest path, headers included
	d := &delegate{m}
	c.Delegate, c.Events, c.Conflict, c.Alive = d, d, d, d
	if m.opt.tune != nil {
		m.opt.tune(c)
	}
	return c, nil
}

func (m *Mesh) openGossip() error {
	at, err := advertised(m.opt.Bind, m.opt.Advertise, interfaceAddrs())
	if err != nil {
		return err
	}
	bridge := log.New(bridge{m.log}, "", 0)
	c, err := m.listConfig(bridge)
	if err != nil {
		return err
	}
	inner, err := m.opt.underlay(m.opt.Bind, bridge)
	if err != nil {
		return err
	}
	c.BindAddr, c.BindPort = m.opt.Bind.Addr().String(), inner.GetAutoBindPort()
	if at.Port() == 0 {
		at = netip.AddrPortFrom(at.Addr(), uint16(c.BindPort))
	}
	c.AdvertiseAddr, c.AdvertisePort = at.Addr().String(), int(at.Port())
	m.gossip = at
	self, err := m.opt.info(at)
	if err != nil {
		_ = inner.Shutdown()
		return err
	}
	m.step(func(c *core, now instant) *effects {
		self.Started = c.self.info.Started
		return c.editSelf(now, func(i *info) { *i = self })
	})
	m.net = newTransport(inner, m.metrics, m.regionOf, m.opt.Delay)
	c.Transport = m.net
	if m.list, err = memberlist.Create(c); err != nil {
		_ = m.net.Shutdown()
		return fmt.Errorf("mesh: gossip can't start: %w", err)
	}
	return nil
}

// listen opens the gossip sockets.
func listen(bind netip.AddrPort, logger *log.Logger) (underlay, error) {
	tries := 1
	if bind.Port() == 0 {
		tries = bindTries
	}
	var err error
	for range tries {
		var t *memberlist.NetTransport
		t, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{bind.Addr().String()}, BindPort: int(bind.Port()), Logger: logger,
		})
		if err == nil {
			return sockets{t}, nil
		}
	}
	hint := "choose an address of this machine for listen.mesh or --bind"
	if strings.Contains(err.Error(), "address already in use") { // memberlist keeps only the text of the cause
		hint = "another process has it, perhaps another node; stop that one or choose another listen.mesh or --bind"
	}
	return nil, fmt.Errorf("mesh: can't listen for gossip on %s, UDP and TCP; %s: %w", bind, hint, err)
}

// regionOf is the region of a node known by name, else by address; empty when it isn't known.
func (m *Mesh) regionOf(name string, addr netip.AddrPort) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if mb := m.core.members[name]; mb != nil {
		return mb.info.Region
	}
	for _, mb := range m.core.members {
		if mb.gossip == addr {
			return mb.info.Region
		}
	}
	return ""
}

// runGossipUpdates tells gossip of this node's changes; memberlist blocks until the news went out.
func (m *Mesh) runGossipUpdates(ctx context.Context) {
	for {
		select {
		case <-m.metaKick:
			_ = m.list.UpdateNode(updateWait) // a timeout: the news is queued all the same
		case <-ctx.Done():
			return
		}
	}
}

// delegate is what memberlist calls, mostly under its own lock: nothing here calls memberlist or blocks. No user
// messages are gossiped, since memberlist drops them when it is busy.
type delegate struct{ m *Mesh }

// NodeMeta is this node's description.
func (d *delegate) NodeMeta(int) []byte {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	return appendMeta(nil, d.m.core.self.info)
}

// NotifyMsg is for messages that this version doesn't send.
func (d *delegate) NotifyMsg([]byte) { d.m.metrics.refused.WithLabelValues("malformed").Inc() }

// GetBroadcasts has nothing to add.
func (d *delegate) GetBroadcasts(_, _ int) [][]byte { return nil }

// LocalState adds nothing to a state exchange.
func (d *delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState ignores what a later version may add.
func (d *delegate) MergeRemoteState([]byte, bool) {}

var errTooMany = fmt.Errorf("the fleet has more than %d nodes", MaxMembers)

// NotifyAlive decides who may be a member.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	if n.Name == d.m.opt.Node {
		return nil
	}
	_, err := decodeMeta(n.Meta)
	if !validName(n.Name) {
		err = errors.New("impossible node name")
	}
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if err == nil && d.m.core.members[n.Name] == nil && len(d.m.core.members) >= MaxMembers-1 {
		err = errTooMany
	}
	if err == nil {
		return nil
	}
	d.m.metrics.refused.WithLabelValues("meta").Inc()
	if now := d.m.opt.Now(); now.Sub(d.m.metaSaid) >= sayEvery {
		d.m.metaSaid = now
		d.m.notify.event("mesh.refused", fmt.Sprintf("%.63q", n.Name), err.Error())
	}
	return err
}

// NotifyJoin learns of a node that lives.
func (d *delegate) NotifyJoin(n *memberlist.Node) { d.m.learn(n, true) }

// NotifyUpdate learns that a node says something new of itself.
func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.m.learn(n, true) }

// NotifyLeave learns that a node left or fell silent; which of them, its last words tell.
func (d *delegate) NotifyLeave(n *memberlist.Node) { d.m.learn(n, false) }

// NotifyConflict learns that one name is told of two addresses: a node that moved, or two nodes of one name.
func (d *delegate) NotifyConflict(existing, other *memberlist.Node) {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if now := d.m.opt.Now(); now.Sub(d.m.conflictSaid) >= sayEvery {
		d.m.conflictSaid = now
		d.m.notify.event("node.conflict", existing.Name, fmt.Sprintf(
			"gossip tells of it at %s and at %s; if it just moved this passes in seconds, else two nodes bear this name",
			existing.Address(), other.Address()))
	}
}

// learn takes gossip's word on a node.
func (m *Mesh) learn(n *memberlist.Node, alive bool) {
	if n.Name == m.opt.Node {
		return
	}
	i, err := decodeMeta(bytes.Clone(n.Meta)) // NotifyAlive has checked it
	if err != nil {
		return
	}
	if !alive && n.State == memberlist.StateLeft && i.State != Leaving {
		// It left in order, which only it can say. Its own word may have been lost with its last connection.
		i.State, i.Seq = Leaving, i.Seq+1
	}
	addr, _ := netip.AddrFromSlice(n.Addr)
	m.step(func(c *core, now instant) *effects {
		return c.hint(now, n.Name, i, netip.AddrPortFrom(plain(addr), n.Port), alive)
	})
}

// bridge writes memberlist's log lines to ours. All of them are details: what matters is an event here.
type bridge struct{ log *slog.Logger }

func (b bridge) Write(line []byte) (int, error) {
	b.log.Debug("gossip", "line", string(bytes.TrimSpace(line)))
	return len(line), nil
}
