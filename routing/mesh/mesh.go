package mesh

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// Mesh is this node's part in the fleet: the sockets, the disk and the clock around a core, which decides. All methods
// are safe for concurrent use. The owner calls New, Run, and at the end Leave before it ends Run's context; or Close where
// Run was never called.
type Mesh struct {
	// Immutable once New has returned.
	opt     Options
	log     *slog.Logger
	metrics *Metrics
	notify  *notifier
	store   *store // nil: nothing is persisted
	net     *transport
	list    *memberlist.Memberlist
	gossip  netip.AddrPort      // as advertised
	ring    *memberlist.Keyring // safe for concurrent use
	base    time.Time
	telling backlog   // registers that the owner is to be told of; then
	disk    backlog   // those that are to be written
	aliveAt time.Time // owned by runUpkeep
	links   *gate

	mu           sync.Mutex // never held while memberlist or the owner is called
	core         *core
	keyPrints    []string
	pipes        map[uint64]*pipe
	results      map[uint64]chan result
	nextLink     uint64
	nextWrite    uint64
	dialing      context.Context // nil: not running
	known        map[string]knownPeer
	split        string // the config hashes that were last reported as split
	conflictSaid time.Time
	waiting      string // for what, before it is ready
	metaSaid     time.Time

	ready    chan struct{}
	joinKick chan struct{} // join now
	metaKick chan struct{} // tell gossip of this node's new info

	leaving atomic.Bool
	running atomic.Bool
	life    sync.RWMutex // Leave against Close
	closed  bool
}

// New opens the data folder and the gossip sockets. Others may already find this node, but it joins nobody yet.
func New(o Options) (*Mesh, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	m := &Mesh{
		opt: o, log: o.Logger, metrics: o.Metrics, notify: newNotifier(o.Logger, o.OnEvent, o.OnChange),
		keyPrints: keyPrints(o.Fleet, o.Keys), base: time.Now(), telling: newBacklog(), disk: newBacklog(), links: newGate(),
		pipes: map[uint64]*pipe{}, results: map[uint64]chan result{}, known: map[string]knownPeer{},
		ready: make(chan struct{}), joinKick: make(chan struct{}, 1), metaKick: make(chan struct{}, 1),
	}
	// Checked before anything is opened; the advertised address is filled in once the sockets are.
	self, err := o.info(o.Bind)
	if err != nil {
		return nil, err
	}
	m.core = newCore(o.Node, self, o.Heartbeat, o.ReadyWait, m.instant(), o.Rand)
	if err := m.openStore(); err != nil {
		return nil, err
	}
	if err := m.openGossip(); err != nil {
		if m.store != nil {
			_ = m.store.close()
		}
		return nil, err
	}
	return m, nil
}

func (m *Mesh) openStore() error {
	if m.opt.DataDir == "" {
		return nil
	}
	now := m.opt.Now()
	s, held, err := openStore(m.opt.DataDir, now)
	if err != nil {
		return err
	}
	m.store = s
	if held.aside != "" {
		m.log.Error("the registers on disk were damaged; starting without them, the peers hold them too",
			"error", held.cause, "moved_to", held.aside)
		m.notify.event("registers.corrupt", m.opt.Node, fmt.Sprintf("%v; moved to %s", held.cause, held.aside))
	}
	if held.skipped > 0 {
		m.log.Warn("records of the data folder were not understood and are skipped", "count", held.skipped)
	}
	for _, r := range held.registers {
		m.core.load(m.instant(), r)
	}
	m.core.stale = len(held.registers) > 0 && !held.alive.IsZero() && now.Sub(held.alive) > TombstoneTTL
	delete(held.peers, m.opt.Node)
	if held.peers != nil {
		m.known = held.peers
	}
	return nil
}

// instant is now.
func (m *Mesh) instant() instant {
	return instant{at: m.base.Add(time.Since(m.base)), wall: m.opt.Now().Round(0)}
}

// step gives the core one input and carries out what it asks for. Nothing here blocks.
func (m *Mesh) step(input func(*core, instant) *effects) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.carry(input(m.core, m.instant()))
}

// carry queues the effects of a step. The caller holds m.mu, which keeps them in order.
func (m *Mesh) carry(o *effects) {
	for _, s := range o.saves {
		m.telling.push(s)
	}
	for _, s := range o.sends {
		if p := m.pipes[s.link]; p != nil {
			p.put(s.msg)
		}
	}
	for _, id := range o.closes {
		if p := m.pipes[id]; p != nil {
			p.put(&bye{"the link is replaced or not needed"})
			p.end()
			delete(m.pipes, id)
		}
	}
	for _, peer := range o.dials {
		if ctx := m.dialing; ctx != nil && m.links.enter() {
			go func() {
				defer m.links.leave()
				m.dial(ctx, peer)
			}()
		}
	}
	for _, r := range o.results {
		if ch := m.results[r.token]; ch != nil {
			if !r.onDisk {
				delete(m.results, r.token)
			}
			ch <- r // has room for both
		}
	}
	for _, e := range o.events {
		m.notify.event(e.kind, e.subject, e.detail)
	}
	if o.changed {
		m.notify.change()
	}
	if o.ready {
		close(m.ready)
	}
}

