package admin

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

func details(events []Event) string {
	var out []string
	for _, e := range events {
		out = append(out, e.Detail)
	}
	return strings.Join(out, " ")
}

func TestEventListKeepsTheNewest(t *testing.T) {
	l := NewEventLog(4, noon, discard())
	if got := l.List(0, 10); len(got) != 0 {
		t.Fatalf("empty: %v", got)
	}
	for i := range 6 {
		l.Add("region.down", "eu-west", fmt.Sprint(i))
	}
	all := l.List(0, 10)
	first := all[0].Seq
	cases := []struct {
		since uint64
		limit int
		want  string
	}{
		{0, 10, "2 3 4 5"},
		{0, 2, "4 5"},
		{0, 0, ""},
		{first, 10, "3 4 5"},
		{first, 1, "3"},
		{first - 2, 3, "2 3 4"},
		{first + 3, 10, ""},
		{first + 99, 10, ""},
	}
	for _, c := range cases {
		if got := details(l.List(c.since, c.limit)); got != c.want {
			t.Errorf("List(%d, %d) = %q, want %q", c.since, c.limit, got, c.want)
		}
	}
}

func TestSequenceGrowsOverARestart(t *testing.T) {
	now := noon()
	clock := func() time.Time { return now }
	before := NewEventLog(1, clock, discard())
	before.Add("node.joined", "eu-1", "")
	now = now.Add(time.Second)
	after := NewEventLog(1, clock, discard())
	after.Add("node.joined", "eu-1", "")
	if b, a := before.List(0, 1)[0].Seq, after.List(0, 1)[0].Seq; a <= b {
		t.Errorf("%d, after the restart %d", b, a)
	}
}

func TestEventIsCleanedAndLogged(t *testing.T) {
	var logged bytes.Buffer
	l := NewEventLog(4, noon, slog.New(slog.NewTextHandler(&logged, nil)))
	l.SetNode("eu-1")
	l.Add("origin.ejected", "http://10.0.0.1\x1b[2J", strings.Repeat("é", 4096)+"\n", slog.Int("errors", 5))
	l.Add("region.down", "eu-west", "")
	e := l.List(0, 2)[0]
	if e.Node != "eu-1" || e.Subject != "http://10.0.0.1 [2J" || e.Attrs["errors"] != "5" || !e.Time.Equal(noon()) {
		t.Errorf("%+v", e)
	}
	if len(e.Detail) > maxEventDetail+len("…") || strings.ContainsAny(e.Detail, "\n\uFFFD") {
		t.Errorf("detail of %d bytes", len(e.Detail))
	}
	if got := logged.String(); !strings.Contains(got, "level=INFO msg=event kind=origin.ejected") || !strings.Contains(got, "errors=5") ||
		!strings.Contains(got, "level=WARN msg=event kind=region.down") {
		t.Errorf("logged: %s", got)
	}
}

func TestSubscribersGetEveryEvent(t *testing.T) {
	l := NewEventLog(4, noon, discard())
	ctx, cancel := context.WithCancel(t.Context())
	ch := l.Subscribe(ctx)
	var all sync.WaitGroup
	for i := range subscriberLag {
		all.Go(func() { l.Add("drain.set", "eu-west", fmt.Sprint(i)) })
	}
	all.Wait()
	cancel()
	var last uint64
	n := 0
	for e := range ch { // closed by the context's end
		if e.Seq <= last {
			t.Errorf("%d after %d", e.Seq, last)
		}
		last = e.Seq
		n++
	}
	if n != subscriberLag {
		t.Errorf("%d events", n)
	}
}

func TestSlowSubscriberIsToldAndDropped(t *testing.T) {
	l := NewEventLog(4, noon, discard())
	ch := l.Subscribe(t.Context())
	for i := range 2 * subscriberLag {
		l.Add("drain.set", "eu-west", fmt.Sprint(i))
	}
	var got []Event
	for e := range ch {
		got = append(got, e)
	}
	last := got[len(got)-1]
	if len(got) != subscriberLag+1 || last.Kind != KindDropped || last.Seq != got[len(got)-2].Seq {
		t.Errorf("%d events, the last %+v", len(got), last)
	}
}

func TestSubscribersAreBounded(t *testing.T) {
	l := NewEventLog(4, noon, discard())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range maxSubscribers {
		l.Subscribe(ctx)
	}
	ch := l.Subscribe(ctx)
	if e := <-ch; e.Kind != KindDropped {
		t.Errorf("%+v", e)
	}
	if _, open := <-ch; open {
		t.Error("the channel of one too many is open")
	}
	l.Close()
	l.Close()
	if _, open := <-l.Subscribe(ctx); open {
		t.Error("a closed log has subscribers")
	}
	l.Add("drain.set", "eu-west", "after")
	if got := details(l.List(0, 1)); got != "after" {
		t.Errorf("a closed log lists %q", got)
	}
}

func BenchmarkEventAdd(b *testing.B) {
	l := NewEventLog(1024, time.Now, discard())
	for range 8 {
		ch := l.Subscribe(b.Context())
		go func() {
			for range ch {
			}
		}()
	}
	b.ReportAllocs()
	for b.Loop() {
		l.Add("breaker.open", "http://10.1.1.1:8080", "50% of 20 requests failed")
	}
}
