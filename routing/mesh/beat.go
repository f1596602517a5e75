package mesh

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// MaxReport bounds a report in bytes.
const MaxReport = 64 << 10

// maxBeat bounds a beat on the wire: a report, the unreachable and a little more.
const maxBeat = MaxReport + MaxMembers*(maxText+3) + 4<<10

// maxReportAge bounds the age that a report may claim, so that no clock arithmetic overflows.
const maxReportAge = 24 * time.Hour

// beat is one heartbeat: what a node says of itself. Request and answer have the same form. Unknown fields are skipped,
// since the nodes of a fleet are upgraded one by one.
type beat struct {
	Fleet string `json:"fleet"`
	Node  string `json:"node"`
	Meta  []byte `json:"meta"` // as in gossip

	ReportVersion uint64          `json:"report_version,omitempty"` // grows within one boot; 0: it has published nothing
	ReportAge     int64           `json:"report_age_ms,omitempty"`  // milliseconds since it was published
	Report        json.RawMessage `json:"report,omitempty"`         // absent when the receiver has this version

	HoldsBoot string `json:"holds_boot,omitempty"` // the receiver's boot id as the sender knows it,
	Holds     uint64 `json:"holds,omitempty"`      // and the version of its report that the sender has

	Unreachable []string `json:"unreachable,omitempty"`
	Digest      uint64   `json:"digest"`              // of the registers
	Duplicate   bool     `json:"duplicate,omitempty"` // two processes say that they are the receiver
}

// decodeBeat decodes and checks a beat. It accepts nothing that exceeds the bounds of this package.
func decodeBeat(raw []byte) (beat, info, error) {
	var b beat
	if len(raw) > maxBeat {
		return b, info{}, fmt.Errorf("a beat of %d bytes is larger than %d", len(raw), maxBeat)
	}
	if err := json.Unmarshal(raw, &b); err != nil {
		return b, info{}, fmt.Errorf("a beat is not understood: %w", err)
	}
	switch {
	case b.Fleet == "" || !validText(b.Fleet, maxLabel):
		return b, info{}, errors.New("a beat names no fleet")
	case !validName(b.Node):
		return b, info{}, errors.New("a beat names no node")
	case len(b.Report) > MaxReport:
		return b, info{}, fmt.Errorf("the report of %s is larger than %d bytes", b.Node, MaxReport)
	case b.ReportAge < 0 || b.ReportAge > maxReportAge.Milliseconds():
		return b, info{}, fmt.Errorf("the report of %s has an impossible age", b.Node)
	case !validText(b.HoldsBoot, maxText):
		return b, info{}, fmt.Errorf("%s holds a report of an impossible boot id", b.Node)
	case len(b.Unreachable) > MaxMembers:
		return b, info{}, fmt.Errorf("%s can't reach more nodes than a fleet may have", b.Node)
	}
	for _, n := range b.Unreachable {
		if !validName(n) {
			return b, info{}, fmt.Errorf("%s can't reach a node of an impossible name", b.Node)
		}
	}
	i, err := decodeMeta(b.Meta)
	return b, i, err
}

// hear takes a beat from the node itself, a request or an answer alike. The caller holds the mesh's lock; mb is already
// known. It tells whether anything changed that the owner looks at.
func (mb *member) hear(b beat, i info, selfBoot string, now time.Time) (adoption, bool) {
	how := mb.adopt(i, true)
	if how == returned {
		return how, false
	}
	mb.lastSeen = now
	changed := how != unchanged
	if b.HoldsBoot == selfBoot {
		mb.holds = b.Holds
	} else {
		mb.holds = 0
	}
	at := now.Add(-time.Duration(b.ReportAge) * time.Millisecond)
	switch {
	case b.Report != nil && b.ReportVersion > mb.reportVersion:
		mb.report, mb.reportVersion, mb.reportAt = b.Report, b.ReportVersion, at
		changed = true
	case b.ReportVersion == mb.reportVersion && mb.report != nil:
		changed = changed || !mb.fresh(now) && now.Sub(at) <= ReportTTL
		mb.reportAt = at
	}
	slices.Sort(b.Unreachable)
	if !slices.Equal(b.Unreachable, mb.unreachable) {
		mb.unreachable = slices.Clone(b.Unreachable)
		changed = true
	}
	return how, changed
}
