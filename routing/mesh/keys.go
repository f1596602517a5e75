package mesh

import (
	"fmt"
	"slices"

	"github.com/hashicorp/memberlist"
)

// SetKeys replaces the gossip keys while the mesh runs: the first encrypts, all decrypt. A fleet rotates without a gap in
// three steps, each on every node before the next begins: the new key added behind the old one, the new one moved to the
// front, the old one removed. A list that shares no key with the present one is refused: it would cut this node off.
func (m *Mesh) SetKeys(keys [][]byte) error {
	if len(keys) == 0 {
		return fmt.Errorf("mesh: no gossip key is left; keep at least one")
	}
	for i, k := range keys {
		if err := memberlist.ValidateKey(k); err != nil {
			return fmt.Errorf("mesh: gossip key %d must have 16, 24 or 32 bytes, not %d", i+1, len(k))
		}
	}
	has := func(all [][]byte, key []byte) bool {
		return slices.ContainsFunc(all, func(k []byte) bool { return slices.Equal(k, key) })
	}
	old := m.ring.GetKeys()
	if !slices.ContainsFunc(keys, func(k []byte) bool { return has(old, k) }) {
		return fmt.Errorf("mesh: the new gossip keys have none of the old ones among them, which would cut this node off: first add the new key behind the old one on every node")
	}
	for _, k := range keys {
		if err := m.ring.AddKey(k); err != nil {
			return fmt.Errorf("mesh: a gossip key can't be used: %w", err)
		}
	}
	if err := m.ring.UseKey(keys[0]); err != nil {
		return fmt.Errorf("mesh: the first gossip key can't be used: %w", err)
	}
	for _, k := range old {
		if !has(keys, k) {
			if err := m.ring.RemoveKey(k); err != nil {
				return fmt.Errorf("mesh: an old gossip key can't be removed: %w", err)
			}
		}
	}
	prints := keyPrints(m.opt.Fleet, keys)
	m.mu.Lock()
	m.keyPrints = prints
	m.mu.Unlock()
	return nil
}
