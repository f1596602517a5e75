package cache

import (
	"fmt"
	"hash/maphash"
	"os"
	"runtime"
	"testing"
	"time"
)

// A note that could not be written whole hides no purge that is noted behind it.
func TestPurgeBehindATornNote(t *testing.T) {
	d := newOnDisk(t)
	d.answers(200, "old", cacheable)
	d.get("http://a.test/")
	d.written()
	j := d.cache.tier.journal
	note := PurgeNotes{Writer: "w", Low: 1}.entry().encode(nil)
	whole := j.file
	if _, err := whole.Write(note[:len(note)/2]); err != nil { // as a disk that fills up leaves it
		t.Fatal(err)
	}
	full, err := os.Open(j.path) // not for writing
	if err != nil {
		t.Fatal(err)
	}
	j.file = full
	d.cache.NotePurges(PurgeNotes{Writer: "w", Low: 1})
	_ = full.Close()
	j.file = whole
	d.cache.Purge(Purge{Service: "shop", Host: "a.test"})
	if err := j.compact(0, 0); err != nil {
		t.Fatal(err)
	}
	d.answers(200, "new", cacheable)
	if d.again(true); d.get("http://a.test/").body != "new" {
		t.Error("what was purged came back from the disk")
	}
}

// A purge of a URL has no number that a scrub could see before what is on disk is compared with it: else the scrub would let
// it be forgotten.
func TestPurgeIsSeenWithItsNumber(t *testing.T) {
	for i := range 200 {
		g := newGenerations(maphash.MakeSeed())
		g.record = func(purgeEntry) {}
		n := cellName{"shop", ofURL, fmt.Sprint(i)}
		before, numbered := g.now.Load(), make(chan uint64)
		go func() { numbered <- g.next(n, i%2 == 0, time.Unix(1000, 0)) }()
		for g.now.Load() == before {
			runtime.Gosched()
		}
		seen := g.now.Load() // as a scrub begins
		c := g.peek(n)       // as it compares
		if c == nil || c.latest() < seen {
			t.Fatalf("purge %d is not there: %v", seen, c)
		}
		if gen := <-numbered; gen != seen {
			t.Fatal(gen, seen)
		}
	}
}
