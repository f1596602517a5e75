package mesh

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func noon() time.Time { return time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC) }

func TestClockSteps(t *testing.T) {
	cases := []struct {
		name       string
		last, want Stamp
		wall       int64
	}{
		{"time went on", Stamp{100, 7, "n"}, Stamp{101, 0, "n"}, 101},
		{"same millisecond", Stamp{100, 7, "n"}, Stamp{100, 8, "n"}, 100},
		{"clock went back", Stamp{100, 7, "n"}, Stamp{100, 8, "n"}, 50},
		{"counter used up", Stamp{100, math.MaxUint32, "n"}, Stamp{101, 0, "n"}, 100},
	}
	for _, c := range cases {
		if got := tick(c.last, c.wall); got != c.want {
			t.Errorf("%s: tick gives %v, not %v", c.name, got, c.want)
		}
	}
	for _, c := range []struct {
		name             string
		last, seen, want Stamp
	}{
		{"ahead", Stamp{100, 7, "n"}, Stamp{200, 3, "o"}, Stamp{200, 3, "n"}},
		{"same millisecond, ahead", Stamp{100, 7, "n"}, Stamp{100, 9, "o"}, Stamp{100, 9, "n"}},
		{"behind", Stamp{100, 7, "n"}, Stamp{99, 9, "o"}, Stamp{100, 7, "n"}},
	} {
		if got := witness(c.last, c.seen); got != c.want {
			t.Errorf("%s: witness gives %v, not %v", c.name, got, c.want)
		}
	}
}

func TestClockNeverRepeats(t *testing.T) {
	c := Stamp{Node: "n"}
	for i := range int64(1000) {
		next := tick(c, 500-i%7) // the wall clock stands still and jumps
		if next.Compare(c) <= 0 {
			t.Fatalf("%v does not come after %v", next, c)
		}
		c = witness(next, Stamp{Wall: 500 + i%3, Node: "m"})
	}
}

func register(key, value string, wall int64) Register {
	return Register{Key: key, Value: json.RawMessage(value), Stamp: Stamp{Wall: wall, Node: "n"}, By: "n"}
}

func TestTableVerdicts(t *testing.T) {
	now := noon()
	ms := now.UnixMilli()
	held := register("k", `1`, ms)
	ttl := func(r Register, s int64) Register { r.TTL = s; return r }
	dead := func(r Register) Register { r.Value = nil; return r }
	cases := []struct {
		name string
		r    Register
		want verdict
	}{
		{"new key", register("other", `1`, ms), applied},
		{"the same", held, known},
		{"older", register("k", `2`, ms-1), known},
		{"newer", register("k", `2`, ms+1), applied},
		{"deletion", dead(register("k", ``, ms+1)), applied},
		{"same stamp, greater bytes", register("k", `2`, ms), applied},
		{"same stamp, smaller bytes", register("k", `0`, ms), known},
		{"a minute ahead", register("k", `2`, ms+60_000), applied},
		{"more than a minute ahead", register("k", `2`, ms+60_001), ahead},
		{"expired", ttl(register("new", `1`, ms-10_000), 10), outlived},
		{"about to expire", ttl(register("new", `1`, ms-9_999), 10), applied},
		{"old deletion", dead(register("new", ``, ms-24*3600*1000)), outlived},
	}
	for _, c := range cases {
		tab := newTable()
		tab.put(held)
		if got := tab.judge(c.r, now); got != c.want {
			t.Errorf("%s: %s, not %s", c.name, got, c.want)
		}
	}
	tab := newTable()
	for i := range MaxRegisters {
		tab.put(register(fmt.Sprint(i), `1`, ms))
	}
	if got := tab.judge(register("one more", `1`, ms), now); got != full {
		t.Errorf("one register too many is %s", got)
	}
	if got := tab.judge(register("7", `2`, ms+1), now); got != applied {
		t.Errorf("a newer value of a held key is %s in a full table", got)
	}
}

