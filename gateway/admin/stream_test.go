package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// open starts an event stream; the caller reads its lines.
func (s *served) open(t *testing.T, path string, headers ...string) (*http.Response, *bufio.Reader) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp, bufio.NewReader(resp.Body)
}

// frame reads up to an empty line.
func frame(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	var out strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream ended after %q: %v", out.String(), err)
		}
		if line == "\n" {
			return out.String()
		}
		out.WriteString(line)
	}
}

func eventOf(t *testing.T, frame string) Event {
	t.Helper()
	var e Event
	id, data, _ := strings.Cut(strings.TrimSuffix(frame, "\n"), "\ndata: ")
	if err := json.Unmarshal([]byte(data), &e); err != nil || id != fmt.Sprintf("id: %d", e.Seq) {
		t.Fatalf("frame %q: %v", frame, err)
	}
	return e
}

func TestStreamCarriesPastAndPresent(t *testing.T) {
	s := serve(t, &fakeBackend{}, nil)
	for i := range 4 {
		s.log.Add("drain.set", "eu-west", fmt.Sprint(i))
	}
	second := s.log.List(0, 3)[0].Seq
	cases := []struct {
		path    string
		headers []string
		want    string // of the past
	}{
		{"/v1/events", nil, ""},
		{"/v1/events?limit=1", nil, "3"},
		{"/v1/events?since=0", nil, "0 1 2 3"},
		{fmt.Sprintf("/v1/events?since=%d", second), nil, "2 3"},
		{"/v1/events?limit=1", []string{fmt.Sprintf("Last-Event-ID: %d", second)}, "2 3"},
	}
	for _, c := range cases {
		resp, r := s.open(t, c.path, c.headers...)
		if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
			t.Fatalf("%s: %s", c.path, got)
		}
		if got := frame(t, r); got != "retry: 2000\n" {
			t.Errorf("%s: begins with %q", c.path, got)
		}
		var past []Event
		for range strings.Fields(c.want) {
			past = append(past, eventOf(t, frame(t, r)))
		}
		if got := details(past); got != c.want {
			t.Errorf("%s: past %q, want %q", c.path, got, c.want)
		}
		resp.Body.Close()
	}
	_, r := s.open(t, "/v1/events")
	frame(t, r)
	s.log.Add("drain.ended", "eu-west", "now")
	if e := eventOf(t, frame(t, r)); e.Kind != "drain.ended" || e.Detail != "now" {
		t.Errorf("%+v", e)
	}
}

func TestIdleStreamBeatsAndCloseEndsIt(t *testing.T) {
	s := serve(t, &fakeBackend{}, func(o *Options) { o.Heartbeat = time.Millisecond })
	_, r := s.open(t, "/v1/events")
	frame(t, r)
	for range 3 {
		if got := frame(t, r); got != ": alive\n" {
			t.Errorf("%q", got)
		}
	}
	s.API.Close()
	for {
		if _, err := r.ReadString('\n'); err != nil {
			break
		}
	}
}

func TestStreamOutlivesTheServersWriteTimeout(t *testing.T) {
	api := New(Options{Backend: &fakeBackend{}, Events: NewEventLog(4, noon, discard()), Heartbeat: 20 * time.Millisecond})
	s := serveWith(t, api, func(server *http.Server) { server.WriteTimeout = 30 * time.Millisecond })
	_, r := s.open(t, "/v1/events")
	for range 6 { // retry and five beats: more than the timeout
		frame(t, r)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	s := serve(t, &fakeBackend{}, nil)
	for range maxSubscribers {
		s.log.Subscribe(t.Context())
	}
	resp, _ := s.open(t, "/v1/events")
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%d", resp.StatusCode)
	}
}

func TestFollow(t *testing.T) {
	s := serve(t, &fakeBackend{}, nil)
	c := NewClient(s.url, "", nil)
	defer c.Close()
	s.log.Add("region.down", "eu-west", "first")
	s.log.Add("region.up", "eu-west", "second")
	since := s.log.List(0, 2)[0].Seq
	enough := errors.New("enough")
	var got []Event
	err := c.Follow(t.Context(), since, func(e Event) error {
		got = append(got, e)
		if len(got) == 1 {
			s.log.Add("region.down", "us-east", "third")
			return nil
		}
		return enough
	})
	if !errors.Is(err, enough) || details(got) != "second third" {
		t.Errorf("%v, %q", err, details(got))
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = c.Follow(ctx, since, func(Event) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	err = c.Follow(t.Context(), since, func(Event) error { s.API.Close(); return nil })
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("ended by the node: %v", err)
	}
}

func FuzzReadEvents(f *testing.F) {
	f.Add("retry: 2000\n\nid: 1\ndata: {\"seq\":1,\"kind\":\"region.down\"}\n\n: alive\n\n")
	f.Add("data: {\ndata: \"seq\":2}\n\n")
	f.Add("data: {}\n\ndata: nonsense\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		n := 0
		err := readEvents(strings.NewReader(text), func(e Event) error {
			n++
			if _, err := encode(e); err != nil {
				t.Errorf("an accepted event can not be written: %v", err)
			}
			return nil
		})
		var broken *brokenStream
		if !errors.As(err, &broken) { // a stream never ends well by itself
			t.Errorf("ended with %v", err)
		}
		if most := strings.Count(text, "data:"); n > most {
			t.Errorf("%d events of %d data lines", n, most)
		}
	})
}
