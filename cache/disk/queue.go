package disk

import (
	"sync"
	"sync/atomic"
)

// job is a record to be written, or with drop one to be removed.
type job struct {
	Record
	drop  bool
	size  int64
	flush chan struct{} // only to be closed
}

// queue holds what is to be written, in order, within a bound of bytes.
type queue struct {
	max     int64
	refused atomic.Int64

	mu      sync.Mutex
	jobs    []job
	writing job // taken and not done yet; without a size: none
	bytes   int64
	closed  bool
	changed chan struct{} // has room for one: something is to be done
}

func newQueue(maxBytes int64) *queue { return &queue{max: maxBytes, changed: make(chan struct{}, 1)} }

func (q *queue) wake() {
	select {
	case q.changed <- struct{}{}:
	default:
	}
}

// put queues a record unless the queue is full.
func (q *queue) put(r Record, size int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.bytes+size > q.max {
		q.refused.Add(1)
		return false
	}
	q.bytes += size
	q.jobs = append(q.jobs, job{Record: r, size: size})
	q.wake()
	return true
}

// drop takes the puts of a variant out, and queues its removal if it was written, or may be being written now.
func (q *queue) drop(hash, variant uint64, written bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.jobs {
		if j := &q.jobs[i]; j.Hash == hash && j.Variant == variant && !j.drop && j.flush == nil {
			q.bytes -= j.size
			*j = job{drop: true, Record: Record{Hash: hash, Variant: variant}}
			written = true
		}
	}
	const most = 1 << 16 // removals take no bytes, but must be bounded too
	w := &q.writing
	written = written || w.size > 0 && w.Hash == hash && w.Variant == variant
	if written && !q.closed && len(q.jobs) < most {
		q.jobs = append(q.jobs, job{drop: true, Record: Record{Hash: hash, Variant: variant}})
		q.wake()
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
	q.jobs = nil
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.wake()
}
