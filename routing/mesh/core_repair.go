package mesh

import (
	"fmt"
	"slices"
	"time"
)

// repair is the comparison of the registers with one peer: it takes what the peer holds in the parts that differ, then
// gives what the peer lacks. One at a time: what it brings may make the others needless.
type repair struct {
	link   *link
	id     uint64
	began  time.Time
	asked  time.Time
	after  string
	differ [buckets]bool
	theirs map[string]uint64 // fingerprints of what came
	pages  int
}

// Bounds of repairs.
const (
	repairPause   = time.Second // between two
	repairPatient = 3 * time.Second
	maxPages      = 128
)

// startRepair begins a comparison unless one is under way or has just ended.
func (c *core) startRepair(now instant, l *link) {
	stalePeer := l.said.flags&flagStale != 0
	if c.repair != nil || stalePeer || c.ready && now.at.Sub(c.quiet) < repairPause || !c.ready && l.merged && l.said.flags&flagReady == 0 {
		return
	}
	if c.stale {
		if l.said.flags&flagReady == 0 {
			return
		}
		c.startClean()
	}
	c.token++
	c.repair = &repair{link: l, id: c.token, began: now.at, theirs: map[string]uint64{}}
	c.ask(now)
}

// startClean forgets registers that may have been deleted while this node was away: the fleet has forgotten the
// deletions, so only what a peer that stayed holds is true.
func (c *core) startClean() {
	c.stale = false
	c.event("registers.stale", c.node, fmt.Sprintf("%s (%s); %d registers of its disk are dropped and the fleet's are taken",
		errNeverMerged, TombstoneTTL, len(c.table.entries)))
	c.table = newTable()
	c.redigest()
	c.out.saves = append(c.out.saves, saving{wipe: true})
	c.out.changed = true
}

func (c *core) ask(now instant) {
	c.repair.asked = now.at
	c.send(c.repair.link, &sums{id: c.repair.id, sums: slices.Clone(c.table.sums[:]), after: c.repair.after})
}

// tickRepair gives up on a peer that doesn't answer.
func (c *core) tickRepair(now instant) {
	if c.repair != nil && now.at.Sub(c.repair.asked) > repairPatient {
		c.endRepair(now)
	}
}

func (c *core) endRepair(now instant) { c.repair, c.quiet = nil, now.at }

// takeSums answers with what the peer lacks or has differently.
func (c *core) takeSums(_ instant, l *link, m *sums) {
	p := &page{id: m.id, sums: slices.Clone(c.table.sums[:])}
	if len(m.sums) == buckets && !c.stale {
		p.registers, p.next = c.table.page(c.table.differing(m.sums), m.after, pageBytes)
	}
	c.send(l, p)
}

// takePage merges registers, and goes on with the comparison that asked for them.
func (c *core) takePage(now instant, l *link, m *page) {
	c.merge(now, l.peer.name, m.registers)
	p := c.repair
	if m.id == 0 || p == nil || p.link != l || p.id != m.id || len(m.sums) != buckets {
		return
	}
	if p.pages++; p.pages == 1 {
		p.differ = c.table.differing(m.sums)
	}
	for _, r := range m.registers {
		p.theirs[r.Key] = r.fingerprint()
	}
	if m.next != "" && m.next > p.after && p.pages < maxPages {
		p.after = m.next
		c.ask(now)
		return
	}
	c.giveBack(l, p)
	c.endRepair(now)
	l.merged, l.differs = true, 0
	if l.said.flags&flagReady != 0 {
		c.becomeReady()
	}
}

// giveBack sends what the peer lacks.
func (c *core) giveBack(l *link, p *repair) {
	after := ""
	for range maxPages {
		mine, next := c.table.page(p.differ, after, pageBytes)
		mine = slices.DeleteFunc(mine, func(r Register) bool {
			print, has := p.theirs[r.Key]
			return has && print == r.fingerprint()
		})
		if len(mine) > 0 {
			c.send(l, &page{registers: mine})
		}
		if next == "" {
			return
		}
		after = next
	}
}

// merge takes registers from a peer, those that are new.
func (c *core) merge(now instant, from string, rs []Register) {
	var fresh []Register
	for _, r := range rs {
		if c.judgeFrom(now, from, r) == applied {
			c.clock = witness(c.clock, r.Stamp)
			c.table.put(r)
			fresh = append(fresh, r)
		}
	}
	if len(fresh) > 0 {
		c.put(latest(fresh))
	}
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

// load is a register of this node's disk, before anything else. Stamps from the future don't move the clock.
func (c *core) load(now instant, r Register) {
	if r.expired(now.wall) {
		return
	}
	c.table.put(r)
	if !r.Stamp.Time().After(now.wall.Add(MaxClockLead)) {
		c.clock = witness(c.clock, r.Stamp)
	}
	c.redigest()
}