// Ready is closed once the registers of a peer were merged, so that this node knows of drains and purges before it takes
// traffic; or when nobody is there to ask, or nobody answered within ReadyWait (then event mesh.alone tells).
func (m *Mesh) Ready() <-chan struct{} { return m.ready }

// SetState tells the fleet what this node does. Dead can't be told.
func (m *Mesh) SetState(s NodeState) {
	if !slices.Contains(told(), s) {
		m.log.Error("a state that no node can tell is ignored", "state", s)
		return
	}
	m.change(func(i *info) { i.State = s })
}

// SetConfigHash tells the fleet which config this node runs. It must be printable and at most 63 bytes long.
func (m *Mesh) SetConfigHash(hash string) {
	if !validText(hash, maxText) {
		m.log.Error("a config hash that can't be told is ignored", "hash", hash)
		return
	}
	m.change(func(i *info) { i.Hash = hash })
}

// change edits what this node says of itself and tells everybody at once.
func (m *Mesh) change(edit func(*info)) {
	m.step(func(c *core, now instant) *effects { return c.editSelf(now, edit) })
	kick(m.metaKick)
}

// Publish replaces this node's report: JSON of at most MaxReport bytes that the others see in Members. A report must be
// renewed, changed or not, well within ReportTTL: one that isn't counts as stale, since its publisher may be stuck.
// Renewing an equal report costs nothing on the wire. What can't be published is logged and leaves the old one to age.
func (m *Mesh) Publish(report json.RawMessage) {
	var b bytes.Buffer
	err := json.Compact(&b, report)
	if err == nil && b.Len() > MaxReport {
		err = fmt.Errorf("%d bytes are more than %d", b.Len(), MaxReport)
	}
	if err != nil {
		m.metrics.refused.WithLabelValues("report").Inc()
		m.log.Error("this node's report can't be published", "error", err)
		return
	}
	m.step(func(c *core, now instant) *effects { return c.publish(now, b.Bytes()) })
}

// PublishSights replaces what this node tells of what it sees elsewhere: JSON of at most MaxReport bytes, nil for nothing.
// It travels apart from the report, since the one is large and changes rarely and the other is small and changes often, and
// it counts for as long as the report is renewed.
func (m *Mesh) PublishSights(sights json.RawMessage) error {
	if len(sights) > MaxReport {
		return fmt.Errorf("mesh: %d bytes of sights are more than %d", len(sights), MaxReport)
	}
	m.step(func(c *core, now instant) *effects {
		c.begin()
		c.say(now, section{sectionSights, bytes.Clone(sights)})
		return &c.out
	})
	return nil
}

