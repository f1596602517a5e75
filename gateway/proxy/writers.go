package proxy

import (
	"sync"
	"time"
)

// writers remembers users who have written lately, for those clients that keep no cookies. The zero value is ready.
type writers struct {
	mu    sync.Mutex
	until map[uint64]time.Time
}

// maxWriters bounds the memory, to a few megabytes a service.
const maxWriters = 1 << 16

func (w *writers) note(user uint64, until time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.until == nil {
		w.until = map[uint64]time.Time{}
	}
	if len(w.until) >= maxWriters {
		for other := range w.until { // any: whoever keeps cookies is not affected
			delete(w.until, other)
			break
		}
	}
	w.until[user] = until
}

func (w *writers) wrote(user uint64, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	until, ok := w.until[user]
	if ok && !now.Before(until) {
		delete(w.until, user)
		return false
	}
	return ok
}
