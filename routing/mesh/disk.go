package mesh

import (
	"context"
	"sync"
)

// backlog is what waits for one goroutine, in order. It never blocks those who add to it.
type backlog struct {
	mu    sync.Mutex
	queue []saving
	wake  chan struct{}
}

func newBacklog() backlog { return backlog{wake: make(chan struct{}, 1)} }

func (d *backlog) push(s saving) {
	d.mu.Lock()
	d.queue = append(d.queue, s)
	d.mu.Unlock()
	kick(d.wake)
}

func (d *backlog) take() []saving {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.queue
	d.queue = nil
	return out
}

// run calls work with what waits until ctx is done and what was queued by then is worked off.
func (d *backlog) run(ctx context.Context, work func([]saving)) {
	for {
		for batch := d.take(); len(batch) > 0; batch = d.take() {
			work(batch)
		}
		select {
		case <-d.wake:
		case <-ctx.Done():
			work(d.take())
			return
		}
	}
}

// runTell tells the owner of registers, in order and from one goroutine, and hands them to the disk. Those of peers are told
// before they are on disk: the peers have them there, and what they say is not to wait for this node's disk, nor for what
// else that writes. Only the word that this node holds them does. A write of this node's own is told when it is on disk,
// unless it is an early one; what follows it waits for that, so that the order holds.
func (m *Mesh) runTell(ctx context.Context) {
	m.telling.run(ctx, func(batch []saving) {
		for _, s := range batch {
			if !s.own || s.early {
				m.tell(s.registers)
				m.disk.push(s)
				continue
			}
			s.written = make(chan error, 1)
			m.disk.push(s)
			err := <-s.written
			if err == nil {
				m.tell(s.registers)
			}
			m.step(func(c *core, now instant) *effects { return c.saved(now, s.token, err) })
		}
	})
}

// runDisk writes registers down, in order and from one goroutine: a slow disk delays acknowledgements, never heartbeats.
func (m *Mesh) runDisk(ctx context.Context) { m.disk.run(ctx, m.writeAll) }

// writeAll writes what waits: registers that follow each other with one fsync for all, so that a storm of writes is as fast
// as the disk is, and not as many times slower as it has registers.
func (m *Mesh) writeAll(batch []saving) {
	for len(batch) > 0 {
		n := 0
		var together []Register
		for n < len(batch) && !batch[n].wipe && len(batch[n].gone) == 0 {
			together = append(together, batch[n].registers...)
			n++
		}
		n = max(n, 1) // or one that removes
		err := m.save(batch[0], together)
		for _, s := range batch[:n] {
			m.wrote(s, err)
		}
		batch = batch[n:]
	}
}

func (m *Mesh) save(first saving, together []Register) error {
	switch {
	case m.store == nil:
		return nil
	case first.wipe:
		return m.store.wipe()
	case len(first.gone) > 0:
		return m.store.forget(first.gone) // where it fails they are expired when they are next read
	default:
		return m.store.save(together)
	}
}

func (m *Mesh) tell(rs []Register) {
	for _, r := range rs {
		m.opt.OnRegister(r)
	}
}

// wrote follows up on a write.
func (m *Mesh) wrote(s saving, err error) {
	if s.written != nil {
		s.written <- err
		return
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
	m.step(func(c *core, now instant) *effects { return c.saved(now, s.token, err) })
}
