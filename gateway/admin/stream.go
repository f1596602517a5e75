package admin

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	defaultEvents = 100
	maxEvents     = 1000
	// streamStall is how long a reader of a stream may take nothing before it is cut off.
	streamStall = 10 * time.Second
)

func eventParameters() []parameter {
	return []parameter{
		{name: "since", kind: "integer", example: "0", doc: "Only events with a larger seq; absent: the newest. A stream may give Last-Event-ID instead."},
		{name: "limit", kind: "integer", example: "100", doc: fmt.Sprintf("At most so many, 1 to %d; %d when absent. In a stream: how many of the past come first; none when absent.", maxEvents, defaultEvents)},
	}
}

// listEvents answers with a list, or with a stream for a reader that accepts one.
func (a *API) listEvents(w http.ResponseWriter, c *call) (int, any, error) {
	query := c.URL.Query()
	since, err := number(query.Get("since"), "since", 0, 1<<63-1, 0)
	if err != nil {
		return 0, nil, err
	}
	limit, err := number(query.Get("limit"), "limit", 1, maxEvents, 0)
	if err != nil {
		return 0, nil, err
	}
	if c.Method == http.MethodGet && strings.Contains(c.Header.Get("Accept"), "text/event-stream") {
		return a.startStream(w, c, since, query.Has("since"), int(limit))
	}
	if limit == 0 {
		limit = defaultEvents
	}
	events := a.events.List(since, int(limit))
	last := since
	if len(events) > 0 {
		last = events[len(events)-1].Seq
	}
	return http.StatusOK, eventList{Events: events, Last: last}, nil
}

// startStream finds where a stream begins. One that resumes gets all that followed, since a limit would leave a gap.
func (a *API) startStream(w http.ResponseWriter, c *call, since uint64, resume bool, limit int) (int, any, error) {
	if resume && limit > 0 {
		return 0, nil, Invalid("limit", "a stream with since sends all that followed; leave limit out")
	}
	if id := c.Header.Get("Last-Event-ID"); id != "" {
		var err error
		if since, err = number(id, "Last-Event-ID", 0, 1<<63-1, 0); err != nil {
			return 0, nil, err
		}
		resume = true
	}
	if resume {
		limit = a.events.size
	}
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	defer context.AfterFunc(a.life, cancel)() // Close ends the stream
	past, live, ok := a.events.subscribe(ctx, since, limit)
	if !ok {
		return 0, nil, Unavailable(fmt.Sprintf("%d readers follow the events already; close one, or poll with since", maxSubscribers))
	}
	a.metrics.streams.Inc()
	defer a.metrics.streams.Dec()
	a.stream(ctx, &eventWriter{w: w, rc: http.NewResponseController(w)}, past, live)
	return 0, nil, nil
}

// stream writes events (https://html.spec.whatwg.org/multipage/server-sent-events.html) until either side ends it. They
// carry no event name, as a browser would then hand each kind only to a listener of its own; the kind is in the data.
func (a *API) stream(ctx context.Context, out *eventWriter, past []Event, live <-chan Event) {
	h := out.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // what proxies on the way understand as: do not hold it back
	out.w.WriteHeader(http.StatusOK)
	out.write("retry: 2000\n\n")
	for _, e := range past {
		out.event(e)
	}
	beat := time.NewTicker(a.heartbeat)
	defer beat.Stop()
	for out.flush() == nil {
		select {
		case e, open := <-live:
			if !open {
				return
			}
			out.event(e)
		case <-beat.C:
			out.write(": alive\n\n")
		case <-ctx.Done():
			return
		}
	}
}

// eventWriter writes the frames of a stream and keeps the first error.
type eventWriter struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	err error
}

func (o *eventWriter) event(e Event) {
	data, err := encode(e)
	if err != nil {
		o.err = err
		return
	}
	o.write(fmt.Sprintf("id: %d\ndata: %s\n", e.Seq, data)) // data ends in a line feed; JSON holds no other
}

// write gives each frame its own deadline in place of the server's WriteTimeout, which would end the stream.
func (o *eventWriter) write(frame string) {
	if o.err != nil {
		return
	}
	// A writer without deadlines (a test's) can not stall either.
	_ = o.rc.SetWriteDeadline(time.Now().Add(streamStall))
	_, o.err = o.w.Write([]byte(frame))
}

func (o *eventWriter) flush() error {
	if o.err == nil {
		o.err = o.rc.Flush()
	}
	return o.err
}

// number reads an unsigned integer in [low, high]; absent is def.
func number(text, name string, low, high, def uint64) (uint64, error) {
	if text == "" {
		return def, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n < low || n > high {
		return 0, Invalid(name, fmt.Sprintf("%q is not a whole number from %d to %d", clip(text, 40), low, high))
	}
	return n, nil
}
