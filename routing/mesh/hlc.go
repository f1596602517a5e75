package mesh

import (
	"cmp"
	"fmt"
	"math"
	"time"
)

// MaxClockLead is how far ahead of this node's clock a stamp may lie. What lies further ahead is refused: one node with
// a wrong clock must not be able to write registers that nobody can overwrite.
const MaxClockLead = time.Minute

// Stamp is a hybrid logical time (Kulkarni et al., "Logical Physical Clocks and Consistent Snapshots in Globally
// Distributed Databases", 2014): close to physical time, yet greater than every stamp that its writer had seen. Stamps
// are totally ordered: by Wall, then Logical, then Node. The zero Stamp is before all others.
type Stamp struct {
	Wall    int64  `json:"wall"`              // Unix time in milliseconds
	Logical uint32 `json:"logical,omitempty"` // order within a millisecond
	Node    string `json:"node"`              // the writer; breaks ties
}

// Compare is -1 when s is before o, 1 when it is after, and 0 when they are the same stamp.
func (s Stamp) Compare(o Stamp) int {
	return cmp.Or(cmp.Compare(s.Wall, o.Wall), cmp.Compare(s.Logical, o.Logical), cmp.Compare(s.Node, o.Node))
}

// Time is the physical part, in UTC.
func (s Stamp) Time() time.Time { return time.UnixMilli(s.Wall).UTC() }

// String is the stamp as people see it: 2026-09-01T12:00:00.123Z/4@node.
func (s Stamp) String() string {
	return fmt.Sprintf("%s/%d@%s", s.Time().Format("2006-01-02T15:04:05.000Z"), s.Logical, s.Node)
}

// tick is the clock's step for a local event at physical time wall (ms): the next stamp after last.
func tick(last Stamp, wall int64) Stamp {
	switch {
	case wall > last.Wall:
		return Stamp{Wall: wall, Node: last.Node}
	case last.Logical < math.MaxUint32:
		return Stamp{Wall: last.Wall, Logical: last.Logical + 1, Node: last.Node}
	default: // four billion events within a millisecond: borrow from the next
		return Stamp{Wall: last.Wall + 1, Node: last.Node}
	}
}

// witness is the clock's step for a stamp that came from elsewhere: later ticks are greater than both.
func witness(last, seen Stamp) Stamp {
	if seen.Wall > last.Wall || seen.Wall == last.Wall && seen.Logical > last.Logical {
		return Stamp{Wall: seen.Wall, Logical: seen.Logical, Node: last.Node}
	}
	return last
}
