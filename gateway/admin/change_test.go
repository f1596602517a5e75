package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestWaitReachesTheBackend(t *testing.T) {
	left := make(chan time.Duration, 1)
	note := func(ctx context.Context) {
		deadline, _ := ctx.Deadline()
		left <- time.Until(deadline)
	}
	b := &fakeBackend{
		drain: func(ctx context.Context) error { note(ctx); return nil },
		purge: func(ctx context.Context, p PurgeRequest) (PurgeResult, error) { note(ctx); return PurgeResult{}, nil },
	}
	s := serve(t, b, nil)
	for query, want := range map[string]time.Duration{"": defaultWait, "?timeout=30s": 30 * time.Second, "?timeout=1m": time.Minute} {
		s.do(t, request{line: "PUT /v1/nodes/eu-1/drain" + query})
		if got := <-left; got > want || got < want/2 {
			t.Errorf("drain%s: %v", query, got)
		}
		s.do(t, request{line: "POST /v1/purge" + query, body: `{"service":"shop","urls":["https://shop.example.com/"]}`})
		if got := <-left; got > want || got < want/2 {
			t.Errorf("purge%s: %v", query, got)
		}
	}
}

func TestPurgeTellsWhatIsMissing(t *testing.T) {
	var result PurgeResult
	s := serve(t, &fakeBackend{purge: func(context.Context, PurgeRequest) (PurgeResult, error) { return result, nil }}, nil)
	for _, c := range []struct {
		missing []PurgeMissing
		status  int
	}{{nil, http.StatusOK}, {[]PurgeMissing{{Node: "us-1"}}, http.StatusAccepted}} {
		result = PurgeResult{ID: "p", Missing: c.missing}
		resp, body := s.do(t, request{line: "POST /v1/purge", body: `{"service":"shop","urls":["https://shop.example.com/"]}`})
		if resp.StatusCode != c.status || bytes.Contains(body, []byte("null")) {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}
}

func TestChangesAreBounded(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	s := serve(t, &fakeBackend{drain: func(context.Context) error {
		entered <- struct{}{}
		<-leave
		return nil
	}}, nil)
	done := make(chan int, maxChanging)
	for range maxChanging {
		go func() {
			resp, _ := s.do(t, request{line: "PUT /v1/nodes/eu-1/drain"})
			done <- resp.StatusCode
		}()
		<-entered
	}
	resp, _ := s.do(t, request{line: "PUT /v1/nodes/eu-1/drain"})
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one too many: %d", resp.StatusCode)
	}
	if resp, _ = s.do(t, request{line: "GET /v1/status"}); resp.StatusCode != http.StatusOK {
		t.Errorf("a read waits for the changes: %d", resp.StatusCode)
	}
	close(leave)
	for range maxChanging {
		if got := <-done; got != http.StatusOK {
			t.Errorf("%d", got)
		}
	}
}

func TestUndrainOfWhatIsGone(t *testing.T) {
	gone := DrainTarget{DrainNode, "eu-0"}
	b := &fakeBackend{drains: map[DrainTarget]Drain{gone: {DrainTarget: gone}}}
	s := serve(t, b, nil)
	if resp, body := s.do(t, request{line: "PUT /v1/nodes/eu-0/drain"}); resp.StatusCode != http.StatusNotFound {
		t.Errorf("drain: %d %s", resp.StatusCode, body)
	}
	if resp, body := s.do(t, request{line: "DELETE /v1/regions/eu-0/drain"}); resp.StatusCode != http.StatusNotFound {
		t.Errorf("of another kind: %d %s", resp.StatusCode, body)
	}
	if resp, body := s.do(t, request{line: "DELETE /v1/nodes/eu-0/drain"}); resp.StatusCode != http.StatusOK || len(b.drains) != 0 {
		t.Errorf("undrain: %d %s", resp.StatusCode, body)
	}
}

func TestHasHost(t *testing.T) {
	for _, c := range []struct {
		hosts, host string
		want        bool
	}{
		{"shop.example.com", "shop.example.com", true}, {"shop.example.com", "SHOP.example.com.", true},
		{"shop.example.com", "a.shop.example.com", false}, {"*.example.com", "a.b.example.com", true},
		{"*.example.com", "example.com", false}, {"*.example.com", ".example.com", false}, {"*.example.com", "aexample.com", false},
		{"*", "anything", true}, {"a b", "b", true},
	} {
		if got := hasHost(strings.Fields(c.hosts), c.host); got != c.want {
			t.Errorf("%s in %s: %v", c.host, c.hosts, got)
		}
	}
}

func FuzzDecodeDrain(f *testing.F) {
	for _, s := range []string{`{}`, `{"for":"1h","reason":"x","force":true}`, `{"for":"1d","over":"1m"}`, `{"for":"1h"}x`, `{"force":true,"force":false}`, "null", `{"for":null}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		spec, err := decodeDrain(data)
		if err != nil {
			wantProblem(t, err)
			return
		}
		if spec.For != 0 && (spec.For.D() < minDrain || spec.For.D() > maxDrain) || len(spec.Reason) > maxReason {
			t.Errorf("accepted %+v", spec)
		}
		again, err := encode(spec)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decodeDrain(again); err != nil || back != spec {
			t.Errorf("%s reads back as %+v (%v)", again, back, err)
		}
		wantJSON(t, data)
	})
}

func FuzzDecodePurge(f *testing.F) {
	for _, s := range []string{`{}`, `{"service":"shop","urls":["https://shop.example.com/"],"soft":true}`, `{"service":"shop","urls":["//x"]}`,
		`{"service":"shop","urls":["http://[::1]:80/%2e?q#f"]}`, `{"keys":[1],"all":{}}`, `{"urls":[null]}`, `{"\u0075rls":["http://a"],"service":"\ud800"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := decodePurge(data)
		if err != nil {
			wantProblem(t, err)
			return
		}
		if p.Service == "" || len(p.URLs) == 0 || len(p.URLs) > maxPurgeURL {
			t.Errorf("accepted %+v", p)
		}
		for _, s := range p.URLs {
			if u, err := parseTarget(s); err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "" || len(s) > MaxURL {
				t.Errorf("accepted %q (%v)", s, err)
			}
		}
		wantJSON(t, data)
	})
}

// wantProblem holds that a refusal is a 400 that says something.
func wantProblem(t *testing.T, err error) {
	t.Helper()
	var p *Problem
	if !errors.As(err, &p) || p.Status != http.StatusBadRequest || p.Detail == "" || len(p.Errors) > 2*maxKnown {
		t.Errorf("refused with %v", err)
	}
}

// wantJSON holds that what was accepted is JSON by another reader's account too.
func wantJSON(t *testing.T, data []byte) {
	t.Helper()
	if data != nil && !json.Valid(data) {
		t.Errorf("accepted what is no JSON: %q", data)
	}
}

func BenchmarkDecodePurge(b *testing.B) {
	var urls []string
	for i := range 100 {
		urls = append(urls, fmt.Sprintf("https://shop.example.com/product/%d?colour=red", i))
	}
	data, err := encode(PurgeRequest{Service: "shop", URLs: urls})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodePurge(data); err != nil {
			b.Fatal(err)
		}
	}
}
