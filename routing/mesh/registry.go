package mesh

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// registry is the registers of this node: the table, its copy on disk, and who is told. All methods are safe for
// concurrent use.
type registry struct {
	clock   *clock
	store   *store // nil: nothing is persisted
	log     *slog.Logger
	metrics *Metrics
	notify  *notifier
	tell    func(Register) // OnRegister

	applying sync.Mutex // one batch at a time goes through judge, disk, table, tell: that is what keeps tell in order
	mu       sync.RWMutex
	table    *table

	futureSaid, fullSaid, diskSaid time.Time // when each was last reported; guarded by applying
}

// sayEvery bounds how often one kind of trouble is reported.
const sayEvery = time.Minute

// refusal says why a register was not taken.
type refusal struct {
	Key string `json:"key"`
	Why string `json:"why"`
}

// load fills the table from disk, before anything else runs. Stamps from the future don't move the clock.
func (g *registry) load(rs []Register, now time.Time) {
	for _, r := range rs {
		if r.expired(now) {
			continue
		}
		g.table.put(r)
		if !r.Stamp.Time().After(now.Add(MaxClockLead)) {
			g.clock.witness(r.Stamp)
		}
	}
	g.metrics.registers.Set(float64(len(g.table.entries)))
}

// replay tells of everything that was loaded, in order of keys.
func (g *registry) replay() {
	g.applying.Lock()
	defer g.applying.Unlock()
	for _, r := range g.list("") {
		g.tell(r)
	}
}

// set writes one register of this node's own. On an error nothing has changed.
func (g *registry) set(key string, value json.RawMessage, ttl int64) (Register, error) {
	g.applying.Lock()
	defer g.applying.Unlock()
	stamp := g.clock.tick()
	r, err := Register{Key: key, Value: value, Stamp: stamp, By: stamp.Node, TTL: ttl}.canonical()
	if err != nil {
		return r, err
	}
	now := g.clock.now()
	switch v := g.judge(r, now); v {
	case applied:
	case full:
		return r, errFull
	default:
		return r, fmt.Errorf("%q bears a stamp later than this node's clock (%s): set the clocks of the fleet right, then try again",
			key, now.UTC().Format(time.RFC3339))
	}
	if g.store != nil {
		if err := g.store.save([]Register{r}); err != nil {
			return r, fmt.Errorf("%q was not written, so that it is not lost later: %w", key, err)
		}
	}
	g.apply([]Register{r})
	return r, nil
}

// merge takes registers from a peer. What can't be taken is returned with the reason; what is known or has expired
// already counts as taken.
func (g *registry) merge(from string, rs []Register) []refusal {
	var refused []refusal
	g.applying.Lock()
	defer g.applying.Unlock()
	now := g.clock.now()
	fresh := make([]Register, 0, len(rs))
	newKeys := map[string]bool{}
	for _, r := range rs {
		r, err := r.canonical()
		if err != nil {
			g.metrics.refused.WithLabelValues("malformed").Inc()
			refused = append(refused, refusal{fmt.Sprintf("%.64s", r.Key), err.Error()})
			continue
		}
		v := g.judge(r, now)
		if v == applied && !g.has(r.Key) && !newKeys[r.Key] {
			if g.count()+len(newKeys) >= MaxRegisters {
				v = full
			} else {
				newKeys[r.Key] = true
			}
		}
		switch v {
		case applied:
			g.clock.witness(r.Stamp)
			fresh = append(fresh, r)
		case ahead, full:
			refused = append(refused, refusal{r.Key, v.String()})
			g.reportRefused(from, r, v, now)
		}
	}
	g.mergeFresh(latest(fresh), now)
	return refused
}

// latest leaves the winner of each key, so that one batch can't tell of a value that is already superseded.
func latest(rs []Register) []Register {
	at := make(map[string]int, len(rs))
	out := rs[:0]
	for _, r := range rs {
		if i, ok := at[r.Key]; !ok {
			at[r.Key] = len(out)
			out = append(out, r)
		} else if r.supersedes(out[i]) {
			out[i] = r
		}
	}
	return out
}

func (g *registry) mergeFresh(fresh []Register, now time.Time) {
	if len(fresh) == 0 {
		return
	}
	if g.store != nil {
		// A full disk must not keep a purge from being applied: it holds in memory, and the peers have it too.
		if err := g.store.save(fresh); err != nil && now.Sub(g.diskSaid) >= sayEvery {
			g.diskSaid = now
			g.log.Error("registers from a peer are held in memory only", "error", err)
			g.notify.event("registers.disk", fresh[0].Key, err.Error())
		}
	}
	g.apply(fresh)
}

func (g *registry) apply(rs []Register) {
	g.mu.Lock()
	for _, r := range rs {
		g.table.put(r)
	}
	count := len(g.table.entries)
	g.mu.Unlock()
	g.metrics.registers.Set(float64(count))
	for _, r := range rs {
		g.tell(r)
	}
}

func (g *registry) reportRefused(from string, r Register, v verdict, now time.Time) {
	g.metrics.refused.WithLabelValues(v.String()).Inc()
	said := &g.futureSaid
	detail := fmt.Sprintf("from %s: stamp %s is more than %s ahead of this node's clock; set the clock of %s or of this node right",
		from, r.Stamp, MaxClockLead, r.Stamp.Node)
	if v == full {
		said, detail = &g.fullSaid, fmt.Sprintf("from %s: %s", from, errFull)
	}
	if now.Sub(*said) < sayEvery {
		return
	}
	*said = now
	g.log.Error("a register was refused", "key", r.Key, "reason", v.String(), "detail", detail)
	g.notify.event("registers."+v.String(), r.Key, detail)
}

// expire drops what has outlived its time and tells whether there was any.
func (g *registry) expire(now time.Time) bool {
	g.applying.Lock()
	defer g.applying.Unlock()
	g.mu.Lock()
	gone := g.table.expire(now)
	count := len(g.table.entries)
	g.mu.Unlock()
	if len(gone) == 0 {
		return false
	}
	g.metrics.registers.Set(float64(count))
	if g.store != nil {
		if err := g.store.forget(gone); err != nil { // harmless: they are expired when they are next read
			g.log.Warn("expired registers stay on disk", "count", len(gone), "error", err)
		}
	}
	return true
}

func (g *registry) judge(r Register, now time.Time) verdict {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.table.judge(r, now)
}

func (g *registry) has(key string) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	_, ok := g.table.entries[key]
	return ok
}

func (g *registry) count() int {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return len(g.table.entries)
}

func (g *registry) list(prefix string) []Register {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.table.list(prefix, g.clock.now())
}

func (g *registry) digest() uint64 {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.table.digest()
}

func (g *registry) sums() []uint64 {
	g.mu.RLock()
	defer g.mu.RUnlock()
	sums := g.table.sums
	return sums[:]
}

// page is a page of what the table holds where it differs from the given sums; see table.page.
func (g *registry) page(in [buckets]bool, after string, limit int) ([]Register, string) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.table.page(in, after, limit)
}

func (g *registry) differing(sums []uint64) [buckets]bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.table.differing(sums)
}
