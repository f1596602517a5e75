package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"landfall/routing/mesh"
)

// fleet is what a node needs of the mesh. Two things are one: the mesh, and a node that is alone.
type fleet interface {
	Members() []mesh.Member
	Set(ctx context.Context, key string, value json.RawMessage, ttl time.Duration) (mesh.Ack, error)
	// Spread is Set that tells the others while this node's disk still writes, and calls onDisk when it has.
	Spread(ctx context.Context, key string, value json.RawMessage, ttl time.Duration, onDisk func()) (mesh.Ack, error)
	Registers(prefix string) []mesh.Register
}

// meshFleet is the mesh as a fleet.
type meshFleet struct{ *mesh.Mesh }

func (m meshFleet) Set(ctx context.Context, key string, value json.RawMessage, ttl time.Duration) (mesh.Ack, error) {
	if ttl > 0 {
		return m.SetFor(ctx, key, value, ttl)
	}
	return m.Mesh.Set(ctx, key, value)
}

// solo is the fleet of a node without a mesh: one member, registers in memory. It is safe for concurrent use.
type solo struct {
	self       func() mesh.Member
	now        func() time.Time
	onRegister func(mesh.Register)

	mu        sync.Mutex
	registers map[string]soloRegister
}

type soloRegister struct {
	mesh.Register
	until time.Time
}

func (s *solo) Members() []mesh.Member { return []mesh.Member{s.self()} }

func (s *solo) Set(_ context.Context, key string, value json.RawMessage, ttl time.Duration) (mesh.Ack, error) {
	self := s.self().Name
	r := soloRegister{Register: mesh.Register{Key: key, Value: value, By: self}}
	if ttl > 0 {
		r.until = s.now().Add(ttl)
	}
	s.mu.Lock()
	s.expire()
	_, known := s.registers[key]
	switch {
	case value == nil:
		delete(s.registers, key)
	case !known && len(s.registers) >= mesh.MaxRegisters:
		s.mu.Unlock()
		return mesh.Ack{}, fmt.Errorf("all %d registers are in use: delete some or wait until they expire", mesh.MaxRegisters)
	default:
		s.registers[key] = r
	}
	s.mu.Unlock()
	s.onRegister(r.Register)
	return mesh.Ack{Applied: []string{self}}, nil
}

// Spread is Set: there is no disk.
func (s *solo) Spread(ctx context.Context, key string, value json.RawMessage, ttl time.Duration, onDisk func()) (mesh.Ack, error) {
	ack, err := s.Set(ctx, key, value, ttl)
	if err == nil {
		onDisk()
	}
	return ack, err
}

// expire drops what is over. Callers hold mu.
func (s *solo) expire() {
	now := s.now()
	maps.DeleteFunc(s.registers, func(_ string, r soloRegister) bool { return !r.until.IsZero() && now.After(r.until) })
}

func (s *solo) Registers(prefix string) []mesh.Register {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	var out []mesh.Register
	for _, key := range slices.Sorted(maps.Keys(s.registers)) {
		if strings.HasPrefix(key, prefix) {
			out = append(out, s.registers[key].Register)
		}
	}
	return out
}
