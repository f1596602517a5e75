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
	mu      sync.Mutex
	counts  map[string]*purgeCount
	order   []string
	changed chan struct{} // closed at the next put; nil: nobody waits
}

func newPurgeLog() *purgeLog { return &purgeLog{counts: map[string]*purgeCount{}} }

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
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// wait returns the counts of the records, nil for those that were not applied when ctx ended.
func (l *purgeLog) wait(ctx context.Context, keys []string) []*purgeCount {
	for {
		counts, missing, changed := l.look(keys)
		if !missing {
			return counts
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return counts
		}
	}
}

func (l *purgeLog) look(keys []string) (counts []*purgeCount, missing bool, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		c := l.counts[key]
		counts = append(counts, c)
		missing = missing || c == nil
	}
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return counts, missing, l.changed
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
