package mesh

import (
	"bytes"
	"container/heap"
	"context"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// delayed is a packet on its simulated way.
type delayed struct {
	due  time.Time
	seq  uint64 // packets of one due time keep their order
	to   memberlist.Address
	body []byte
}

// delayQueue holds packets until they are due. Its owner runs run.
type delayQueue struct {
	limit int
	send  func(delayed)
	wake  chan struct{}

	mu   sync.Mutex
	seq  uint64
	heap delayHeap
}

func newDelayQueue(limit int, send func(delayed)) *delayQueue {
	return &delayQueue{limit: limit, send: send, wake: make(chan struct{}, 1)}
}

// push takes a copy of body to be sent when due. It is false, and nothing is taken, when the queue is full.
func (q *delayQueue) push(due time.Time, to memberlist.Address, body []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.heap) >= q.limit {
		return false
	}
	q.seq++
	heap.Push(&q.heap, delayed{due, q.seq, to, bytes.Clone(body)})
	kick(q.wake)
	return true
}

// run sends until ctx is done; what is still held then is dropped.
func (q *delayQueue) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(q.flush(time.Now()))
		select {
		case <-timer.C:
		case <-q.wake:
		case <-ctx.Done():
			return
		}
	}
}

// flush sends what is due and returns how long the next one has.
func (q *delayQueue) flush(now time.Time) time.Duration {
	for {
		q.mu.Lock()
		if len(q.heap) == 0 {
			q.mu.Unlock()
			return time.Hour
		}
		if wait := q.heap[0].due.Sub(now); wait > 0 {
			q.mu.Unlock()
			return wait
		}
		p := heap.Pop(&q.heap).(delayed)
		q.mu.Unlock()
		q.send(p)
	}
}

type delayHeap []delayed

func (h delayHeap) Len() int { return len(h) }
func (h delayHeap) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].seq < h[j].seq
	}
	return h[i].due.Before(h[j].due)
}
func (h delayHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push is for container/heap.
func (h *delayHeap) Push(x any) { *h = append(*h, x.(delayed)) }

// Pop is for container/heap.
func (h *delayHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = delayed{}
	*h = old[:len(old)-1]
	return last
}
