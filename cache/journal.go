package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
)

// purgeEntry is a purge as the journal has it.
type purgeEntry struct {
	cellName
	prefix bool   // of the host's paths that begin with text
	text   string // of the prefix
	gen    uint64
	soft   bool
	at     int64 // Unix nanoseconds
}

// journal is the file of the purges that what is on disk has yet to be compared with. An entry is there, for the kernel at
// least, when append returns. A file that doesn't end with a whole entry may lack any number of purges, so what is on disk is dropped.
//
//	entry   4 length of payload, 8 xxHash of it, payload
type journal struct {
	path  string
	found journalFile // what was there when it was opened
	alive time.Time   // when the process that wrote it was last known to run; zero: there was none

	mu     sync.Mutex
	file   *os.File
	torn   bool // an append failed, maybe within an entry: what came behind it would not be found
	size   int  // entries
	spared int  // entries that the last rewriting kept
}

// journalFile is what a journal says.
type journalFile struct {
	entries []purgeEntry          // in the order in which they were written
	base    uint64                // purges up to this are dealt with
	floor   uint64                // what was fetched before is not to be used
	last    uint64                // the largest generation
	notes   map[string]PurgeNotes // by writer
	broken  bool                  // it ends in something else than an entry, or isn't there: purges may be missing
}

const (
	journalName = "purges"
	maxEntry    = 64 << 10

	// Kinds of entries beside those of cells.
	kindBase  = 255
	kindFloor = 254
	kindNotes = 253

	// journalPatience is how long an append may take: a purge must not hang on a disk that does.
	journalPatience = time.Second
	// journalSlack is how many entries come before the file is written anew without those that later ones replace.
	journalSlack = 1 << 16
)

var errJournal = errors.New("the disk took too long to note a purge")

func openJournal(dir string) (*journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the cache: %w", err)
	}
	j := &journal{path: filepath.Join(dir, journalName)}
	if info, err := os.Stat(j.path); err == nil {
		j.alive = info.ModTime()
	}
	b, err := os.ReadFile(j.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read the purges: %w", err)
	}
	j.found = readJournal(b)
	j.found.broken = j.found.broken || err != nil
	return j, j.rewrite(j.found)
}

// readJournal reads entries up to the first that is not whole.
func readJournal(b []byte) journalFile {
	f := journalFile{notes: map[string]PurgeNotes{}}
	for len(b) >= 12 {
		n := binary.LittleEndian.Uint32(b)
		if n > maxEntry || int(n) > len(b)-12 || xxhash.Sum64(b[12:12+n]) != binary.LittleEndian.Uint64(b[4:]) {
			break
		}
		e, ok := readEntry(string(b[12 : 12+n]))
		if !ok {
			break
		}
		b = b[12+n:]
		switch e.kind {
		case kindBase:
			f.base = max(f.base, e.gen)
		case kindFloor:
			f.floor = max(f.floor, e.gen)
		case kindNotes:
			f.notes[e.name] = readNotes(e)
			continue // its number is none of ours
		default:
			f.entries = append(f.entries, e)
		}
		f.last = max(f.last, e.gen)
	}
	f.broken = len(b) > 0
	return f
}

func readEntry(s string) (e purgeEntry, ok bool) {
	c := cursor{s: s}
	kind := c.number()
	e.gen = c.number()
	flags := c.number()
	e.at = int64(c.number())
	e.service, e.name, e.text = c.text(), c.text(), c.text()
	e.soft, e.prefix, e.kind = flags&1 != 0, flags&2 != 0, cellKind(kind)
	return e, !c.bad && c.s == "" && (kind <= uint64(ofURL) || kind >= kindNotes && kind <= kindBase)
}

func (e purgeEntry) encode(b []byte) []byte {
	var p packer
	p.number(uint64(e.kind))
	p.number(e.gen)
	flags := uint64(0)
	if e.soft {
		flags |= 1
	}
	if e.prefix {
		flags |= 2
	}
	p.number(flags)
	p.number(uint64(max(e.at, 0)))
	p.text(e.service)
	p.text(e.name)
	p.text(e.text)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(p.b)))
	b = binary.LittleEndian.AppendUint64(b, xxhash.Sum64(p.b))
	return append(b, p.b...)
}

// append writes an entry at the end.
func (j *journal) append(e purgeEntry) error {
	b := e.encode(nil)
	if len(b)-12 > maxEntry {
		return fmt.Errorf("a note of %d bytes is too long", len(b))
	}
	done := make(chan error, 1)
	go func() { done <- j.write(b) }()
	timer := time.NewTimer(journalPatience)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return errJournal
	}
}

func (j *journal) write(b []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return os.ErrClosed
	}
	if j.torn {
		if err := j.compactLocked(0, 0); err != nil {
			return err
		}
	}
	if _, err := j.file.Write(b); err != nil {
		j.torn = true
		return err
	}
	if j.size++; j.size > j.spared+journalSlack {
		return j.compactLocked(0, 0)
	}
	return nil
}

// compact writes the file anew without the purges up to base, and raises the floor.
func (j *journal) compact(base, floor uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.compactLocked(base, floor)
}

func (j *journal) compactLocked(base, floor uint64) error {
	b, err := os.ReadFile(j.path)
	if err != nil {
		return err
	}
	f := readJournal(b)
	f.base, f.floor = max(f.base, base), max(f.floor, floor)
	return j.rewriteLocked(f)
}

func (j *journal) rewrite(f journalFile) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.rewriteLocked(f)
}

// rewriteLocked writes what later entries have not replaced.
func (j *journal) rewriteLocked(f journalFile) error {
	b := purgeEntry{cellName: cellName{kind: kindBase}, gen: f.base}.encode(nil)
	b = purgeEntry{cellName: cellName{kind: kindFloor}, gen: f.floor}.encode(b)
	for _, n := range f.notes {
		b = n.entry().encode(b)
	}
	type target struct {
		cellName
		text         string
		prefix, soft bool
	}
	latest := map[target]uint64{}
	for _, e := range f.entries {
		t := target{e.cellName, e.text, e.prefix, e.soft}
		latest[t] = max(latest[t], e.gen)
	}
	size := 0
	for _, e := range f.entries {
		if e.gen > f.base && latest[target{e.cellName, e.text, e.prefix, e.soft}] == e.gen {
			b = e.encode(b)
			size++
		}
	}
	temp := j.path + ".new"
	file, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = file.Write(b); err == nil {
		err = os.Rename(temp, j.path)
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	if j.file != nil {
		_ = j.file.Close()
	}
	j.file, j.torn, j.size, j.spared = file, false, size, size // the file is at its end
	return nil
}

// touch notes that the process runs.
func (j *journal) touch(now time.Time) { _ = os.Chtimes(j.path, now, now) }

// close closes the file, at the latest when a disk that hangs lets go of it.
func (j *journal) close() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.file != nil {
			_ = j.file.Close()
			j.file = nil
		}
	}()
	timer := time.NewTimer(journalPatience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}
