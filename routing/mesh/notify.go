package mesh

import (
	"context"
	"log/slog"
	"sync"
)

// maxEvents bounds the events that wait for a slow OnEvent.
const maxEvents = 1024

type event struct{ kind, subject, detail string }

// notifier hands events and changes to the owner from one goroutine, so that whoever notices something (often under a
// lock of memberlist) never waits for the owner's code.
type notifier struct {
	log      *slog.Logger
	onEvent  func(kind, subject, detail string)
	onChange func()

	mu      sync.Mutex
	events  []event
	lost    int
	changed bool
	wake    chan struct{}
}

func newNotifier(log *slog.Logger, onEvent func(kind, subject, detail string), onChange func()) *notifier {
	return &notifier{log: log, onEvent: onEvent, onChange: onChange, wake: make(chan struct{}, 1)}
}

// event queues an event. It never blocks; past the bound the newest is dropped and counted.
func (n *notifier) event(kind, subject, detail string) {
	n.mu.Lock()
	if len(n.events) < maxEvents {
		n.events = append(n.events, event{kind, subject, detail})
	} else {
		n.lost++
	}
	n.mu.Unlock()
	kick(n.wake)
}

// change asks for one more call of OnChange after this moment.
func (n *notifier) change() {
	n.mu.Lock()
	n.changed = true
	n.mu.Unlock()
	kick(n.wake)
}

// run delivers until ctx is done and what was queued by then is delivered.
func (n *notifier) run(ctx context.Context) {
	for {
		n.deliver()
		select {
		case <-n.wake:
		case <-ctx.Done():
			n.deliver()
			return
		}
	}
}

func (n *notifier) deliver() {
	n.mu.Lock()
	events, changed, lost := n.events, n.changed, n.lost
	n.events, n.changed, n.lost = nil, false, 0
	n.mu.Unlock()
	for _, e := range events {
		if n.onEvent == nil {
			n.log.Info("mesh event", "kind", e.kind, "subject", e.subject, "detail", e.detail)
			continue
		}
		n.onEvent(e.kind, e.subject, e.detail)
	}
	if lost > 0 {
		n.log.Warn("mesh events were dropped, since their receiver is slow", "count", lost)
	}
	if changed && n.onChange != nil {
		n.onChange()
	}
}

// kick wakes the owner of a one-slot channel; a kick that finds it awake is merged.
func kick(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
