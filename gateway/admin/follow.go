package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
)

// maxFrameLine bounds a line of an event stream in bytes. An Event is a few KiB at most.
const maxFrameLine = 64 << 10

// ErrDropped says that the node dropped this reader, which was too slow. Following again from the last event's Seq
// misses only what the node holds no longer.
var ErrDropped = errors.New("the node dropped this reader of its events, which was too slow")

// Follow calls each for every event from now on, or with a since greater than 0 for every one after it that the node
// still holds, until each returns an error, which it returns, or the context ends. A stream that the other side ended
// is ErrUnreachable; the caller may follow again from the last Seq that it saw.
func (c *Client) Follow(ctx context.Context, since uint64, each func(Event) error) error {
	query := url.Values{}
	if since > 0 {
		query.Set("since", strconv.FormatUint(since, 10))
	}
	resp, err := c.do(ctx, "GET", "/v1/events", query, nil, "text/event-stream")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	err = readEvents(resp.Body, func(e Event) error {
		if e.Kind == KindDropped {
			return fmt.Errorf("%w: %s", ErrDropped, e.Detail)
		}
		return each(e)
	})
	var broken *brokenStream
	switch {
	case !errors.As(err, &broken):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return c.unreachable(ctx, broken.cause)
}

// brokenStream is an error of the stream, and not of whom its events were handed to.
type brokenStream struct{ cause error }

func (b *brokenStream) Error() string { return b.cause.Error() }

// readEvents reads an event stream (https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream)
// whose data are Events. Comments, ids and reconnection times are passed over: each Event carries its Seq. It ends with
// the first error of each, or with a brokenStream.
func readEvents(r io.Reader, each func(Event) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 4096), maxFrameLine)
	var data []byte
	for lines.Scan() {
		line := lines.Bytes()
		if value, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			if len(data)+len(value) > maxFrameLine {
				return &brokenStream{fmt.Errorf("an event is longer than %d bytes", maxFrameLine)}
			}
			data = append(append(data, bytes.TrimPrefix(value, []byte(" "))...), '\n')
		}
		if len(line) > 0 || len(data) == 0 {
			continue
		}
		var e Event
		if err := json.Unmarshal(data, &e); err != nil {
			return &brokenStream{fmt.Errorf("an event is not JSON: %w", err)}
		}
		if err := each(e); err != nil {
			return err
		}
		data = data[:0]
	}
	if err := lines.Err(); err != nil {
		return &brokenStream{err}
	}
	return &brokenStream{io.ErrUnexpectedEOF}
}
