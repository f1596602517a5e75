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
			for _, s := range batch {
				m.write(s)
			}
		}
		select {
		case <-m.disk.wake:
		case <-ctx.Done():
			for _, s := range m.disk.take() {
				m.write(s)
			}
			return
		}
	}
}

func (m *Mesh) write(s saving) {
	var err error
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
	if err == nil {
		for _, r := range s.registers {
			m.opt.OnRegister(r)
		}
	}
	m.step(func(c *core, now instant) *effects { return c.saved(now, s.token, err) })
}
