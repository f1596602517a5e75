package gateway

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"landfall/routing/mesh"
)

// keyFile holds the mesh keys that were rotated in, in the data folder. It is as secret as the node's private key and has
// the same protection: only the node's user may read it.
const keyFile = "keys.json"

// ring is the mesh keys of a fleet that has rotated them: what a node keeps over a restart.
type ring struct {
	Keys    [][]byte `json:"keys"`              // the first encrypts, all decrypt; none: never rotated, the config's hold
	Retired []string `json:"retired,omitempty"` // prints of keys that are not to be used again, though a config still names them
	Done    string   `json:"done,omitempty"`    // the last order that was followed
}

// maxRetired bounds how many prints are remembered, the latest.
const maxRetired = 1024

// keyOrder is a step of a rotation as it travels: a register. It names keys by their prints; the keys themselves are asked
// for over the peer channel.
type keyOrder struct {
	ID    string `json:"id"`
	Step  string `json:"step"` // add, use, remove or abort
	Key   string `json:"key"`  // print of the new key
	By    string `json:"by"`
	Since string `json:"since"` // RFC 3339
}

// The steps of a rotation.
const (
	stepAdd    = "add"    // every node holds the new key behind the old one
	stepUse    = "use"    // every node encrypts with the new one, and holds the old one
	stepRemove = "remove" // every node holds the new one alone
	stepAbort  = "abort"  // every node drops the new one
)

func (o keyOrder) mark() string { return o.ID + "/" + o.Step }

// keyring is the mesh keys in force on this node. It is safe for concurrent use.
type keyring struct {
	fleet string
	path  string // empty: nothing is kept

	mu     sync.Mutex
	config [][]byte
	ring   ring
}

// openKeyring reads what was kept. A file that can't be read is an error: to go on with keys that the fleet has retired
// would only look like a broken network.
func openKeyring(fleet, dir string, config [][]byte) (*keyring, error) {
	k := &keyring{fleet: fleet, config: config}
	if dir == "" {
		return k, nil
	}
	k.path = filepath.Join(dir, keyFile)
	r, err := readRing(k.path)
	if err != nil {
		return nil, fmt.Errorf("read the mesh keys of the last rotation (move the file away to begin with mesh.key, which must then be the fleet's present key): %w", err)
	}
	k.ring = r
	return k, nil
}

func readRing(path string) (ring, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ring{}, nil
	}
	if err != nil {
		return ring{}, err
	}
	return decodeRing(path, raw)
}

// decodeRing reads a kept ring. Its errors hold nothing of the file's content, which is secret.
func decodeRing(path string, raw []byte) (ring, error) {
	var r ring
	if json.Unmarshal(raw, &r) != nil {
		return ring{}, fmt.Errorf("%s is damaged", path)
	}
	for i, key := range r.Keys {
		if len(key) != meshKeySize {
			return ring{}, fmt.Errorf("%s is damaged: key %d has %d bytes, not %d", path, i+1, len(key), meshKeySize)
		}
	}
	if len(r.Retired) > maxRetired {
		r.Retired = r.Retired[len(r.Retired)-maxRetired:]
	}
	return r, nil
}

const meshKeySize = 32

// PrimaryKey is the mesh key that the node with this data folder encrypts with, in base64, once the fleet has rotated its
// keys; for an operator who brings mesh.key up to it.
func PrimaryKey(dir string) (string, error) {
	r, err := readRing(filepath.Join(dir, keyFile))
	if err != nil {
		return "", err
	}
	if len(r.Keys) == 0 {
		return "", fmt.Errorf("%s holds no rotated key: the fleet's key is the one in mesh.key", dir)
	}
	return base64.StdEncoding.EncodeToString(r.Keys[0]), nil
}

// keys are those in force.
func (k *keyring) keys() [][]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.inForce(k.ring)
}

// inForce are a ring's keys, then those of the config that were not retired: a config of before the rotation still finds
// nodes that don't know of it. A config that begins with a key that is neither in the ring nor retired is a later one, and
// comes first: the fleet went on without this node, or its keys are changed by hand. k.mu must be held.
func (k *keyring) inForce(r ring) [][]byte {
	known := func(keys [][]byte, key []byte) bool {
		return slices.ContainsFunc(keys, func(o []byte) bool { return slices.Equal(o, key) })
	}
	retired := func(key []byte) bool { return slices.Contains(r.Retired, mesh.KeyPrint(k.fleet, key)) }
	first, second := r.Keys, slices.DeleteFunc(slices.Clone(k.config), retired)
	if len(k.config) > 0 && !known(r.Keys, k.config[0]) && !retired(k.config[0]) {
		first, second = second, first
	}
	out := slices.Clone(first)
	for _, key := range second {
		if !known(out, key) {
			out = append(out, key)
		}
	}
	if len(out) == 0 {
		return k.config // all retired, and none in their place: a ring that was edited
	}
	return out
}

