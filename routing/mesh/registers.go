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
// on this node's disk, and OnRegister has been called, before the others are told. An error means that nothing was
// written. When ctx ends early, the nodes not heard from are in Missing. It must not be called from OnRegister.
func (m *Mesh) Set(ctx context.Context, key string, value json.RawMessage) (Ack, error) {
	return m.SetFor(ctx, key, value, 0)
}

// SetFor is Set for a register that every node drops ttl after now, rounded up to seconds; 0: never.
func (m *Mesh) SetFor(ctx context.Context, key string, value json.RawMessage, ttl time.Duration) (Ack, error) {
	return m.Write(ctx, key, value, ttl, WaitAll)
}

// Write is SetFor that waits only as far as the level says. The write goes to every node all the same.
func (m *Mesh) Write(ctx context.Context, key string, value json.RawMessage, ttl time.Duration, level Wait) (Ack, error) {
	if ttl < 0 {
		return Ack{}, fmt.Errorf("mesh: the TTL of %q must not be negative", key)
	}
	seconds := int64((ttl + time.Second - 1) / time.Second)
	done := make(chan result, 1)
	var id uint64
	m.mu.Lock()
	if m.dialing == nil {
		m.mu.Unlock()
		return Ack{}, fmt.Errorf("mesh: %q was not written: the mesh does not run", key)
	}
	m.nextWrite++
	id = m.nextWrite
	m.results[id] = done
	m.carry(m.core.write(m.instant(), id, key, value, seconds, level))
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, spreadFor-time.Second)
	defer cancel()
	var r result
	select {
	case r = <-done:
	case <-ctx.Done():
		m.step(func(c *core, now instant) *effects { return c.abandon(now, id) })
		r = <-done // at the latest when the disk has answered
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