// Whatever the order in which registers arrive, and however often, every node ends with the same table and digest.
func TestMergeCommutes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		one := rapid.Custom(func(t *rapid.T) Register {
			r := register(rapid.StringMatching(`[a-c]`).Draw(t, "key"), rapid.StringMatching(`[0-3]`).Draw(t, "value"),
				noon().UnixMilli()+rapid.Int64Range(0, 3).Draw(t, "wall"))
			r.Stamp.Node = rapid.StringMatching(`[m-o]`).Draw(t, "node")
			if rapid.Bool().Draw(t, "deleted") {
				r.Value = nil
			}
			return r
		})
		rs := rapid.SliceOfN(one, 1, 20).Draw(t, "registers")
		twice := rapid.Permutation(append(rs, rs...)).Draw(t, "order")
		a, b := newTable(), newTable()
		for _, r := range rs {
			if a.judge(r, noon()) == applied {
				a.put(r)
			}
		}
		for _, r := range twice {
			if b.judge(r, noon()) == applied {
				b.put(r)
			}
		}
		same := maps.EqualFunc(a.entries, b.entries, func(x, y entry) bool { return x.print == y.print })
		if !same || a.digest() != b.digest() {
			t.Fatalf("the order matters: %v and %v", a.entries, b.entries)
		}
	})
}

func TestTablePagesAndExpires(t *testing.T) {
	now := noon()
	tab := newTable()
	empty := tab.digest()
	all := [buckets]bool{}
	for i := range all {
		all[i] = true
	}
	for i := range 100 {
		r := register(fmt.Sprintf("p/%03d", i), `"x"`, now.UnixMilli())
		if i%2 == 0 {
			r.TTL = 60
		}
		tab.put(r)
	}
	seen := 0
	for after, rounds := "", 0; rounds == 0 || after != ""; rounds++ {
		var page []Register
		page, after = tab.page(all, after, 10*registerOverhead)
		seen += len(page)
		if len(page) == 0 || rounds > 100 {
			t.Fatalf("page %d is empty or there is no end", rounds)
		}
	}
	if seen != 100 {
		t.Errorf("the pages hold %d registers, not 100", seen)
	}
	if differ := newTable().differing(tab.sums[:]); strings.Count(fmt.Sprint(differ), "true") < 50 {
		t.Error("an empty table hardly differs from a filled one")
	}
	if gone := tab.expire(now.Add(time.Minute)); len(gone) != 50 || len(tab.list("p/", now)) != 50 {
		t.Errorf("%d expired, not 50", len(gone))
	}
	for key := range maps.Clone(tab.entries) {
		tab.drop(key)
	}
	if tab.digest() != empty {
		t.Error("the digest does not follow what is dropped")
	}
}

func TestCanonical(t *testing.T) {
	ok := register("k", "{ \"a\": \"<b>\" }", 1)
	got, err := ok.canonical()
	if err != nil || string(got.Value) != `{"a":"<b>"}` {
		t.Errorf("compacting gives %s, %v", got.Value, err)
	}
	if r, err := register("k", " null ", 1).canonical(); err != nil || !r.Deleted() {
		t.Errorf("null is not a deletion: %v, %v", r, err)
	}
	for name, edit := range map[string]func(*Register){
		"no key":        func(r *Register) { r.Key = "" },
		"long key":      func(r *Register) { r.Key = strings.Repeat("k", MaxKey+1) },
		"binary key":    func(r *Register) { r.Key = "\xff" },
		"long value":    func(r *Register) { r.Value = json.RawMessage(`"` + strings.Repeat("v", MaxValue) + `"`) },
		"huge value":    func(r *Register) { r.Value = json.RawMessage(strings.Repeat(" ", 5*MaxValue)) },
		"not JSON":      func(r *Register) { r.Value = json.RawMessage(`{`) },
		"no node":       func(r *Register) { r.Stamp.Node = "" },
		"no time":       func(r *Register) { r.Stamp.Wall = 0 },
		"negative TTL":  func(r *Register) { r.TTL = -1 },
		"endless TTL":   func(r *Register) { r.TTL = MaxTTL + 1 },
		"control chars": func(r *Register) { r.By = "a\nb" },
	} {
		r := register("k", `1`, 1)
		edit(&r)
		if _, err := r.canonical(); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func BenchmarkTableMerge(b *testing.B) {
	tab := newTable()
	for i := range 1000 {
		tab.put(register(fmt.Sprintf("purge/%04d", i), `{"service":"shop"}`, noon().UnixMilli()))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r := register(fmt.Sprintf("purge/%04d", i%1000), `{"service":"shop"}`, noon().UnixMilli()+int64(i))
		if tab.judge(r, noon().Add(time.Hour*24*365)) == applied {
			tab.put(r)
		}
	}
}

func BenchmarkTableDigest(b *testing.B) {
	tab := newTable()
	for i := range 1000 {
		tab.put(register(fmt.Sprintf("purge/%04d", i), `1`, noon().UnixMilli()))
	}
	b.ReportAllocs()
	for b.Loop() {
		tab.digest()
	}
}