// configure takes the keys of a new config; use puts those that are then in force into it.
func (k *keyring) configure(config [][]byte, use func([][]byte) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	old := k.config
	k.config = config
	if err := use(k.inForce(k.ring)); err != nil {
		k.config = old
		return err
	}
	return nil
}

// rotatedInto tells whether a config's keys follow what was rotated in: such a config is no break, though it shares no key
// with the one before.
func (k *keyring) rotatedInto(config [][]byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.ContainsFunc(config, func(c []byte) bool {
		return slices.ContainsFunc(k.ring.Keys, func(r []byte) bool { return slices.Equal(c, r) })
	})
}

// prints name the keys in force, the one that encrypts first.
func (k *keyring) prints() []string {
	var out []string
	for _, key := range k.keys() {
		out = append(out, mesh.KeyPrint(k.fleet, key))
	}
	return out
}

// find is the key in force with a print.
func (k *keyring) find(print string) ([]byte, bool) {
	for _, key := range k.keys() {
		if mesh.KeyPrint(k.fleet, key) == print {
			return key, true
		}
	}
	return nil, false
}

// followed tells whether an order was followed before.
func (k *keyring) followed(o keyOrder) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ring.Done == o.mark()
}

// follow carries out one step, with the new key where this node does not hold it yet: the ring is on disk when it returns,
// and use has put it into force. need tells that the key is missing.
func (k *keyring) follow(o keyOrder, fetched []byte, use func([][]byte) error) (need bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	next, need := k.after(o, fetched)
	if need || next.Done == "" {
		return need, nil
	}
	// On disk first: a node that restarts in between must not forget a key that others already encrypt with.
	if err := k.keep(next); err != nil {
		return false, err
	}
	if err := use(k.inForce(next)); err != nil {
		return false, errors.Join(err, k.keep(k.ring))
	}
	k.ring = next
	return false, nil
}

// after is the ring after a step. k.mu must be held.
func (k *keyring) after(o keyOrder, fetched []byte) (next ring, need bool) {
	var key []byte
	var others [][]byte
	for _, have := range k.inForce(k.ring) {
		if mesh.KeyPrint(k.fleet, have) == o.Key {
			key = have
		} else {
			others = append(others, have)
		}
	}
	if key == nil && len(fetched) == meshKeySize && mesh.KeyPrint(k.fleet, fetched) == o.Key {
		key = fetched
	}
	next = ring{Retired: slices.Clone(k.ring.Retired), Done: o.mark()}
	retire := func(keys ...[]byte) {
		for _, key := range keys {
			if print := mesh.KeyPrint(k.fleet, key); !slices.Contains(next.Retired, print) {
				next.Retired = append(next.Retired, print)
			}
		}
		next.Retired = next.Retired[max(len(next.Retired)-maxRetired, 0):]
	}
	switch {
	case o.Step == stepAbort && len(others) == 0:
		next.Keys = [][]byte{key} // it is the only one left
	case o.Step == stepAbort:
		if next.Keys = others; key != nil {
			retire(key)
		}
	case key == nil:
		return ring{}, true
	case o.Step == stepAdd:
		next.Keys = append(others, key)
	case o.Step == stepUse:
		next.Keys = append([][]byte{key}, others...)
	case o.Step == stepRemove:
		next.Keys = [][]byte{key}
		retire(others...)
	default: // of a later version
		return ring{}, false
	}
	return next, false
}

// keep writes a ring where a crash leaves either the old or the new one.
func (k *keyring) keep(r ring) error {
	if k.path == "" {
		return nil
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(k.path), ".keys-") // only for this user
	if err != nil {
		return fmt.Errorf("the mesh keys can't be kept: %w", err)
	}
	_, werr := f.Write(raw)
	err = errors.Join(werr, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), k.path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("the mesh keys can't be kept: %w", err)
	}
	return nil
}
