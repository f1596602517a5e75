package cache

import (
	"errors"
	"os"
	"path/filepath"
	"time"
)

// note keeps what was applied over a restart, as a gateway does. Callers hold mu.
func (n *simNode) note() {
	notes := PurgeNotes{Writer: "fleet"}
	for n.known[int(notes.Low)+1] {
		notes.Low++
	}
	for id := range n.known {
		if uint64(id) > notes.Low {
			notes.Above = append(notes.Above, uint64(id))
		}
	}
	n.cache.NotePurges(notes)
}

// recall takes over what an earlier process had applied. Callers hold mu.
func (n *simNode) recall() {
	n.known = map[int]bool{}
	for _, notes := range n.cache.NotedPurges() {
		for id := range notes.Low {
			n.known[int(id)+1] = true
		}
		for _, id := range notes.Above {
			n.known[int(id)] = true
		}
	}
}

// restart ends a node with a disk, in order or by a kill, which leaves what the kernel had; after a while it comes back, with
// another error of its clock, and takes no request before it has applied what it missed.
func (f *fleet) restart(n *simNode) {
	killed := f.n(2) == 0
	n.mu.Lock()
	n.down = true
	old := n.cache
	if killed {
		n.lives++
		n.dir = f.keep(n.dir, n.lives)
	}
	n.mu.Unlock()
	old.Close()
	f.pause(20 * time.Second)
	f.mu.Lock()
	missed := f.all
	f.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.skew = time.Duration(f.n(120)-60) * time.Second
	n.cache = n.fresh()
	n.recall()
	if records, _ := n.cache.Recalled(); records > 0 {
		f.recalled.Add(1)
	}
	for _, p := range missed {
		if f.bug == "amnesia" {
			n.known[p.id] = true
			continue
		}
		n.apply(p)
	}
	n.down = false
}

// keep copies what a killed process leaves into another folder, which its successor takes.
func (f *fleet) keep(dir string, life int) string {
	next := filepath.Join(filepath.Dir(dir), filepath.Base(dir)[:len("node-0")]+"-"+string(rune('a'+life%2)))
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	err = errors.Join(err, os.RemoveAll(next), os.MkdirAll(next, 0o700))
	for _, name := range names {
		b, rerr := os.ReadFile(name)
		if errors.Is(rerr, os.ErrNotExist) {
			continue // removed meanwhile
		}
		err = errors.Join(err, rerr, os.WriteFile(filepath.Join(next, filepath.Base(name)), b, 0o600))
	}
	if err != nil {
		panic(err) // a test can't go on without its files, and fails
	}
	return next
}
