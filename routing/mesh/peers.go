package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// PeerSuffix follows a node's name in the host of a request to it, so that each node has connections of its own. It lies
// under a domain that never resolves (RFC 6761 section 6.4): the client's transport asks PeerAddr instead.
const PeerSuffix = ".peer.invalid"

// Paths of the peer channel.
const (
	pathBeat      = "/mesh/v1/beat"
	pathRegisters = "/mesh/v1/registers"
)

// deadSlowdown is how much more slowly a dead node is tried.
const deadSlowdown = 8

// syncPause is the shortest time between two exchanges of registers with one peer.
const syncPause = time.Second

type peerNameKey struct{}

// PeerName is the node that a request of the mesh is meant for: the name that its certificate must bear.
func PeerName(ctx context.Context) (string, bool) {
	name, ok := ctx.Value(peerNameKey{}).(string)
	return name, ok
}

// PeerAddr is where the peer channel of a node is reached; false when the node isn't known.
func (m *Mesh) PeerAddr(name string) (netip.AddrPort, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if name == m.opt.Node {
		return m.self.Peer, m.self.Peer.IsValid()
	}
	mb := m.members[name]
	if mb == nil {
		return netip.AddrPort{}, false
	}
	return mb.info.Peer, mb.info.Peer.IsValid()
}

// runPeers keeps one loop of heartbeats and one of register exchanges going for each member.
func (m *Mesh) runPeers(ctx context.Context) {
	var wg sync.WaitGroup
	running := map[string]context.CancelFunc{}
	for {
		want := map[string]bool{}
		for _, name := range m.peers(func(*member) bool { return true }) {
			want[name] = true
			if running[name] != nil {
				continue
			}
			pctx, cancel := context.WithCancel(ctx)
			running[name] = cancel
			beatNow, syncNow := make(chan struct{}, 1), make(chan struct{}, 1)
			m.mu.Lock()
			m.beatKicks[name] = beatNow
			m.mu.Unlock()
			wg.Go(func() { m.runBeats(pctx, name, beatNow, syncNow) })
			wg.Go(func() { m.runSyncs(pctx, name, syncNow) })
		}
		for name, cancel := range running {
			if !want[name] {
				cancel()
				delete(running, name)
				m.mu.Lock()
				delete(m.beatKicks, name)
				m.mu.Unlock()
			}
		}
		select {
		case <-m.peersKick:
		case <-ctx.Done():
			for _, cancel := range running {
				cancel()
			}
			wg.Wait()
			return
		}
	}
}

// kickBeats makes every peer hear from this node at once. The caller holds m.mu.
func (m *Mesh) kickBeats() {
	for _, ch := range m.beatKicks {
		kick(ch)
	}
}

// runBeats sends heartbeats to one peer, one at a time.
func (m *Mesh) runBeats(ctx context.Context, name string, now, syncNow chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	differs := 0
	for {
		select {
		case <-timer.C:
		case <-now:
		case <-ctx.Done():
			return
		}
		start := m.opt.Now()
		how, same := m.beatOnce(ctx, name)
		switch {
		case how != good:
		case same:
			differs = 0
			m.markReady()
		default:
			// One difference may be a push on its way; a second one is worth an exchange, and so is the first contact.
			if differs++; differs >= 2 || !m.isReady() {
				kick(syncNow)
			}
		}
		timer.Reset(m.pause(name, how, m.opt.Now().Sub(start)))
	}
}

func (m *Mesh) isReady() bool {
	select {
	case <-m.ready:
		return true
	default:
		return false
	}
}

// pause is how long until the next beat, jittered by a twentieth: at the same rate in good and bad times, sooner only
// after the first refusal, since the second one decides.
func (m *Mesh) pause(name string, how outcome, took time.Duration) time.Duration {
	every := m.opt.Heartbeat
	m.mu.Lock()
	if mb := m.members[name]; mb != nil {
		switch {
		case mb.state() == Dead:
			every *= deadSlowdown
		case how == refused && mb.reach.standing != unreachable:
			every /= 2
		}
	}
	m.mu.Unlock()
	every += time.Duration((m.opt.Rand() - 0.5) * 0.1 * float64(every))
	return max(every-took, m.opt.Heartbeat/4)
}

// beatOnce sends one heartbeat and takes the answer. same tells that the peer's registers are this node's.
func (m *Mesh) beatOnce(ctx context.Context, name string) (how outcome, same bool) {
	b, timeout, ok := m.makeBeat(name)
	if !ok {
		return missed, false
	}
	bctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	m.metrics.sent("beat")
	raw, took, err := m.post(bctx, name, pathBeat, encode(b), maxBeat)
	if ctx.Err() != nil {
		return missed, false // this node stops; nothing is learnt about the peer
	}
	var answer beat
	var i info
	if err == nil {
		if answer, i, err = decodeBeat(raw); err == nil && (answer.Node != name || answer.Fleet != m.opt.Fleet) {
			err = fmt.Errorf("at its address answers %s of fleet %.64q", answer.Node, answer.Fleet)
		}
		if err != nil {
			m.metrics.refused.WithLabelValues("malformed").Inc()
		}
	}
	how = classify(err)
	same, fell := m.takeAnswer(name, how, err, answer, i, took)
	if fell {
		m.opt.Client.CloseIdleConnections() // one of them may be half-open; it must not stand in the way back
	}
	return how, same
}

