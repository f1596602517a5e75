// Package history checks a cache by what its clients saw: writers note the versions that they wrote and the purges that
// were confirmed, readers note the versions that they got, and Check finds each read that was older than it may be. It
// knows nothing of caches, so that it can judge one in a simulation as well as a fleet of processes.
package history

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"
)

// purge is a purge that returned: who reads the object later gets at least version.
type purge struct {
	version      int
	issued, done time.Time
	missing      []string // nodes that did not confirm it
}

type read struct {
	node         string
	began, ended time.Time
	version      int
}

// Log is a history as it is written. It is safe for concurrent use. All times must be of one clock.
type Log struct {
	mu     sync.Mutex
	purges map[string][]purge
	reads  map[string][]read
}

// New is an empty history.
func New() *Log { return &Log{purges: map[string][]purge{}, reads: map[string][]read{}} }

// Purged notes a purge of an object that was at version when the purge was issued. done is when it returned, missing are
// the nodes that it said had not confirmed it.
func (l *Log) Purged(object string, version int, issued, done time.Time, missing []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.purges[object] = append(l.purges[object], purge{version, issued, done, slices.Clone(missing)})
}

// Read notes that a read of an object at a node gave a version.
func (l *Log) Read(object, node string, began, ended time.Time, version int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads[object] = append(l.reads[object], read{node, began, ended, version})
}

// Violation is a read that began after a purge had returned, at a node that had confirmed it, and was older.
type Violation struct {
	Object, Node string
	Version      int           // that was read
	Purged       int           // that it had to be at least
	After        time.Duration // from the purge's return to the begin of the read
}

func (v Violation) String() string {
	return fmt.Sprintf("%s at %s: version %d was read %s after the purge of what came before version %d had returned", v.Object, v.Node, v.Version, v.After, v.Purged)
}

// Report is what a history shows.
type Report struct {
	Reads, Purges int
	Violations    []Violation
	// Stale holds, for each purge that an older read followed, the time from its issue to the end of the last such read,
	// sorted: how long a purge takes for those who don't wait for it.
	Stale []time.Duration
}

// Quantile is the time within which the last stale read of a share q of all purges was over; 0 where none followed.
func (r Report) Quantile(q float64) time.Duration {
	i := int(q*float64(r.Purges)) - (r.Purges - len(r.Stale))
	if i < 0 || len(r.Stale) == 0 {
		return 0
	}
	return r.Stale[min(i, len(r.Stale)-1)]
}

// Check judges the history.
func (l *Log) Check() Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out Report
	for object, purges := range l.purges {
		out.Purges += len(purges)
		reads := slices.Clone(l.reads[object])
		slices.SortFunc(reads, func(a, b read) int { return a.began.Compare(b.began) })
		for _, p := range purges {
			out.judge(object, p, reads)
		}
	}
	for _, reads := range l.reads {
		out.Reads += len(reads)
	}
	slices.Sort(out.Stale)
	slices.SortFunc(out.Violations, func(a, b Violation) int { return cmp.Compare(a.String(), b.String()) })
	return out
}

func (r *Report) judge(object string, p purge, reads []read) {
	from, _ := slices.BinarySearchFunc(reads, p.issued, func(r read, t time.Time) int { return r.began.Compare(t) })
	last := time.Duration(-1)
	for _, x := range reads[from:] {
		if x.version >= p.version {
			continue
		}
		last = max(last, x.ended.Sub(p.issued))
		if !x.began.Before(p.done) && !slices.Contains(p.missing, x.node) {
			r.Violations = append(r.Violations, Violation{object, x.node, x.version, p.version, x.began.Sub(p.done)})
		}
	}
	if last >= 0 {
		r.Stale = append(r.Stale, last)
	}
}
