package mesh

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// A node that starts with a clock that went back holds registers of what it takes for the future. A write to one of them must
// not be stamped lower: it would be acknowledged, and lost on the disk that holds the newer one.
func TestWriteAfterTheClockWentBack(t *testing.T) {
	wall := time.Unix(1_800_000_000, 0)
	held, err := Register{Key: "k", Value: json.RawMessage(`"old"`), Stamp: Stamp{Wall: wall.UnixMilli(), Node: "n"}, By: "n"}.canonical()
	if err != nil {
		t.Fatal(err)
	}
	started := func(back time.Duration) (*core, instant) {
		now := instant{wall, wall.Add(-back)}
		c := newCore("n", info{Region: "r", Boot: "b"}, defaultHeartbeat, time.Second, now, func() float64 { return 0 })
		c.load(now, held)
		return c, now
	}
	c, now := started(5 * time.Minute)
	out := c.write(now, 1, "k", json.RawMessage(`"new"`), 0, WaitNode)
	if len(out.saves) > 0 || len(out.results) != 1 || out.results[0].err == nil || !strings.Contains(out.results[0].err.Error(), "set the clocks") {
		t.Fatalf("%d saves, results %+v", len(out.saves), out.results)
	}
	if out = c.write(now, 2, "other", json.RawMessage(`"new"`), 0, WaitNode); len(out.saves) != 1 || out.saves[0].registers[0].Stamp.Time().After(now.wall) {
		t.Fatalf("what nobody held is not written at this clock's time: %+v", out)
	}
	c, now = started(30 * time.Second)
	if out = c.write(now, 1, "k", json.RawMessage(`"new"`), 0, WaitNode); len(out.saves) != 1 || !out.saves[0].registers[0].supersedes(held) {
		t.Fatalf("a clock that is slightly behind: %+v", out)
	}
}
