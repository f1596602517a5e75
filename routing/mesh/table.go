package mesh

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// buckets is how many parts the digest of a table has: a difference in one key costs a hundred-odd keys, not all.
const buckets = 256

// verdict is what became of a register that was offered to a table: a closed list.
type verdict uint8

const (
	applied  verdict = iota // it is new or newer
	known                   // the table already holds it or a newer one
	outlived                // it has expired
	ahead                   // its stamp lies more than MaxClockLead ahead
	full                    // it would be one key too many
)

func (v verdict) String() string {
	return [...]string{"applied", "known", "expired", "future", "full"}[v]
}

// errFull is why a new key is refused.
var errFull = errors.New("all " + fmt.Sprint(MaxRegisters) + " registers are in use: delete some or wait until they expire")

type entry struct {
	Register
	print uint64
}

// table is a set of registers: a state machine without I/O, clock or lock. Offering the same registers in any order, any
// number of times, gives the same table (as long as it isn't full).
type table struct {
	entries map[string]entry
	sums    [buckets]uint64 // XOR of the fingerprints in each bucket
}

func newTable() *table { return &table{entries: map[string]entry{}} }

// judge tells what put would do, without doing it. r is canonical.
func (t *table) judge(r Register, now time.Time) verdict {
	old, have := t.entries[r.Key]
	switch {
	case r.Stamp.Time().After(now.Add(MaxClockLead)):
		return ahead
	case r.expired(now):
		return outlived
	case have && !r.supersedes(old.Register):
		return known
	case !have && len(t.entries) >= MaxRegisters:
		return full
	}
	return applied
}

// put stores r unconditionally.
func (t *table) put(r Register) {
	t.drop(r.Key)
	e := entry{r, r.fingerprint()}
	t.entries[r.Key] = e
	t.sums[bucket(r.Key)] ^= e.print
}

func (t *table) has(key string) bool {
	_, ok := t.entries[key]
	return ok
}

func (t *table) drop(key string) {
	if e, ok := t.entries[key]; ok {
		delete(t.entries, key)
		t.sums[bucket(key)] ^= e.print
	}
}

// expire drops what has expired and returns those keys, sorted.
func (t *table) expire(now time.Time) []string {
	var gone []string
	for key, e := range t.entries {
		if e.expired(now) {
			gone = append(gone, key)
		}
	}
	slices.Sort(gone)
	for _, key := range gone {
		t.drop(key)
	}
	return gone
}

// digest is one word for the whole content: equal tables have equal digests.
func (t *table) digest() uint64 {
	d := uint64(len(t.entries)) * 0x9E3779B97F4A7C15 // so that an emptied table differs from two equal sums
	for i, s := range t.sums {
		d = (d<<7 | d>>57) ^ s ^ uint64(i)
	}
	return d
}

// list is the registers whose keys begin with prefix, sorted by key; deleted and expired ones are left out.
func (t *table) list(prefix string, now time.Time) []Register {
	var out []Register
	for key, e := range t.entries {
		if strings.HasPrefix(key, prefix) && !e.Deleted() && !e.expired(now) {
			out = append(out, e.Register)
		}
	}
	slices.SortFunc(out, func(a, b Register) int { return strings.Compare(a.Key, b.Key) })
	return out
}

// differing marks the buckets in which another table, of the given sums, differs.
func (t *table) differing(sums []uint64) (differ [buckets]bool) {
	for i := range differ {
		differ[i] = i >= len(sums) || sums[i] != t.sums[i]
	}
	return differ
}

// page is the registers of the marked buckets with keys after the given one, in order of keys, of about limit bytes;
// next is where to go on, empty at the end.
func (t *table) page(in [buckets]bool, after string, limit int) (out []Register, next string) {
	for _, key := range slices.Sorted(maps.Keys(t.entries)) {
		if key <= after || !in[bucket(key)] {
			continue
		}
		if limit <= 0 && len(out) > 0 {
			return out, out[len(out)-1].Key
		}
		e := t.entries[key]
		out = append(out, e.Register)
		limit -= len(e.Key) + len(e.Value) + registerOverhead
	}
	return out, ""
}

// registerOverhead is about what a register costs on the wire beyond its key and value.
const registerOverhead = 256
