package admin

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"
)

// Event is one thing that happened on a node: a verdict, a drain, a purge, a breaker that tripped.
type Event struct {
	Seq     uint64      `json:"seq" doc:"Grows with each event of the node, over restarts too; not always by one."`
	Time    time.Time   `json:"time" doc:"When the node saw it."`
	Node    string      `json:"node,omitempty" doc:"The node that saw it."`
	Kind    string      `json:"kind" doc:"Subject and verb, for instance region.down or drain.set."`
	Subject string      `json:"subject" doc:"What it happened to, for instance a region's name."`
	Detail  string      `json:"detail" doc:"The rest, in words."`
	Attrs   Map[string] `json:"attrs" doc:"Facts by name."`
}

// KindDropped is the kind of the last event that a subscriber gets when it was too slow or one too many. It is not in
// the log.
const KindDropped = "events.dropped"

// Bounds of an event's texts in bytes, of its attributes, and of those who listen.
const (
	maxEventName   = 256
	maxEventDetail = 1024
	maxEventAttrs  = 16
	maxSubscribers = 64
	subscriberLag  = 256 // events that a subscriber may be behind
)

// EventLog keeps the newest events of a node, bounded in number, and tells those who subscribe. Its methods may be called
// by many goroutines at once and never wait for a subscriber.
type EventLog struct {
	now    func() time.Time
	logger *slog.Logger
	size   int

	mu     sync.Mutex
	node   string
	ring   []Event // a ring once it is full; next is where the next event goes
	next   int
	seq    uint64
	subs   map[*subscriber]struct{}
	closed bool
}

// subscriber receives on ch, which holds one event more than subscriberLag: the last, that tells of the drop.
type subscriber struct {
	ch   chan Event
	stop func() bool // takes back the watch on the context
}

// NewEventLog makes a log of the newest capacity events (at least 1), which also writes each to logger. Sequence numbers
// start at the present time in milliseconds, so that those of a restarted node are larger than those before.
func NewEventLog(capacity int, now func() time.Time, logger *slog.Logger) *EventLog {
	return &EventLog{
		now: now, logger: logger, size: max(capacity, 1),
		seq:  uint64(max(now().UnixMilli(), 0)),
		subs: map[*subscriber]struct{}{},
	}
}

// SetNode names the node that the following events are of.
func (l *EventLog) SetNode(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.node = name
}

// Add records an event and logs it. Texts are bounded and stripped of control characters, since they may hold what came
// from the network and are shown in terminals.
func (l *EventLog) Add(kind, subject, detail string, attrs ...slog.Attr) {
	e := Event{
		Time: l.now().UTC(), Kind: clean(kind, maxEventName),
		Subject: clean(subject, maxEventName), Detail: clean(detail, maxEventDetail),
	}
	for _, a := range attrs[:min(len(attrs), maxEventAttrs)] {
		if e.Attrs == nil {
			e.Attrs = make(Map[string], len(attrs))
		}
		e.Attrs[clean(a.Key, maxEventName)] = clean(a.Value.Resolve().String(), maxEventName)
	}
	l.append(&e)
	record := append([]slog.Attr{slog.String("kind", e.Kind), slog.String("subject", e.Subject), slog.String("detail", e.Detail)}, attrs...)
	l.logger.LogAttrs(context.Background(), eventLevel(e.Kind), "event", record...)
}

func (l *EventLog) append(e *Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	e.Seq, e.Node = l.seq, l.node
	if len(l.ring) < l.size {
		l.ring = append(l.ring, *e)
	} else {
		l.ring[l.next] = *e
	}
	l.next = (l.next + 1) % l.size
	for s := range l.subs {
		if len(s.ch) < subscriberLag {
			s.ch <- *e // only Add sends, under the lock, so there is room
			continue
		}
		l.drop(s, fmt.Sprintf("more than %d events behind; ask again with since=%d", subscriberLag, l.seq-1))
	}
}

// eventLevel is warn for what an operator may have to act on.
func eventLevel(kind string) slog.Level {
	_, verb, _ := strings.Cut(kind, ".")
	switch verb {
	case "down", "dead", "unreachable", "failed", "refused", "split", "open", "panic", "expired", "lost":
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// List is the events after since, oldest first: with since 0 the newest limit of the log, otherwise the limit that follow
// since, so that a caller who asks again with the last Seq misses none that is still held.
func (l *EventLog) List(since uint64, limit int) []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.list(since, limit)
}

func (l *EventLog) list(since uint64, limit int) []Event {
	n := len(l.ring)
	first := 0 // index of the oldest
	if n == l.size {
		first = l.next
	}
	out := make([]Event, 0, min(max(limit, 0), n))
	skip := 0
	if since == 0 {
		skip = max(n-limit, 0)
	}
	for i := skip; i < n && len(out) < limit; i++ {
		if e := l.ring[(first+i)%n]; e.Seq > since {
			out = append(out, e)
		}
	}
	return out
}

// Subscribe delivers every event from now on, until ctx is done or the log is closed, which closes the channel. A
// subscriber that falls behind, or that is one too many, gets a final event of KindDropped before the channel closes.
func (l *EventLog) Subscribe(ctx context.Context) <-chan Event {
	_, ch, ok := l.subscribe(ctx, 0, 0)
	if ok {
		return ch
	}
	full := make(chan Event, 1)
	full <- Event{Time: l.now().UTC(), Kind: KindDropped, Subject: "subscriber", Detail: fmt.Sprintf("%d listen already", maxSubscribers)}
	close(full)
	return full
}

// subscribe also lists what happened before, without a gap between the two. It is false when too many listen already.
func (l *EventLog) subscribe(ctx context.Context, since uint64, limit int) ([]Event, <-chan Event, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &subscriber{ch: make(chan Event, subscriberLag+1)}
	if l.closed {
		close(s.ch)
		return nil, s.ch, true
	}
	if len(l.subs) >= maxSubscribers {
		return nil, nil, false
	}
	l.subs[s] = struct{}{}
	s.stop = context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if _, ok := l.subs[s]; ok {
			delete(l.subs, s)
			close(s.ch)
		}
	})
	return l.list(since, limit), s.ch, true
}

// drop tells a subscriber why and lets go of it. The lock is held.
func (l *EventLog) drop(s *subscriber, why string) {
	delete(l.subs, s)
	s.stop()
	// It carries the last number that the subscriber was sent, so that asking again from there misses nothing.
	s.ch <- Event{Seq: l.seq - 1, Time: l.now().UTC(), Node: l.node, Kind: KindDropped, Subject: "subscriber", Detail: why}
	close(s.ch)
}

// Close ends every subscription. Add and List go on working.
func (l *EventLog) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for s := range l.subs {
		delete(l.subs, s)
		s.stop()
		close(s.ch)
	}
}

// clean bounds s to n bytes and replaces control characters by spaces.
func clean(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	return clip(s, n)
}