// classify is how a beat ended.
func classify(err error) outcome {
	var nerr net.Error
	switch {
	case err == nil:
		return good
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &nerr) && nerr.Timeout():
		return missed
	}
	return refused
}

// makeBeat is what this node has to tell a peer, and how long that may take; false when the peer isn't known.
func (m *Mesh) makeBeat(to string) (beat, time.Duration, bool) {
	digest := m.registry.digest()
	now := m.opt.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	mb := m.members[to]
	if mb == nil {
		return beat{}, 0, false
	}
	b := beat{
		Fleet: m.opt.Fleet, Node: m.opt.Node, Meta: appendMeta(nil, m.self), ReportVersion: m.reportVersion,
		HoldsBoot: mb.info.Boot, Holds: mb.reportVersion, Unreachable: m.unreachable(), Digest: digest,
		Duplicate: !mb.duplicateSaid.IsZero() && now.Sub(mb.duplicateSaid) < sayEvery,
	}
	if m.report != nil {
		b.ReportAge = min(max(now.Sub(m.reportAt), 0), maxReportAge).Milliseconds()
		if mb.holds < m.reportVersion {
			b.Report = m.report
		}
	}
	return b, mb.reach.timeout(now, m.opt.Heartbeat, mb.rtt), true
}

// takeAnswer learns from how a beat ended: same tells that the registers are equal, fell that the peer has just become
// unreachable.
func (m *Mesh) takeAnswer(name string, how outcome, err error, b beat, i info, took time.Duration) (same, fell bool) {
	digest := m.registry.digest()
	m.mu.Lock()
	defer m.mu.Unlock()
	mb := m.members[name]
	if mb == nil {
		return false, false
	}
	now := m.opt.Now()
	was := mb.reach.standing
	mb.reach = mb.reach.step(now, how, silenceLimit(m.opt.Heartbeat, mb.rtt))
	changed := false
	if how == good {
		if took > 0 {
			mb.rtt = smooth(mb.rtt, took)
		}
		changed = m.heard(mb, b, i)
		if !mb.alive && mb.info.State != Leaving {
			kick(m.joinKick) // gossip takes it for dead, but it lives
		}
	} else {
		mb.lastErr = err.Error()
		fell = was != unreachable && mb.reach.standing == unreachable
	}
	m.settle(mb, changed)
	return how == good && b.Digest == digest, fell
}

// heard takes a beat of a member and tells of doubled names. The caller holds m.mu.
func (m *Mesh) heard(mb *member, b beat, i info) (changed bool) {
	now := m.opt.Now()
	how, changed := mb.hear(b, i, m.self.Boot, now)
	if how == returned && mb.returns >= 2 && now.Sub(mb.duplicateSaid) >= sayEvery {
		mb.duplicateSaid = now
		m.duplicate(mb.name, "two processes bear this name, boot ids "+mb.info.Boot+" and "+i.Boot)
	}
	if b.Duplicate && now.Sub(m.duplicateSaid) >= sayEvery {
		m.duplicateSaid = now
		m.duplicate(m.opt.Node, b.Node+" hears another process with this node's name; this one has boot id "+m.self.Boot)
	}
	return changed
}

func (m *Mesh) duplicate(name, detail string) {
	m.log.Error("a node name is used twice; give each node a name of its own", "node", name, "detail", detail)
	m.notify.event("node.duplicate", name, detail+"; give each node a name of its own")
}

// statusError is a peer's refusal.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return fmt.Sprintf("it answers %d: %s", e.code, e.text) }

// maxRefusal bounds how much of a refusal's text is read.
const maxRefusal = 512

// post sends a body to a peer and reads the answer, of at most limit bytes. took is the round trip; 0 when a connection
// had to be made first, which takes several.
func (m *Mesh) post(ctx context.Context, peer, path string, body []byte, limit int64) (answer []byte, took time.Duration, err error) {
	var fresh atomic.Bool
	ctx = context.WithValue(ctx, peerNameKey{}, peer)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(c httptrace.GotConnInfo) { fresh.Store(!c.Reused) },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+peer+PeerSuffix+path, bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	start := m.opt.Now()
	resp, err := m.opt.Client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	if !fresh.Load() {
		took = m.opt.Now().Sub(start)
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
		return nil, 0, &statusError{resp.StatusCode, string(bytes.TrimSpace(text))}
	}
	answer, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(answer)) > limit {
		err = fmt.Errorf("its answer is larger than %d bytes", limit)
	}
	return answer, took, err
}
