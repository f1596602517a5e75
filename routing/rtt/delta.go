package rtt

import (
	"encoding/binary"
	"errors"
	"time"
)

const (
	deltaVersion = 1
	deltaSize    = 10 // bytes of one entry: a key and a figure
	// MaxDeltas is the most entries of one message, and MaxMessage its most bytes.
	MaxDeltas  = 8192
	MaxMessage = 1 + MaxDeltas*deltaSize
)

// Deltas returns what this region's own figures have changed by since the last call, at most MaxDeltas of them, or nil.
// What is left comes with the next call.
func (t *Table) Deltas() []byte {
	t.mu.Lock()
	keys := make([]uint64, 0, min(len(t.pending), MaxDeltas))
	for k := range t.pending {
		if len(keys) == MaxDeltas {
			break
		}
		keys = append(keys, k)
		delete(t.pending, k)
	}
	t.mu.Unlock()
	if len(keys) == 0 {
		return nil
	}
	out := append(make([]byte, 0, 1+len(keys)*deltaSize), deltaVersion)
	for _, k := range keys {
		s := t.shardOf(k)
		s.mu.RLock()
		if at, ok := s.rows[k]; ok {
			out = binary.BigEndian.AppendUint64(out, k)
			out = binary.BigEndian.AppendUint16(out, s.figs[int(at)+t.self].units)
		}
		s.mu.RUnlock()
	}
	return out
}

// Merge takes another region's deltas. A message that can't be right is refused whole.
func (t *Table) Merge(region int, msg []byte, now time.Time) error {
	if region < 0 || region >= t.regions || region == t.self {
		return errors.New("deltas of a region that can't send any")
	}
	if len(msg) == 0 || msg[0] != deltaVersion || len(msg) > MaxMessage || (len(msg)-1)%deltaSize != 0 {
		return errors.New("deltas of an unknown form or size")
	}
	for b := msg[1:]; len(b) > 0; b = b[deltaSize:] {
		if k := binary.BigEndian.Uint64(b); k&0xff < 1 || k&0xff > kindAS || binary.BigEndian.Uint16(b[8:]) == 0 {
			return errors.New("deltas with an entry that is none")
		}
	}
	for b := msg[1:]; len(b) > 0; b = b[deltaSize:] {
		units := binary.BigEndian.Uint16(b[8:])
		t.set(binary.BigEndian.Uint64(b), region, ticks(now), func(figure, bool) uint16 { return units })
	}
	return nil
}
