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

// Mesh is this node's part in the fleet. All methods are safe for concurrent use. The owner calls New, Run, and at the
// end Leave before it ends Run's context; or Close where Run was never called.
type Mesh struct {
	opt      Options
	log      *slog.Logger
	metrics  *Metrics
	notify   *notifier
	registry *registry
	store    *store // nil: nothing is persisted
	net      *transport
	list     *memberlist.Memberlist
	gossip   netip.AddrPort // as advertised

	mu            sync.Mutex // never held while memberlist or the owner is called
	self          info
	report        json.RawMessage
	reportVersion uint64
	reportAt      time.Time
	members       map[string]*member
	known         map[string]knownPeer // as on disk
	split         string               // the config hashes that were last reported as split
	duplicateSaid time.Time
	conflictSaid  time.Time
	metaSaid      time.Time
	staleReports  map[string]bool

	ready     chan struct{}
	readyOnce sync.Once
	peersKick chan struct{} // the set of peers changed
	joinKick  chan struct{} // join now
	metaKick  chan struct{} // tell gossip of this node's new info
	beatKicks map[string]chan struct{}

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
		members: map[string]*member{}, known: map[string]knownPeer{}, staleReports: map[string]bool{},
		ready: make(chan struct{}), peersKick: make(chan struct{}, 1), joinKick: make(chan struct{}, 1),
		metaKick: make(chan struct{}, 1), beatKicks: map[string]chan struct{}{},
	}
	m.registry = &registry{
		clock: newClock(o.Node, o.Now), log: o.Logger, metrics: o.Metrics, notify: m.notify, tell: o.OnRegister, table: newTable(),
	}
	// Checked before anything is opened; the advertised address is filled in once the sockets are.
	if _, err := o.info(o.Bind); err != nil {
		return nil, err
	}
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
	m.store, m.registry.store = s, s
	if held.aside != "" {
		m.log.Error("the registers on disk were damaged; starting without them, the peers hold them too",
			"error", held.cause, "moved_to", held.aside)
		m.notify.event("registers.corrupt", m.opt.Node, fmt.Sprintf("%v; moved to %s", held.cause, held.aside))
	}
	if held.skipped > 0 {
		m.log.Warn("records of the data folder were not understood and are skipped", "count", held.skipped)
	}
	m.registry.load(held.registers, now)
	delete(held.peers, m.opt.Node)
	if held.peers != nil {
		m.known = held.peers
	}
	return nil
}

// Ready is closed once the registers of a peer were merged, so that this node knows of drains and purges before it takes
// traffic; or when nobody is there to ask, or nobody answered within ReadyWait (then event mesh.alone tells).
func (m *Mesh) Ready() <-chan struct{} { return m.ready }

func (m *Mesh) markReady() { m.readyOnce.Do(func() { close(m.ready) }) }

// SetState tells the fleet what this node does. Dead can't be told.
func (m *Mesh) SetState(s NodeState) {
	if !slices.Contains(told(), s) {
		m.log.Error("a state that no node can tell is ignored", "state", s)
		return
	}
	m.change(func(i *info) bool {
		was := i.State
		i.State = s
		return was != s
	})
}

// SetConfigHash tells the fleet which config this node runs. It must be printable and at most 63 bytes long.
func (m *Mesh) SetConfigHash(hash string) {
	if !validText(hash, maxText) {
		m.log.Error("a config hash that can't be told is ignored", "hash", hash)
		return
	}
	m.change(func(i *info) bool {
		was := i.Hash
		i.Hash = hash
		return was != hash
	})
}

// change edits what this node says of itself and tells everybody at once.
func (m *Mesh) change(edit func(*info) bool) {
	m.mu.Lock()
	if !edit(&m.self) {
		m.mu.Unlock()
		return
	}
	m.self.Seq++
	m.kickBeats()
	m.mu.Unlock()
	kick(m.metaKick)
	m.notify.change()
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
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reportAt = m.opt.Now()
	if !bytes.Equal(b.Bytes(), m.report) {
		m.report = bytes.Clone(b.Bytes())
		m.reportVersion++
	}
}

