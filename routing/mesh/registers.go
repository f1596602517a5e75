package mesh

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Ack tells which nodes have applied a register: merged it, written it to disk and told their owners. Both lists are
// sorted. Dead nodes are in neither; they get it when they come back.
type Ack struct {
	Applied []string `json:"applied"` // this node included
	Missing []string `json:"missing"` // live nodes that were waited for and did not confirm; anti-entropy brings it to them
}

// Set writes a register and waits for all live nodes: value is JSON of at most MaxValue bytes; nil or null deletes. It is
// on this node's disk, and OnRegister has been called, before the others are told; Spread is for what need not wait. An
// error means that nothing was written. When ctx ends early, the nodes not heard from are in Missing. It must not be called from OnRegister.
func (m *Mesh) Set(ctx context.Context, key string, value json.RawMessage) (Ack, error) {
	return m.SetFor(ctx, key, value, 0)
}

// SetFor is Set for a register that every node drops ttl after now, rounded up to seconds; 0: never.
func (m *Mesh) SetFor(ctx context.Context, key string, value json.RawMessage, ttl time.Duration) (Ack, error) {
	return m.Write(ctx, key, value, ttl, WaitAll)
}

// Write is SetFor that waits only as far as the level says. The write goes to every node all the same.
func (m *Mesh) Write(ctx context.Context, key string, value json.RawMessage, ttl time.Duration, level Wait) (Ack, error) {
	return m.write(ctx, ttl, key, func() {}, func(c *core, now instant, id uint64, seconds int64) *effects {
		return c.write(now, id, key, value, seconds, level)
	})
}

// Spread is SetFor for a register that does no harm where it was heard of and its writer then lost it, like a purge: the
// others, and OnRegister, are told of it while this node's disk still writes. onDisk is called when that is done, before the
// others need have confirmed. An error means that it is not on this node's disk, though others may have it.
func (m *Mesh) Spread(ctx context.Context, key string, value json.RawMessage, ttl time.Duration, onDisk func()) (Ack, error) {
	return m.write(ctx, ttl, key, onDisk, func(c *core, now instant, id uint64, seconds int64) *effects {
		return c.writeEarly(now, id, key, value, seconds)
	})
}

// write gives the core a write and waits for what becomes of it.
func (m *Mesh) write(ctx context.Context, ttl time.Duration, key string, onDisk func(), input func(*core, instant, uint64, int64) *effects) (Ack, error) {
	if ttl < 0 {
		return Ack{}, fmt.Errorf("mesh: the TTL of %q must not be negative", key)
	}
	seconds := int64((ttl + time.Second - 1) / time.Second)
	done := make(chan result, 2)
	var id uint64
	m.mu.Lock()
	if m.dialing == nil {
		m.mu.Unlock()
		return Ack{}, fmt.Errorf("mesh: %q was not written: the mesh does not run", key)
	}
	m.nextWrite++
	id = m.nextWrite
	m.results[id] = done
	m.carry(input(m.core, m.instant(), id, seconds))
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, spreadFor-time.Second)
	defer cancel()
	over := ctx.Done()
	r := result{onDisk: true}
	for r.onDisk {
		select {
		case r = <-done:
			if r.onDisk {
				onDisk()
			}
		case <-over:
			m.step(func(c *core, now instant) *effects { return c.abandon(now, id) })
			over = nil // the result comes at the latest when the disk has answered
		}
	}
	if r.err != nil {
		return Ack{}, fmt.Errorf("mesh: %w", r.err)
	}
	return Ack{Applied: r.applied, Missing: r.missing}, nil
}

// Registers is the registers whose keys begin with prefix, sorted by key; deleted and expired ones are left out.
func (m *Mesh) Registers(prefix string) []Register {
	now := m.instant()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.core.table.list(prefix, m.core.fleetWall(now))
}