// Members is everyone known, this node included, sorted by name. A copy, but for what is marked as not to be modified.
func (m *Mesh) Members() []Member {
	now := m.instant()
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Member, 0, len(m.core.members)+1)
	out = append(out, m.selfView(now.at))
	for _, mb := range m.core.members {
		out = append(out, mb.view(now.at))
	}
	slices.SortFunc(out, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// selfView is this node as a member. The caller holds m.mu.
func (m *Mesh) selfView(now time.Time) Member {
	self := m.core.self
	out := Member{
		Name: m.opt.Node, Region: self.info.Region, Boot: self.info.Boot, Addrs: slices.Clone(self.info.Addrs),
		Gossip: m.gossip, Peer: self.info.Peer, Admin: self.info.Admin, Version: self.info.Version, ConfigHash: self.info.Hash,
		State: self.info.State, Reachable: true, LastSeen: now, Self: true,
		Unreachable: namesIn(self.sections[sectionUnreachable]), Watches: namesIn(self.sections[sectionWatches]),
		RegionRTT: rttsIn(self.sections[sectionRTT]), Coordinate: &Coordinate{m.core.place.own},
	}
	if body := self.sections[sectionReport]; len(body) > 0 && now.Sub(self.renewed) <= ReportTTL {
		out.Report, out.ReportAt = body, self.renewed
		if sights := self.sections[sectionSights]; len(sights) > 0 {
			out.Sights = sights
		}
	}
	return out
}

// Run joins the fleet and stays in it until ctx is done; everything has stopped and is closed when it returns. It may be
// called once.
func (m *Mesh) Run(ctx context.Context) error {
	if !m.running.CompareAndSwap(false, true) {
		return fmt.Errorf("mesh: Run may be called only once")
	}
	notifyCtx, stopNotify := context.WithCancel(context.WithoutCancel(ctx))
	diskCtx, stopDisk := context.WithCancel(context.WithoutCancel(ctx))
	var told, saved, loops sync.WaitGroup
	told.Go(func() { m.notify.run(notifyCtx) })
	for _, r := range m.Registers("") {
		m.opt.OnRegister(r)
	}
	saved.Go(func() {
		written, allTold := context.WithCancel(context.WithoutCancel(ctx))
		saved.Go(func() { m.runDisk(written) })
		m.runTell(diskCtx)
		allTold()
	})
	m.mu.Lock()
	m.dialing = ctx
	m.mu.Unlock()
	m.links.open()
	loops.Go(func() { m.runTicks(ctx) })
	loops.Go(func() { m.runJoin(ctx) })
	loops.Go(func() { m.runGossipUpdates(ctx) })
	loops.Go(func() { m.runUpkeep(ctx) })
	<-ctx.Done()
	m.links.shut() // before the loops are waited for: links end
	err := m.Close()
	loops.Wait()
	m.links.wait()
	stopDisk()
	saved.Wait()
	stopNotify()
	told.Wait()
	if m.store != nil {
		if serr := m.store.close(); err == nil && serr != nil {
			err = fmt.Errorf("mesh: %w", serr)
		}
	}
	return err
}

// runTicks tells the core of time.
func (m *Mesh) runTicks(ctx context.Context) {
	ticker := time.NewTicker(tickEvery(m.opt.Heartbeat))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			m.step(func(c *core, now instant) *effects { return c.tick(now) })
		case <-ctx.Done():
			return
		}
	}
}

// Close closes the gossip sockets, and the data folder where Run was never called. It is for an owner that gives up
// between New and Run; Run itself closes all. It may be called more than once.
func (m *Mesh) Close() error {
	m.life.Lock()
	defer m.life.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	err := m.list.Shutdown()
	if !m.running.Load() && m.store != nil {
		_ = m.store.close()
	}
	if err != nil {
		return fmt.Errorf("mesh: gossip did not stop in order: %w", err)
	}
	return nil
}

// Leave tells every reachable node that this one leaves, by heartbeat and by gossip, and joins nobody any more. It takes
// at most timeout. Run goes on, answering heartbeats, until its context is done.
func (m *Mesh) Leave(timeout time.Duration) error {
	m.life.RLock()
	defer m.life.RUnlock()
	if m.closed {
		return nil
	}
	m.leaving.Store(true)
	deadline := time.Now().Add(timeout)
	m.SetState(Leaving)
	// The new meta first: it is what tells peers without a link that the silence to come is meant.
	_ = m.list.UpdateNode(max(timeout/2, time.Millisecond))
	m.drain(deadline)
	m.links.refuse()
	if err := m.list.Leave(max(time.Until(deadline), 10*time.Millisecond)); err != nil {
		return fmt.Errorf("mesh: not all nodes may know yet that this one leaves: %w", err)
	}
	return nil
}

// drainPoll is how often a leaving node looks whether its last words are sent.
const drainPoll = 5 * time.Millisecond

// drain waits until what is queued on the links is sent.
func (m *Mesh) drain(deadline time.Time) {
	ticker := time.NewTicker(drainPoll)
	defer ticker.Stop()
	for time.Now().Before(deadline) {
		m.mu.Lock()
		left := int64(0)
		for _, p := range m.pipes {
			left += p.left.Load()
		}
		m.mu.Unlock()
		if left == 0 {
			return
		}
		<-ticker.C
	}
}

// EndAccepted ends the links that other nodes made with this one and takes no new ones, for an owner that is about to
// stop its peer listener. Those that this node made go on until Leave.
func (m *Mesh) EndAccepted() {
	m.links.refuse()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.pipes {
		if p.accepted {
			p.put(&bye{"this node stops"})
			p.end()
		}
	}
}

func (m *Mesh) isClosed() bool {
	m.life.RLock()
	defer m.life.RUnlock()
	return m.closed
}

// PeerAddr is where the peer channel of a node is reached; false when the node isn't known.
func (m *Mesh) PeerAddr(name string) (netip.AddrPort, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := m.core.self.info.Peer
	if name != m.opt.Node {
		mb := m.core.members[name]
		if mb == nil {
			return netip.AddrPort{}, false
		}
		at = mb.info.Peer
	}
	return at, at.IsValid()
}