// Members is everyone known, this node included, sorted by name. A copy, but for the bytes of the reports.
func (m *Mesh) Members() []Member {
	now := m.opt.Now()
	m.mu.Lock()
	out := make([]Member, 0, len(m.members)+1)
	out = append(out, m.selfView(now))
	for _, mb := range m.members {
		out = append(out, mb.view(now))
	}
	m.mu.Unlock()
	slices.SortFunc(out, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// selfView is this node as a member. The caller holds m.mu.
func (m *Mesh) selfView(now time.Time) Member {
	out := Member{
		Name: m.opt.Node, Region: m.self.Region, Boot: m.self.Boot, Addrs: slices.Clone(m.self.Addrs),
		Gossip: m.gossip, Peer: m.self.Peer, Admin: m.self.Admin, Version: m.self.Version, ConfigHash: m.self.Hash,
		State: m.self.State, Reachable: true, LastSeen: now, Unreachable: m.unreachable(), Self: true,
	}
	if m.report != nil && now.Sub(m.reportAt) <= ReportTTL {
		out.Report, out.ReportAt = m.report, m.reportAt
	}
	return out
}

// unreachable is whom this node can't reach, sorted; those that left are left out. The caller holds m.mu.
func (m *Mesh) unreachable() []string {
	var out []string
	for name, mb := range m.members {
		if mb.reach.standing == unreachable && mb.info.State != Leaving {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Run joins the fleet and stays in it until ctx is done; everything has stopped and is closed when it returns. It may be
// called once.
func (m *Mesh) Run(ctx context.Context) error {
	if !m.running.CompareAndSwap(false, true) {
		return fmt.Errorf("mesh: Run may be called only once")
	}
	m.registry.replay()
	notifyCtx, stopNotify := context.WithCancel(context.WithoutCancel(ctx))
	var told, loops sync.WaitGroup
	told.Go(func() { m.notify.run(notifyCtx) })
	loops.Go(func() { m.runPeers(ctx) })
	loops.Go(func() { m.runJoin(ctx) })
	loops.Go(func() { m.runGossipUpdates(ctx) })
	loops.Go(func() { m.runUpkeep(ctx) })
	loops.Go(func() { m.awaitReady(ctx) })
	<-ctx.Done()
	err := m.Close() // before the loops are waited for: a join in progress ends with its connection
	loops.Wait()
	stopNotify()
	told.Wait()
	if m.store != nil {
		if serr := m.store.close(); err == nil && serr != nil {
			err = fmt.Errorf("mesh: %w", serr)
		}
	}
	return err
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
	m.SetState(Leaving)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, name := range m.peers(func(mb *member) bool { return mb.live() && mb.reach.standing != unreachable }) {
		wg.Go(func() { m.beatOnce(ctx, name) })
	}
	// The new meta first: it is what tells peers without a peer channel that the silence to come is meant.
	wg.Go(func() { _ = m.list.UpdateNode(max(timeout/2, time.Millisecond)) })
	wg.Wait()
	deadline, _ := ctx.Deadline()
	if err := m.list.Leave(max(time.Until(deadline), 10*time.Millisecond)); err != nil {
		return fmt.Errorf("mesh: not all nodes may know yet that this one leaves: %w", err)
	}
	return nil
}

// peers is the names of the members that pick picks, sorted.
func (m *Mesh) peers(pick func(*member) bool) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for name, mb := range m.members {
		if pick(mb) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// settle tells of what changed about a member. The caller holds m.mu.
func (m *Mesh) settle(mb *member, changed bool) {
	was := mb.last.standing
	events, differs := mb.settle(m.opt.Now())
	if mb.last.standing != was {
		m.kickBeats() // the others build their quorum from this verdict
	}
	for _, e := range events {
		m.notify.event(e.kind, e.subject, e.detail)
	}
	if changed || differs {
		m.notify.change()
	}
}
