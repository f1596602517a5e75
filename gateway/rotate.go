package gateway

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"landfall/configs"
	"landfall/gateway/admin"
	"landfall/routing/mesh"
)

// keyRegister is the one register of the rotation of mesh keys.
const keyRegister = "fleet/key"

const keyPath = "/landfall/v1/key"

// keyQuestion asks a node for the key of the rotation under way.
type keyQuestion struct {
	Key string `json:"key"` // its print
}

type keyTold struct {
	Key []byte `json:"key"`
}

// keyOrderIn is the step that the fleet is at; false: it never rotated.
func (n *Node) keyOrder() (keyOrder, bool) {
	for _, r := range n.fleet.Registers(keyRegister) {
		var o keyOrder
		if r.Key == keyRegister && r.Value != nil && json.Unmarshal(r.Value, &o) == nil && o.ID != "" && o.Key != "" {
			return o, true
		}
	}
	return keyOrder{}, false
}

// followKeysEvery is how often a node looks whether the fleet has taken a step.
const followKeysEvery = 250 * time.Millisecond

// runKeys follows the rotation of mesh keys until ctx ends.
func (n *Node) runKeys(ctx context.Context) error {
	tick := time.NewTicker(followKeysEvery)
	defer tick.Stop()
	failed := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		o, ok := n.keyOrder()
		if !ok || n.keys.followed(o) {
			continue
		}
		err := n.followKeys(ctx, o)
		switch {
		case err == nil:
			failed = ""
		case failed != o.mark() && ctx.Err() == nil: // once for each step; the status goes on telling who waits
			failed = o.mark()
			n.event("key.failed", o.Key, err.Error())
		}
	}
}

// followKeys takes a step, asking the others for the key where this node lacks it.
func (n *Node) followKeys(ctx context.Context, o keyOrder) error {
	need, err := n.keys.follow(o, nil, n.useKeys)
	if err == nil && need {
		var key []byte
		if key, err = n.fetchKey(ctx, o.Key); err == nil {
			need, err = n.keys.follow(o, key, n.useKeys)
		}
	}
	if err != nil || need || !n.keys.followed(o) {
		return err
	}
	n.event("key."+o.Step, o.Key, map[string]string{
		stepAdd: "this node holds the new mesh key behind the old one", stepUse: "this node encrypts with the new mesh key",
		stepRemove: "this node holds the new mesh key alone", stepAbort: "this node has dropped the new mesh key",
	}[o.Step])
	n.kick()
	return nil
}

// useKeys puts keys into force.
func (n *Node) useKeys(keys [][]byte) error {
	if err := n.mesh.SetKeys(keys); err != nil {
		return err
	}
	n.observers.passes.SetKeys(keys)
	return nil
}

// rotatedConfig is the config in force as a new one is compared with: with the new one's mesh.key where that follows a
// rotation.
func (n *Node) rotatedConfig(now, next *configs.Config) *configs.Config {
	if n.keys == nil {
		return now
	}
	keys, err := meshKeys(next.Mesh.Key)
	if err != nil || !n.keys.rotatedInto(keys) {
		return now
	}
	same := *now
	same.Mesh.Key = next.Mesh.Key
	return &same
}

// keyWait bounds one question for a key.
const keyWait = 3 * time.Second

// fetchKey asks those that say that they hold it, over mutual TLS.
func (n *Node) fetchKey(ctx context.Context, print string) ([]byte, error) {
	err := fmt.Errorf("no node that can be reached tells that it holds mesh key %s", print)
	for _, m := range n.picture.Load().members {
		if m.Self || !m.fresh || !slices.Contains(m.report.Keys, print) {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, keyWait)
		var told keyTold
		aerr := n.ask(asking, m.Name, keyPath, keyQuestion{print}, &told)
		cancel()
		switch {
		case aerr != nil:
			err = fmt.Errorf("ask %s for mesh key %s: %w", m.Name, print, aerr)
		case mesh.KeyPrint(n.keys.fleet, told.Key) != print:
			err = fmt.Errorf("%s answered with another key than %s", m.Name, print)
		default:
			return told.Key, nil
		}
	}
	return nil, err
}

