package disk

import (
	"sync"
	"sync/atomic"
)

// job is a record to be written, or with drop one to be removed.
type job struct {
	Record
	drop     bool
	replaces bool // an older record of the variant may be on disk
	size     int64
	flush    chan struct{} // only to be closed
}

// name is what tells records apart.
type name struct{ hash, variant uint64 }

func (j *job) name() name { return name{j.Hash, j.Variant} }

// maxOwed bounds the removals that wait, in the queue and for a disk that fails.
const maxOwed = 1 << 16

// queue holds what is to be written, in order, within a bound of bytes.
type queue struct {
	max     int64
	refused atomic.Int64

	mu      sync.Mutex
	jobs    []job
	puts    map[name]int // of the jobs
	drops   int
	lost    bool // a removal found no room: everything is to go
	writing job  // taken and not done yet; without a size: none
	bytes   int64
	closed  bool
	changed chan struct{} // has room for one: something is to be done
}

func newQueue(maxBytes int64) *queue {
	return &queue{max: maxBytes, puts: make(map[name]int), changed: make(chan struct{}, 1)}
}

func (q *queue) wake() {
	select {
	case q.changed <- struct{}{}:
	default:
	}
}

// put queues a record unless the queue is full. replaces: an older record of it may be on disk.
func (q *queue) put(r Record, size int64, replaces bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.bytes+size > q.max {
		q.refused.Add(1)
		return false
	}
	j := job{Record: r, size: size}
	j.replaces = replaces || q.puts[j.name()] > 0 || q.isWriting(j.name())
	q.bytes += size
	q.puts[j.name()]++
	q.jobs = append(q.jobs, j)
	q.wake()
	return true
}

func (q *queue) isWriting(n name) bool { return q.writing.size > 0 && q.writing.name() == n }

// drop takes the puts of a variant out, and queues its removal if it was written, or may be being written now.
func (q *queue) drop(hash, variant uint64, written bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := name{hash, variant}
	for i := 0; q.puts[n] > 0 && i < len(q.jobs); i++ {
		if j := &q.jobs[i]; j.name() == n && !j.drop && j.flush == nil {
			q.bytes -= j.size
			written = written || j.replaces
			q.unput(n)
			*j = job{drop: true, Record: Record{Hash: hash, Variant: variant}}
			q.drops++
		}
	}
	if !written && !q.isWriting(n) || q.closed {
		return
	}
	if q.drops >= maxOwed {
		q.lost = true
		q.wake()
		return
	}
	q.jobs = append(q.jobs, job{drop: true, Record: Record{Hash: hash, Variant: variant}})
	q.drops++
	q.wake()
}

func (q *queue) unput(n name) {
	if q.puts[n]--; q.puts[n] <= 0 {
		delete(q.puts, n)
	}
}

// flush queues a job whose channel is closed when all before it is done.
func (q *queue) flush() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	done := make(chan struct{})
	if q.closed {
		close(done)
		return done
	}
	q.jobs = append(q.jobs, job{flush: done})
	q.wake()
	return done
}

// overflowed tells, once, whether a removal was lost.
func (q *queue) overflowed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	lost := q.lost
	q.lost = false
	return lost
}

// take is the next job; ok is false when there is none, and closed when there never will be.
func (q *queue) take() (j job, ok, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.jobs) == 0 {
		q.jobs = nil
		return j, false, q.closed
	}
	j = q.jobs[0]
	q.jobs[0] = job{}
	q.jobs = q.jobs[1:]
	q.writing = j
	switch {
	case j.drop:
		q.drops--
	case j.flush == nil:
		q.unput(j.name())
	}
	return j, true, false
}

// written gives back the bytes of a job that was taken.
func (q *queue) written(j job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= j.size
	q.writing = job{}
}

// clear drops all that was not taken.
func (q *queue) clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, j := range q.jobs {
		q.bytes -= j.size
		if j.flush != nil {
			close(j.flush)
		}
	}
	q.jobs, q.drops = nil, 0
	clear(q.puts)
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.wake()
}
