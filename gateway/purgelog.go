package gateway

import (
	"context"
	"sync"
	"time"

	"landfall/cache"
)

// purgeCount is how many objects a record took on this node.
type purgeCount struct {
	objects int
	behind  []*cache.Count
}

func (c *purgeCount) load() (objects int, counting bool) {
	objects = c.objects
	for _, b := range c.behind {
		n, done := b.Load()
		objects += n
		counting = counting || !done
	}
	return objects, counting
}

// purgeLog remembers what each record took on this node. It is bounded: the oldest is forgotten first.
type purgeLog struct {
	mu     sync.Mutex
	counts map[string]*purgeCount
	order  []string
	waits  map[string]*purgeWait // by the record that is waited for
}

// purgeWait is one record that somebody waits for. Each has its own, so that a record wakes nobody who waits for another:
// at a thousand a second dozens are under way at any moment.
type purgeWait struct {
	applied chan struct{} // closed by put
	waiters int
}

func newPurgeLog() *purgeLog {
	return &purgeLog{counts: map[string]*purgeCount{}, waits: map[string]*purgeWait{}}
}

func (l *purgeLog) put(key string, c *purgeCount) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts[key] == nil {
		l.order = append(l.order, key)
	}
	if len(l.order) > purgeLogSize {
		delete(l.counts, l.order[0])
		l.order = l.order[1:]
	}
	l.counts[key] = c
	if w := l.waits[key]; w != nil {
		close(w.applied)
		delete(l.waits, key)
	}
}

// wait returns the counts of the records, nil for those that were not applied when ctx ended.
func (l *purgeLog) wait(ctx context.Context, keys []string) []*purgeCount {
	counts := make([]*purgeCount, len(keys))
	for i, key := range keys {
		counts[i] = l.await(ctx, key)
	}
	return counts
}

func (l *purgeLog) await(ctx context.Context, key string) *purgeCount {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.counts[key]; c != nil {
		return c
	}
	w := l.waits[key]
	if w == nil {
		w = &purgeWait{applied: make(chan struct{})}
		l.waits[key] = w
	}
	w.waiters++
	l.mu.Unlock()
	select {
	case <-w.applied:
	case <-ctx.Done():
	}
	l.mu.Lock()
	if w.waiters--; w.waiters == 0 && l.waits[key] == w {
		delete(l.waits, key)
	}
	return l.counts[key]
}

// eventLimit lets so many events a second through: a storm of purges must not push all else out of the log.
type eventLimit struct {
	mu   sync.Mutex
	till time.Time
	left int
}

const purgeEventsASecond = 20

func (e *eventLimit) allow(now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !now.Before(e.till) {
		e.till, e.left = now.Add(time.Second), purgeEventsASecond
	}
	e.left--
	return e.left >= 0
}
