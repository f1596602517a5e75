//go:build linux

package mesh

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// smallDisk is a folder on a file system of its own with room for so many bytes.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("a small file system needs the right to mount one: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves no room on a disk but what its files have already.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(bytes.Repeat([]byte("x"), size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
	_ = f.Close()
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// On a disk that is full, a node's own writes are refused with the reason, since they would be lost; what peers send holds in
// memory, and is told of. Once there is room, all goes on; the database was never damaged.
func TestFullDisk(t *testing.T) {
	f, dir := newFleet(t), smallDisk(t, "2m")
	a := f.start("a", func(o *Options) { o.DataDir = dir })
	b := f.start("b", nil, a)
	whole(t, a, b)
	if _, err := a.Set(t.Context(), "before", json.RawMessage(`1`)); err != nil {
		t.Fatal(err)
	}
	free := fill(t, dir)
	big := json.RawMessage(`"` + strings.Repeat("v", MaxValue-64) + `"`)
	var refused error
	held := 0
	for k := 0; k < 500 && refused == nil; k++ { // the database has some free pages of its own
		if _, refused = a.Set(t.Context(), "own/"+string(rune('a'+k%26))+strings.Repeat("k", k/26), big); refused == nil {
			held++
		}
	}
	if refused == nil || !errors.Is(refused, syscall.ENOSPC) || !strings.Contains(refused.Error(), "was not written") {
		t.Fatalf("after %d writes: %v", held, refused)
	}
	if got := len(a.Registers("own/")); got != held {
		t.Errorf("%d registers are in force, %d were acknowledged", got, held)
	}
	for k := range 40 {
		if _, err := b.Set(t.Context(), "peer/"+strings.Repeat("k", k+1), big); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "what the peer wrote holds here", func() bool { return len(a.Registers("peer/")) == 40 && len(a.told("peer/k")) == 1 })
	eventually(t, "the disk's failure is reported", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return strings.Contains(strings.Join(a.events, "\n"), "registers.disk ")
	})
	free()
	if _, err := a.Set(t.Context(), "after", json.RawMessage(`2`)); err != nil {
		t.Fatalf("with room again: %v", err)
	}
	a.kill()
	s, again, err := openStore(dir, noon())
	if err != nil || again.aside != "" {
		t.Fatalf("the database: %q, %v", again.aside, err)
	}
	defer func() { _ = s.close() }()
	found := map[string]bool{}
	for _, r := range again.registers {
		found[r.Key] = true
	}
	if !found["before"] || !found["after"] {
		t.Errorf("on disk are %d registers, before %t, after %t", len(found), found["before"], found["after"])
	}
}
