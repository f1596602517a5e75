package mesh

import (
	"context"
	"sync"
)

// disk writes registers down and tells the owner of them, in order, from one goroutine: a slow disk delays
// acknowledgements, never heartbeats.
type disk struct {
	mu    sync.Mutex
	queue []saving
	wake  chan struct{}
}

func (d *disk) push(s saving) {
	d.mu.Lock()
	d.queue = append(d.queue, s)
	d.mu.Unlock()
	kick(d.wake)
}

func (d *disk) take() []saving {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.queue
	d.queue = nil
	return out
}

// runDisk works until ctx is done and what was queued by then is written.
func (m *Mesh) runDisk(ctx context.Context) {
	for {
		for batch := m.disk.take(); len(batch) > 0; batch = m.disk.take() {
			m.writeAll(batch)
		}
		select {
		case <-m.disk.wake:
		case <-ctx.Done():
			m.writeAll(m.disk.take())
			return
		}
	}
}

// writeAll writes what waits: registers that follow each other with one fsync for all, so that a storm of writes is as fast
// as the disk is, and not as many times slower as it has registers.
func (m *Mesh) writeAll(batch []saving) {
	for len(batch) > 0 {
		n := 0
		var together []Register
		for n < len(batch) && !batch[n].wipe && len(batch[n].gone) == 0 && batch[n].own == batch[0].own {
			together = append(together, batch[n].registers...)
			n++
		}
		if n < 2 || m.store == nil {
			m.write(batch[0])
			batch = batch[1:]
			continue
		}
		if !batch[0].own {
			m.tell(together)
		}
		err := m.store.save(together)
		for _, s := range batch[:n] {
			m.wrote(s, err)
		}
		batch = batch[n:]
	}
}

// tell tells the owner of registers. Those of peers are told before they are on disk: the peers have them there, and what
// they say is not to wait for this node's disk. Only the word that this node holds them does.
func (m *Mesh) tell(rs []Register) {
	for _, r := range rs {
		m.opt.OnRegister(r)
	}
}

func (m *Mesh) write(s saving) {
	var err error
	if !s.own {
		m.tell(s.registers)
	}
	if m.store != nil {
		switch {
		case s.wipe:
			err = m.store.wipe()
		case len(s.gone) > 0:
			err = m.store.forget(s.gone) // where it fails they are expired when they are next read
		default:
			err = m.store.save(s.registers)
		}
	}
	m.wrote(s, err)
}

// wrote follows up on a write.
func (m *Mesh) wrote(s saving, err error) {
	if s.token == 0 {
		if err != nil {
			m.log.Warn("registers that are over stay on disk", "error", err)
		}
		return
	}
	if err != nil && !s.own {
		// A full disk must not keep a purge from being applied: it holds in memory, and the peers have it too.
		m.step(func(c *core, now instant) *effects {
			c.begin()
			if c.seldom("disk", now.at) {
				c.event("registers.disk", s.registers[0].Key, "registers from peers are held in memory only: "+err.Error())
			}
			return &c.out
		})
		err = nil
	}
	if err == nil && s.own {
		m.tell(s.registers)
	}
	m.step(func(c *core, now instant) *effects { return c.saved(now, s.token, err) })
}
