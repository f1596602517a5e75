package gateway

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"landfall/routing/mesh"
)

const weightPrefix = "weight/"

// Weight is a weight of a service in a region that an operator set at run time. It travels as a register, and holds in
// place of the config's until it is reset.
type Weight struct {
	Service string    `json:"service"`
	Region  string    `json:"region"`
	Weight  uint16    `json:"weight"`
	By      string    `json:"by,omitempty"`
	Since   time.Time `json:"since"`
}

func (w Weight) key() string { return weightPrefix + w.Service + "/" + w.Region }

// weightsIn reads the weights out of registers, by service and region. A value that this version can't read is left out.
func weightsIn(registers []mesh.Register) []Weight {
	var out []Weight
	for _, r := range registers {
		var w Weight
		if r.Value != nil && json.Unmarshal(r.Value, &w) == nil && r.Key == w.key() {
			out = append(out, w)
		}
	}
	slices.SortFunc(out, func(a, b Weight) int { return strings.Compare(a.key(), b.key()) })
	return out
}

// weight is a service's weight in a region: set at run time, else by the config, else 1.
func (v view) weight(service, region string) uint16 {
	for _, w := range v.weights {
		if w.Service == service && w.Region == region {
			return w.Weight
		}
	}
	if w, ok := v.config.Services[service].Steering.Weights[region]; ok {
		return uint16(w)
	}
	return 1
}
