package mesh

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"time"
	"unicode/utf8"
)

// Bounds of the registers.
const (
	MaxKey       = 256             // bytes of a register's key
	MaxValue     = 4 << 10         // bytes of a register's value, compacted
	MaxRegisters = 10_000          // registers held by a node, deleted ones included until they expire
	MaxTTL       = 366 * 24 * 3600 // seconds
	TombstoneTTL = 24 * time.Hour  // how long a deletion is remembered; a node cut off for longer may bring the value back
)

// Register is a small value that the whole fleet agrees on: the write with the greatest Stamp wins everywhere.
type Register struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value,omitempty"` // compact JSON; nil: deleted
	Stamp Stamp           `json:"stamp"`
	By    string          `json:"by"`            // the node that wrote it
	TTL   int64           `json:"ttl,omitempty"` // seconds after Stamp.Wall when every node drops it; 0: kept until it is deleted
}

// Deleted tells whether the register is a tombstone.
func (r Register) Deleted() bool { return r.Value == nil }

// Expires is when the register is dropped everywhere; false: never.
func (r Register) Expires() (time.Time, bool) {
	switch {
	case r.TTL > 0:
		return r.Stamp.Time().Add(time.Duration(r.TTL) * time.Second), true
	case r.Deleted():
		return r.Stamp.Time().Add(TombstoneTTL), true
	}
	return time.Time{}, false
}

func (r Register) expired(now time.Time) bool {
	at, ok := r.Expires()
	return ok && !now.Before(at)
}

// supersedes tells whether r replaces o. Two writes never bear one stamp unless a node lost its disk and its clock at
// once; the bytes then decide, so that every node decides the same.
func (r Register) supersedes(o Register) bool {
	return cmp.Or(r.Stamp.Compare(o.Stamp), bytes.Compare(r.Value, o.Value), cmp.Compare(r.TTL, o.TTL), cmp.Compare(r.By, o.By)) > 0
}

// canonical checks a register's bounds and compacts its value, so that equal registers have equal bytes on all nodes.
func (r Register) canonical() (Register, error) {
	switch {
	case r.Key == "" || len(r.Key) > MaxKey || !utf8.ValidString(r.Key):
		return r, fmt.Errorf("the key %.64q must be UTF-8 of 1 to %d bytes", r.Key, MaxKey)
	case !validName(r.Stamp.Node):
		return r, fmt.Errorf("the stamp of %q names no valid node", r.Key)
	case !validText(r.By, maxText):
		return r, fmt.Errorf("the writer of %q is not a printable name of at most %d bytes", r.Key, maxText)
	case r.Stamp.Wall <= 0:
		return r, fmt.Errorf("the stamp of %q is not after 1970", r.Key)
	case r.TTL < 0 || r.TTL > MaxTTL:
		return r, fmt.Errorf("the TTL of %q must be 0 to %d seconds", r.Key, MaxTTL)
	}
	value, err := compactValue(r.Value)
	if err != nil {
		return r, fmt.Errorf("the value of %q %w", r.Key, err)
	}
	r.Value = value
	return r, nil
}

// compactValue is a value without insignificant space; null and nothing are nil.
func compactValue(v json.RawMessage) (json.RawMessage, error) {
	if len(v) == 0 {
		return nil, nil
	}
	if len(v) > 4*MaxValue {
		return nil, fmt.Errorf("must be at most %d bytes, not %d", MaxValue, len(v))
	}
	var b bytes.Buffer
	if err := json.Compact(&b, v); err != nil {
		return nil, fmt.Errorf("must be JSON: %w", err)
	}
	if b.Len() > MaxValue {
		return nil, fmt.Errorf("must be at most %d bytes, not %d", MaxValue, b.Len())
	}
	if b.String() == "null" {
		return nil, nil
	}
	return bytes.Clone(b.Bytes()), nil
}

// bucket is the part of the digest that a key belongs to. It is part of the protocol.
func bucket(key string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	return int(h.Sum32() % buckets)
}

// fingerprint identifies a register's content: of SHA-256 over its parts, each text after its length, the first eight
// bytes. It is part of the protocol.
func (r Register) fingerprint() uint64 {
	var scratch [512]byte
	b := scratch[:0]
	for _, text := range []string{r.Key, r.Stamp.Node, r.By} {
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(r.Stamp.Wall))
	b = binary.BigEndian.AppendUint32(b, r.Stamp.Logical)
	b = binary.BigEndian.AppendUint64(b, uint64(r.TTL))
	sum := sha256.Sum256(append(b, r.Value...))
	return binary.BigEndian.Uint64(sum[:8])
}

// encode is v as JSON. Unlike json.Marshal it leaves <, > and & alone: a value must keep its bytes over the wire, or two
// nodes would never agree on its digest.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil // only values that this package checked are encoded; an empty body is refused by the peer
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
