package upstream

import (
	"sync"
	"sync/atomic"
	"time"
)

// idleWatch calls fire when one wait lasts for a limit. It is cheap to begin and end a wait: only the clock is read; the
// timer runs once a limit and looks whether a wait is that old. The zero value watches nothing. begin, end and stop may
// be called by any goroutine.
type idleWatch struct {
	limit time.Duration
	fire  func()
	epoch time.Time
	since atomic.Int64 // start of the present wait, in nanoseconds after epoch, at least 1; 0: not waiting
	on    atomic.Bool

	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
}

// start makes the watch ready; a limit of 0 leaves it off. To be called once, before any other method.
func (w *idleWatch) start(limit time.Duration, fire func()) {
	if limit <= 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	w.limit, w.fire, w.epoch = limit, fire, time.Now()
	w.timer = time.AfterFunc(limit, w.check)
	w.on.Store(true)
}

// begin says that a wait begins now, or that the present one starts anew.
func (w *idleWatch) begin() {
	if w.on.Load() {
		w.since.Store(max(int64(time.Since(w.epoch)), 1))
	}
}

// end says that the wait is over.
func (w *idleWatch) end() {
	if w.on.Load() {
		w.since.Store(0)
	}
}

// stop ends the watch for good.
func (w *idleWatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.on.Store(false)
	if w.timer != nil {
		w.timer.Stop()
	}
}

func (w *idleWatch) check() {
	since := w.since.Load()
	waited := time.Since(w.epoch) - time.Duration(since)
	w.mu.Lock()
	if w.stopped {
		w.mu.Unlock()
		return
	}
	switch {
	case since == 0:
		w.timer.Reset(w.limit)
	case waited < w.limit:
		w.timer.Reset(w.limit - waited)
	default:
		w.stopped = true
		w.mu.Unlock()
		w.fire()
		return
	}
	w.mu.Unlock()
}