// serveKey gives the key of the rotation under way, and no other, to a node: the listener has verified its certificate.
func (n *Node) serveKey(w http.ResponseWriter, r *http.Request) {
	var q keyQuestion
	o, ok := n.keyOrder()
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxMessage)).Decode(&q)
	if err != nil || !ok || q.Key != o.Key || o.Step == stepAbort {
		http.Error(w, "not the key of a rotation", http.StatusNotFound)
		return
	}
	key, ok := n.keys.find(q.Key)
	if !ok {
		http.Error(w, "this node does not hold it yet", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(keyTold{key}) // the asker sees a cut answer as an error
}

// Keys implements admin.Keys.
func (b backend) Keys() admin.KeyStatus {
	o, ok := b.n.keyOrder()
	return keyStatus(o, ok, b.n.picture.Load().members)
}

// keyStatus tells how a rotation stands, by what the nodes report.
func keyStatus(o keyOrder, rotating bool, members []member) admin.KeyStatus {
	s := admin.KeyStatus{Step: "none"}
	done := true
	for _, m := range members {
		if m.State == mesh.Leaving && !m.Reachable && !m.Self {
			continue // it has left
		}
		state := admin.NodeKeys{Node: m.Name, Region: m.Region, Kept: m.report.KeysKept}
		if m.fresh {
			state.Keys = m.report.Keys
		}
		s.Nodes = append(s.Nodes, state)
		if why := keyLacks(o, m); rotating && why != "" {
			s.Waiting = append(s.Waiting, admin.KeyWait{Node: m.Name, Why: why})
			done = false
		}
	}
	if !rotating {
		return s
	}
	s.Step, s.Key, s.By = o.Step, o.Key, o.By
	s.Since, _ = time.Parse(time.RFC3339, o.Since)
	switch {
	case o.Step == stepRemove || o.Step == stepAbort:
		s.Finished = done
	case done:
		s.Next = map[string]string{stepAdd: stepUse, stepUse: stepRemove}[o.Step]
	}
	return s
}

// keyLacks is what keeps a node from having taken a step; empty: nothing.
func keyLacks(o keyOrder, m member) string {
	keys := m.report.Keys
	holds := slices.Contains(keys, o.Key)
	switch {
	case m.State == mesh.Dead || !m.fresh:
		return "it is not heard: bring it back, or insist with force and give it the new key in mesh.key later"
	case len(keys) == 0:
		return "it tells of no keys: it runs an older version"
	case o.Step == stepAbort && holds:
		return "it still holds the key"
	case o.Step == stepAbort:
		return ""
	case !holds:
		return "it does not hold the key yet"
	case o.Step == stepUse && keys[0] != o.Key:
		return "it does not encrypt with the key yet"
	case o.Step == stepUse && !m.report.KeysKept:
		return "it has no data folder and would forget the key at its restart: put the key into mesh.key first, or insist with force"
	case o.Step == stepRemove && len(keys) != 1:
		return "it still holds others"
	}
	return ""
}

// RotateKey implements admin.Keys.
func (b backend) RotateKey(ctx context.Context, change admin.KeyChange, by string) (admin.KeyStatus, error) {
	n := b.n
	if n.mesh == nil {
		return admin.KeyStatus{}, admin.Refused("this node has no mesh, so there is no key to rotate")
	}
	n.rotating.Lock()
	defer n.rotating.Unlock()
	o, ok := n.keyOrder()
	now := keyStatus(o, ok, n.picture.Load().members)
	if why := mayRotate(now, change); why != "" {
		return now, admin.Refused(why)
	}
	o.Step, o.By, o.Since = change.Step, by, n.o.Now().UTC().Format(time.RFC3339)
	var fresh []byte
	if change.Step == stepAdd && (!ok || now.Finished) {
		fresh = make([]byte, meshKeySize)
		_, _ = rand.Read(fresh) // never fails (crypto/rand)
		o.ID, o.Key = newID(), mesh.KeyPrint(n.keys.fleet, fresh)
	}
	// This node first, so that the key is on a disk before anybody is told of it.
	if need, err := n.keys.follow(o, fresh, n.useKeys); err != nil {
		return now, fmt.Errorf("nothing was changed: %w", err)
	} else if need {
		return now, admin.Refused("this node does not hold key " + o.Key + " yet: ask another one, or wait")
	}
	value, err := json.Marshal(o)
	if err != nil {
		return now, err
	}
	if _, err := n.fleet.Set(ctx, keyRegister, value, 0); err != nil {
		return now, fmt.Errorf("the step was taken by this node alone and could not be made known: %w", err)
	}
	n.event("key."+o.Step, o.Key, "ordered by "+by)
	n.rebuild()
	return keyStatus(o, true, n.picture.Load().members), nil
}

// mayRotate tells why a step can't be taken now; empty: it can.
func mayRotate(now admin.KeyStatus, change admin.KeyChange) string {
	under := now.Step != "none" && !now.Finished
	switch change.Step {
	case stepAdd:
		if under && now.Step != stepUse {
			return fmt.Sprintf("a rotation is under way, at step %s of key %s: go on with it, or abort it", now.Step, now.Key)
		}
		return ""
	case stepAbort:
		if !under || now.Step != stepAdd {
			return "only a rotation at step add can be aborted; from use, step back to add first"
		}
		return ""
	case stepUse:
		if !under || now.Step != stepAdd {
			return "the step use follows add"
		}
	case stepRemove:
		if !under || now.Step != stepUse {
			return "the step remove follows use"
		}
	}
	if len(now.Waiting) == 0 || change.Force {
		return ""
	}
	var lacking []string
	for _, w := range now.Waiting {
		lacking = append(lacking, w.Node+": "+w.Why)
	}
	return fmt.Sprintf("step %s is not done on every node (%s)", now.Step, strings.Join(lacking, "; "))
}
