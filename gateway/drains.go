package gateway

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"landfall/routing/mesh"
)

// The kinds of things that are drained.
const (
	kindRegion = "region"
	kindNode   = "node"
	// kindService is a service in one region; the drain's name is SERVICE/REGION.
	kindService = "service"
)

const drainPrefix = "drain/"

// Drain is an operator's word that traffic should leave a region or a node. It travels as a register.
type Drain struct {
	Kind   string    `json:"kind"`
	Name   string    `json:"name"`
	Reason string    `json:"reason,omitempty"`
	By     string    `json:"by,omitempty"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // zero: until undrained
	// Over is how long the clients take to leave, in a share that grows evenly; 0: at once.
	Over time.Duration `json:"over,omitzero"`
}

func (d Drain) key() string { return drainPrefix + d.Kind + "/" + d.Name }

// inForce tells whether the drain still holds.
func (d Drain) inForce(now time.Time) bool { return d.Until.IsZero() || now.Before(d.Until) }

// share is how many of the clients have been moved away by now, 0 to 1.
func (d Drain) share(now time.Time) float64 {
	if d.Over <= 0 {
		return 1
	}
	return min(max(float64(now.Sub(d.Since))/float64(d.Over), 0), 1)
}

// drainsIn reads the drains in force out of registers, by kind and name. A value that this version can't read is left
// out: the node that wrote it and those that can read it act on it.
func drainsIn(registers []mesh.Register, now time.Time) []Drain {
	var out []Drain
	for _, r := range registers {
		var d Drain
		if r.Value == nil || json.Unmarshal(r.Value, &d) != nil || r.Key != d.key() || !d.inForce(now) {
			continue
		}
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b Drain) int { return strings.Compare(a.key(), b.key()) })
	return out
}
