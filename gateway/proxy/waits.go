package proxy

import (
	"sync/atomic"
	"time"
)

// Waits counts what one service's requests wait for this region's origins, from the request sent to the response's head.
// It is safe for concurrent use.
type Waits struct {
	waiting atomic.Int64
	answers atomic.Uint64
	nanos   atomic.Uint64
}

// Totals are the requests that wait now, and the answers that came so far with the time that they took together.
func (w *Waits) Totals() (waiting int64, answers uint64, took time.Duration) {
	return w.waiting.Load(), w.answers.Load(), time.Duration(w.nanos.Load())
}

func (w *Waits) begin() { w.waiting.Add(1) }

// end counts the answer; one that never came says nothing of how long answers take.
func (w *Waits) end(took time.Duration, answered bool) {
	w.waiting.Add(-1)
	if answered {
		w.answers.Add(1)
		w.nanos.Add(uint64(max(took, 0)))
	}
}
