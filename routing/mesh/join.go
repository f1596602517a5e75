package mesh

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Timing and bounds of joining.
const (
	joinFirst     = 250 * time.Millisecond // after a round that found somebody missing, doubling
	joinMost      = 15 * time.Second       // up to here, for ever
	joinIdle      = 5 * time.Second        // between looks whether somebody is missing
	joinCheck     = time.Second            // the shortest time between rounds that something else asked for
	joinParallel  = 8
	resolveWithin = 3 * time.Second
	maxTargets    = MaxMembers
	maxPerName    = 32 // addresses used of one host name
	aloneRounds   = 4  // rounds without an answer before Ready gives up
)

// runJoin joins whoever is missing, for ever: seeds, the peers known from before, and members that gossip has lost.
// memberlist itself forgets a partitioned side and then never looks for it again.
func (m *Mesh) runJoin(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	j := joiner{wait: joinFirst}
	for {
		kicked := false
		select {
		case <-timer.C:
		case <-m.joinKick:
			kicked = true
		case <-ctx.Done():
			return
		}
		if !m.leaving.Load() {
			m.joinMissing(ctx, &j, kicked)
		}
		timer.Reset(min(max(j.due.Sub(m.opt.Now()), joinFirst), joinCheck))
	}
}

// joiner is what runJoin remembers between rounds.
type joiner struct {
	wait   time.Duration // to the round after the next
	last   time.Time
	due    time.Time
	rounds int // without any answer
}

func (m *Mesh) joinMissing(ctx context.Context, j *joiner, kicked bool) {
	now := m.opt.Now()
	if now.Before(j.due) && (!kicked || now.Sub(j.last) < joinCheck) {
		return
	}
	j.last = now
	targets, unresolved := m.targets(ctx)
	missing := m.missing(targets)
	if len(targets) == 0 && !unresolved {
		m.step(func(c *core, _ instant) *effects { return c.alone("") }) // there is nobody to ask
	}
	if len(missing) == 0 && !unresolved {
		j.wait, j.due, j.rounds = joinFirst, now.Add(joinIdle), 0
		return
	}
	joined, why := m.join(missing)
	if !m.isReady() {
		m.waitFor(joined, why)
	}
	if j.rounds++; joined > 0 {
		j.rounds = 0
	}
	if j.rounds >= aloneRounds && m.alone() && !m.isReady() {
		m.step(func(c *core, _ instant) *effects {
			return c.alone("nobody answers: " + why + "; going on with the registers of its own disk, drains and purges made elsewhere come when one answers")
		})
	}
	j.due = m.opt.Now().Add(j.wait + time.Duration(m.opt.Rand()*0.5*float64(j.wait)))
	j.wait = min(2*j.wait, joinMost)
}

// waitFor notes what this node waits for before it is ready, and logs it when it is something new.
func (m *Mesh) waitFor(joined int, why string) {
	text := "a peer's registers: one has answered"
	if joined == 0 {
		text = "a peer: " + why
	}
	m.mu.Lock()
	was := m.waiting
	m.waiting = text
	m.mu.Unlock()
	if was != text {
		m.log.Info("not ready yet; this node waits for "+text, "at_most", m.opt.ReadyWait)
	}
}

// Waiting is what this node waits for before it is ready; empty: nothing, or not known yet.
func (m *Mesh) Waiting() string {
	if m.isReady() {
		return ""
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.waiting
}

// targets is every gossip address where a node may be, but this node's own. unresolved tells that a seed has no address
// now.
func (m *Mesh) targets(ctx context.Context) (addrs []netip.AddrPort, unresolved bool) {
	set := map[netip.AddrPort]bool{}
	add := func(a netip.AddrPort) {
		if a.IsValid() && a != m.gossip && a != m.opt.Bind && len(set) < maxTargets {
			set[a] = true
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, seed := range m.opt.Join {
		wg.Go(func() {
			found := resolve(ctx, seed, m.gossip.Port())
			mu.Lock()
			defer mu.Unlock()
			unresolved = unresolved || len(found) == 0
			for _, a := range found {
				add(a)
			}
		})
	}
	wg.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.known {
		if a, err := netip.ParseAddrPort(p.Gossip); err == nil {
			add(a)
		}
	}
	for _, mb := range m.core.members {
		if !mb.alive && mb.info.State != Leaving {
			add(mb.gossip)
		}
	}
	return slices.SortedFunc(maps.Keys(set), netip.AddrPort.Compare), unresolved
}

// resolve is the addresses of a seed: host or host:port. A name that doesn't resolve now may do so later.
func resolve(ctx context.Context, seed string, port uint16) []netip.AddrPort {
	host, sport, err := net.SplitHostPort(seed)
	if err != nil {
		host = strings.Trim(seed, "[]")
	} else if p, perr := strconv.ParseUint(sport, 10, 16); perr == nil {
		port = uint16(p)
	} else {
		return nil
	}
	if a, aerr := netip.ParseAddr(host); aerr == nil {
		return []netip.AddrPort{netip.AddrPortFrom(plain(a), port)}
	}
	ctx, cancel := context.WithTimeout(ctx, resolveWithin)
	defer cancel()
	addrs, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	var out []netip.AddrPort
	for _, a := range addrs[:min(len(addrs), maxPerName)] {
		out = append(out, netip.AddrPortFrom(plain(a), port))
	}
	return out
}

// missing is the targets where no live member is.
func (m *Mesh) missing(targets []netip.AddrPort) []netip.AddrPort {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(targets, func(a netip.AddrPort) bool {
		for _, mb := range m.core.members {
			if mb.gossip == a && (mb.alive || mb.info.State == Leaving) {
				return true
			}
		}
		return false
	})
}

// join tries the addresses and returns how many answered, and why the last of the others did not.
func (m *Mesh) join(addrs []netip.AddrPort) (joined int, why string) {
	if len(addrs) == 0 {
		return 0, "no name in mesh.join resolves"
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, joinParallel)
	for _, a := range addrs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			n, err := m.list.Join([]string{a.String()})
			mu.Lock()
			defer mu.Unlock()
			joined += n
			if err != nil {
				why = fmt.Sprintf("%s did not take this node in (are its fleet name and mesh.key the same?): %v", a, err)
				m.log.Debug("a join failed; it is tried again", "address", a.String(), "error", err)
			}
		})
	}
	wg.Wait()
	return joined, why
}

// alone tells whether no other node is known to live.
func (m *Mesh) alone() bool {
	now := m.instant().at
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, mb := range m.core.members {
		if mb.live(now) {
			return false
		}
	}
	return true
}

func (m *Mesh) isReady() bool {
	select {
	case <-m.ready:
		return true
	default:
		return false
	}
}
