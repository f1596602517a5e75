package mesh

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func mustWrite(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestStoreKeeps(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "on", "demand")
	s, held, err := openStore(dir, noon())
	if err != nil || len(held.registers) != 0 || held.aside != "" {
		t.Fatalf("a new store: %+v, %v", held, err)
	}
	deleted := register("c", ``, 3)
	deleted.Value = nil
	if err := s.save([]Register{register("a", `1`, 1), register("b", `{"x":"<"}`, 2), deleted}); err != nil {
		t.Fatal(err)
	}
	if err := s.forget([]string{"a", "unknown"}); err != nil {
		t.Fatal(err)
	}
	for _, peers := range []map[string]knownPeer{{"n": {Gossip: "10.0.0.1:7946"}, "o": {}}, {"n": {Gossip: "10.0.0.2:7946"}}} {
		if err := s.savePeers(peers); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	s, held, err = openStore(dir, noon())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.close() }()
	if len(held.registers) != 2 || string(held.registers[0].Value) != `{"x":"<"}` || !held.registers[1].Deleted() {
		t.Errorf("held %+v", held.registers)
	}
	if len(held.peers) != 1 || held.peers["n"].Gossip != "10.0.0.2:7946" {
		t.Errorf("knew %+v", held.peers)
	}
}

// damaged makes a store of some size and returns its file.
func damaged(t *testing.T, dir string, damage func(raw []byte) []byte) {
	t.Helper()
	s, _, err := openStore(dir, noon())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 { // many transactions, so that both meta pages and the free list are in use
		var rs []Register
		for k := range 20 {
			rs = append(rs, register(fmt.Sprintf("%d/%d", i, k), `"`+strings.Repeat("v", 500)+`"`, 1))
		}
		if err := s.save(rs); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, storeName)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, path, string(damage(raw)))
}

func TestDamagedStoreIsMovedAside(t *testing.T) {
	page := os.Getpagesize()
	for name, damage := range map[string]func([]byte) []byte{
		"not a database":    func([]byte) []byte { return []byte(strings.Repeat("junk", 5000)) },
		"short":             func([]byte) []byte { return []byte("junk") },
		"meta pages zeroed": func(raw []byte) []byte { clear(raw[:2*page]); return raw },
		"cut in the middle": func(raw []byte) []byte { return raw[:len(raw)/3/page*page] },
		"data overwritten": func(raw []byte) []byte {
			for i := 2 * page; i < len(raw); i++ {
				raw[i] = 0xff
			}
			return raw
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			damaged(t, dir, damage)
			s, held, err := openStore(dir, noon())
			if err != nil {
				t.Fatal(err)
			}
			if held.aside == "" || held.cause == nil || len(held.registers) != 0 {
				t.Errorf("not noticed: %s, %v, %d registers", held.aside, held.cause, len(held.registers))
			}
			if _, err := os.Stat(held.aside); err != nil {
				t.Errorf("the damaged file is not kept: %v", err)
			}
			if err := s.save([]Register{register("a", `1`, 1)}); err != nil {
				t.Errorf("the new file can't be used: %v", err)
			}
			if err := s.close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDamageIsReported(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, filepath.Join(dir, storeName), strings.Repeat("junk", 5000))
	f := newFleet(t)
	a := f.start("a", func(o *Options) { o.DataDir = dir })
	eventually(t, "it is reported", func() bool { return a.saw("registers.corrupt a") })
	if _, err := a.Set(t.Context(), "k", json.RawMessage(`1`)); err != nil {
		t.Error(err)
	}
}

func TestUnwritableDiskRefusesSetButNotMerge(t *testing.T) {
	f := newFleet(t)
	a := f.start("a", func(o *Options) { o.DataDir = t.TempDir() })
	<-a.Ready()
	if err := a.store.close(); err != nil { // as good as a disk that fails
		t.Fatal(err)
	}
	if _, err := a.Set(t.Context(), "own", json.RawMessage(`1`)); err == nil || len(a.Registers("own")) != 0 || len(a.told("own")) != 0 {
		t.Errorf("a write that is not durable was acknowledged or half done: %v", err)
	}
	a.merge([]Register{register("theirs", `1`, time.Now().UnixMilli())})
	eventually(t, "the owner is told", func() bool { return slices.Equal(a.told("theirs"), []string{`1`}) })
	eventually(t, "the disk's failure is reported", func() bool { return a.saw("registers.disk theirs") })
}

// TestSpreadIsAheadOfTheDisk: a write that is spread reaches the others, and both owners, while the writer's disk is busy; it
// is acknowledged only when that is done, and refused when that fails.
func TestSpreadIsAheadOfTheDisk(t *testing.T) {
	f := newFleet(t)
	a := f.start("a", func(o *Options) { o.DataDir = t.TempDir() })
	b := f.start("b", func(o *Options) { o.DataDir = t.TempDir() }, a)
	whole(t, a, b)
	busy, err := a.store.db.Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	onDisk, done := make(chan struct{}), make(chan Ack)
	go func() {
		ack, err := a.Spread(t.Context(), "k", json.RawMessage(`1`), time.Hour, func() { close(onDisk) })
		if err != nil {
			t.Error(err)
		}
		done <- ack
	}()
	eventually(t, "both are told", func() bool { return len(a.told("k")) == 1 && len(b.told("k")) == 1 })
	select {
	case <-onDisk:
		t.Error("it counts as on disk")
	case <-done:
		t.Error("it is acknowledged")
	default:
	}
	if err := busy.Rollback(); err != nil {
		t.Fatal(err)
	}
	<-onDisk
	if ack := <-done; !slices.Equal(ack.Applied, []string{"a", "b"}) || len(a.told("k")) != 1 {
		t.Errorf("%+v, told %v", ack, a.told("k"))
	}
	if err := a.store.close(); err != nil { // as good as a disk that fails
		t.Fatal(err)
	}
	if _, err := a.Spread(t.Context(), "lost", json.RawMessage(`1`), time.Hour, func() { t.Error("it counts as on disk") }); err == nil {
		t.Error("a write that is not durable was acknowledged")
	}
}

func TestUnreadableRecordsAreSkipped(t *testing.T) {
	dir := t.TempDir()
	s, _, err := openStore(dir, noon())
	if err != nil {
		t.Fatal(err)
	}
	bad := register("bad", `1`, 1)
	bad.Stamp.Node = ""
	if err := s.save([]Register{register("good", `1`, 1), bad}); err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	s, held, err := openStore(dir, noon())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.close() }()
	if held.skipped != 1 || len(held.registers) != 1 {
		t.Errorf("skipped %d, read %d", held.skipped, len(held.registers))
	}
}
