package mesh

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// someMessages is one of each kind.
func someMessages() []message {
	sum := make([]uint64, buckets)
	sum[3] = 7
	r := register("drain/region/eu", `{"reason":"<x>"}`, 1_800_000_000_000)
	return []message{
		&beat{seq: 300, echo: 299, hold: 12345, registers: 0xdeadbeef, soft: 7, flags: flagReady, wall: 1_800_000_000_000},
		&soft{node: "eu-1", boot: "b1", version: 9, base: 8, age: 5, sections: []section{{sectionInfo, appendMeta(nil, someInfo())}, {99, []byte("of a later version")}}},
		&need{[]string{"eu-1", "us-1"}},
		&held{nodes: []string{"eu-1"}, boots: []uint32{5}, versions: []uint64{9}},
		&push{register: r, relay: true},
		&taken{stamp: r.Stamp, names: []string{"eu-1"}, refused: "full"},
		&sums{id: 4, sums: sum, after: "drain/"},
		&page{id: 4, sums: sum, registers: []Register{r}, next: "purge/"},
		&bye{"it stops"},
		&soft{node: "eu-1", boot: "b1", version: 10, base: 9, sections: []section{{sectionPlace, placeBody(somePlace())}}},
	}
}

var updateGoldens = flag.Bool("update-messages", false, "rewrite testdata/messages.txt: only for a new version of the protocol")

// Two adjacent releases run together: what one wrote, the next must read. A change of this file is a change of the
// protocol.
func TestMessagesStayAsTheyAre(t *testing.T) {
	var text strings.Builder
	all := append(someMessages(), pulse{}) // which nothing can follow
	for _, m := range all {
		fmt.Fprintf(&text, "%s %s\n", m.kind(), hex.EncodeToString(appendMessage(nil, m)))
	}
	path := filepath.Join("testdata", "messages.txt")
	if *updateGoldens {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != text.String() {
		t.Errorf("the messages are no longer written as the last release reads them (%s):\n%s", path, text.String())
	}
	for i, line := range strings.Split(strings.TrimSpace(string(want)), "\n") {
		_, digits, _ := strings.Cut(line, " ")
		raw, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeMessage(raw)
		if err != nil || !reflect.DeepEqual(got, all[i]) {
			t.Errorf("%.10s is read as %+v, %v", line, got, err)
		}
	}
}

func TestMessagesOfLaterVersions(t *testing.T) {
	for _, m := range someMessages() {
		switch m.(type) {
		case *beat, *push, *page: // a beat's end is its clock; registers are JSON, which has room inside
			continue
		}
		if got, err := decodeMessage(append(appendMessage(nil, m), "later fields"...)); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s: a later version's additions are refused: %v", m.kind(), err)
		}
	}
	if got, err := decodeMessage([]byte{77, 1, 2, 3}); got != nil || err != nil {
		t.Errorf("a kind of a later version is not skipped: %v, %v", got, err)
	}
}

// What a version does not know of a node's words is kept and passed on.
func TestUnknownSectionsPassThrough(t *testing.T) {
	now := instant{noon(), noon()}
	c := newCore("b-1", someInfo(), time.Second, time.Second, now, func() float64 { return 0 })
	far, near := someInfo(), someInfo()
	far.Region, far.Boot = "other", "f1"
	near.Boot = "n1"
	c.linkUp(now, 1, "a-1", far, protoVersion, false)
	c.linkUp(now, 2, "c-1", near, protoVersion, false)
	m := someMessages()[1].(*soft)
	m.base = 0
	o := c.message(now, 1, m)
	passed := false
	for _, s := range o.sends {
		got, ok := s.msg.(*soft)
		passed = passed || ok && s.link == 2 && reflect.DeepEqual(got, m)
	}
	if !passed || string(c.whole("eu-1").sections[1].body) != "of a later version" {
		t.Errorf("passed on: %v, kept: %+v", passed, c.whole("eu-1"))
	}
}

func FuzzMessage(f *testing.F) {
	for _, m := range someMessages() {
		f.Add(appendMessage(nil, m))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := decodeMessage(raw)
		if err != nil || m == nil {
			return
		}
		again, err := decodeMessage(appendMessage(nil, m))
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Fatalf("%+v does not survive its own encoding: %+v, %v", m, again, err)
		}
		now := instant{noon(), noon()}
		c := newCore("b-1", someInfo(), time.Second, time.Second, now, func() float64 { return 0 })
		peer := someInfo()
		peer.Boot = "p1"
		c.linkUp(now, 1, "a-1", peer, protoVersion, false)
		c.message(now, 1, m)
		c.tick(instant{noon().Add(time.Second), noon().Add(time.Second)})
		if len(c.members) > MaxMembers || len(c.table.entries) > MaxRegisters || len(c.spreads) > maxSpreads {
			t.Fatal("a message took more room than there is")
		}
		for _, e := range c.table.entries {
			if _, err := e.canonical(); err != nil || e.Stamp.Time().After(noon().Add(time.Second+MaxClockLead)) {
				t.Fatalf("%+v was taken: %v", e.Register, err)
			}
		}
	})
}

func FuzzGreeting(f *testing.F) {
	f.Add(encode(greeting{Speaks: 2, Oldest: 2, Fleet: "f", Node: "n", Meta: appendMeta(nil, someInfo()), Keys: []string{"00"}}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		g, i, err := decodeGreeting(raw)
		if err == nil && (!validName(g.Node) || !validText(g.Fleet, maxLabel) || i.check() != nil || len(g.Keys) > 16) {
			t.Fatalf("accepted beyond the bounds: %+v", g)
		}
	})
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte{3, 1, 2, 3, 0})
	f.Add(binary.AppendUvarint(nil, 1<<62))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := readFrame(bufio.NewReader(bytes.NewReader(raw)), maxFrame)
		if err == nil && (len(got) == 0 || len(got) > len(raw) || !bytes.Contains(raw, got)) {
			t.Fatalf("%x is read out of %x", got, raw)
		}
	})
}

func BenchmarkBeatStep(b *testing.B) {
	now := instant{noon(), noon()}
	c := newCore("b-1", someInfo(), time.Second, time.Second, now, func() float64 { return 0 })
	for i := range 300 {
		peer := someInfo()
		peer.Boot = fmt.Sprint(i)
		c.hint(now, fmt.Sprintf("n-%d", i), peer, netip.AddrPort{}, true)
	}
	peer := someInfo()
	peer.Boot = "p"
	c.linkUp(now, 1, "n-1", peer, protoVersion, false)
	b.ReportAllocs()
	for seq := uint64(2); b.Loop(); seq++ {
		c.message(now, 1, &beat{seq: seq, registers: c.digest().registers, soft: c.digest().soft, flags: flagReady})
	}
}
