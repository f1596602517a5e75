package homes

import (
	"strings"
	"time"
)

// Move is how far an operator wants a service's users to have moved to the next ring. It travels as a register.
type Move struct {
	Service string `json:"service"`
	// Rings names the two rings that it is about: that of a migration which is over says nothing of the next one.
	Rings  string        `json:"rings"`
	From   float64       `json:"from"` // the share that had moved at Since
	To     float64       `json:"to"`   // the share that will have moved
	Since  time.Time     `json:"since"`
	Over   time.Duration `json:"over,omitzero"` // from From to To; 0: at once
	By     string        `json:"by,omitempty"`
	Reason string        `json:"reason,omitempty"`
}

// MovePrefix is what the keys of moves begin with.
const MovePrefix = "home/move/"

// Key is the register's key.
func (m Move) Key() string { return MovePrefix + m.Service }

// Share is how much of the key space has moved by now, 0 to 1.
func (m Move) Share(now time.Time) float64 {
	switch passed := now.Sub(m.Since); {
	case passed < 0:
		return m.From
	case passed >= m.Over:
		return m.To
	default:
		return m.From + (m.To-m.From)*float64(passed)/float64(m.Over)
	}
}

// moment is when the user at a place between 0 and 1 moves, there or back; false when this move does not concern it.
func (m Move) moment(place float64) (time.Time, bool) {
	low, high := min(m.From, m.To), max(m.From, m.To)
	if place < low || place >= high {
		return time.Time{}, false
	}
	return m.Since.Add(time.Duration(float64(m.Over) * (place - m.From) / (m.To - m.From))), true
}

// placeOf is a key's place in the order of moving. It is independent of where the key's homes are.
func placeOf(key uint64) float64 { return float64(mix(key^saltPlace)>>11) / (1 << 53) }

const saltPlace = 0x6a09e667f3bcc908

// Pin keeps one user in a region, whatever else says. It travels as a register.
type Pin struct {
	Service string    `json:"service"`
	User    string    `json:"user"`
	Region  string    `json:"region"`
	By      string    `json:"by,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until,omitzero"` // zero: until it is taken out
}

const (
	// PinPrefix is what the keys of pins begin with.
	PinPrefix = "home/pin/"
	// MaxPins bounds the pins of a fleet: they are exceptions, and every node holds all of them.
	MaxPins = 2000
	// MaxUser is the most bytes of a user that is pinned.
	MaxUser = 160
)

// Key is the register's key.
func (p Pin) Key() string { return PinPrefix + p.Service + "/" + p.User }

// fingerprint names two rings.
func fingerprint(ring, next Ring) string {
	var b strings.Builder
	for _, r := range []Ring{ring, next} {
		for i, name := range r.regions {
			b.WriteString(name)
			b.WriteByte('=')
			b.WriteByte(byte(r.weights[i]))
			b.WriteByte(byte(int(r.weights[i]) >> 8))
			b.WriteByte(',')
		}
		b.WriteByte('>')
	}
	const digits = "0123456789abcdef"
	out := make([]byte, 16)
	for i, h := 0, mix(hash(b.String())); i < len(out); i++ {
		out[i] = digits[h>>(60-4*i)&15]
	}
	return string(out)
}
