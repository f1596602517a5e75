package cache

import (
	"os"
	"testing"
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
