package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// request is one line of a table: "METHOD path", headers as "Name: value", and a body.
type request struct {
	name    string
	line    string
	headers []string
	body    string
}

func (s *served) do(t testing.TB, q request) (*http.Response, []byte) {
	t.Helper()
	method, path, _ := strings.Cut(q.line, " ")
	var body io.Reader
	if q.body != "" {
		body = strings.NewReader(q.body)
	}
	req, err := http.NewRequest(method, s.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if q.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range q.headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Set(name, value)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, data
}

// problemCases are requests that go wrong, each in its own way.
func problemCases() []request {
	return []request{
		{name: "unknown path", line: "GET /v1/region"},
		{name: "unknown path below a known one", line: "GET /v1/regions/eu-west/drian"},
		{name: "method", line: "POST /v1/status", body: "{}"},
		{name: "method of a drain", line: "GET /v1/regions/eu-west/drain"},
		{name: "unknown service", line: "GET /v1/services/shoop/pools"},
		{name: "unknown region", line: "PUT /v1/regions/eu-wset/drain"},
		{name: "unknown node", line: "DELETE /v1/nodes/eu-9/drain"},
		{name: "unknown purge", line: "GET /v1/purges/p9"},
		{name: "unknown parameter", line: "GET /v1/explain?uri=shop.example.com"},
		{name: "parameter twice", line: "GET /v1/explain?url=a.example&url=b.example"},
		{name: "unreadable query", line: "GET /v1/status?%zz"},
		{name: "explain: no address", line: "GET /v1/explain?url=shop.example.com&client=localhost"},
		{name: "explain: no host", line: "GET /v1/explain?url=https:///x"},
		{name: "explain: other scheme", line: "GET /v1/explain?url=ftp://shop.example.com/"},
		{name: "explain: user name", line: "GET /v1/explain?url=https://me@shop.example.com/"},
		{name: "explain: unknown host", line: "GET /v1/explain?url=shop.exmaple.com"},
		{name: "backend fails", line: "GET /v1/explain?url=broken.example"},
		{name: "backend panics", line: "GET /v1/explain?url=panic.example"},
		{name: "backend is late", line: "GET /v1/explain?url=late.example"},
		{name: "body where none is taken", line: "DELETE /v1/regions/eu-west/drain", body: `{"force":true}`},
		{name: "drain: refused", line: "PUT /v1/regions/us-east/drain"},
		{name: "drain: over out of range", line: "PUT /v1/regions/eu-west/drain", body: `{"over":"10d","forse":true}`},
		{name: "drain: wrong kinds", line: "PUT /v1/regions/eu-west/drain", body: `{"for":3600,"reason":["x"],"force":null}`},
		{name: "drain: unreadable duration", line: "PUT /v1/regions/eu-west/drain", body: `{"for":"an hour"}`},
		{name: "drain: duration out of range", line: "PUT /v1/regions/eu-west/drain", body: `{"for":"-1h"}`},
		{name: "drain: control characters", line: "PUT /v1/regions/eu-west/drain", body: `{"reason":"a\u001b[2Jb"}`},
		{name: "drain: wait out of range", line: "PUT /v1/regions/eu-west/drain?timeout=1h"},
		{name: "drain: wait unreadable", line: "PUT /v1/regions/eu-west/drain?timeout=soon"},
		{name: "purge: no body", line: "POST /v1/purge"},
		{name: "purge: nothing in it", line: "POST /v1/purge", body: `{}`},
		{name: "purge: all and more", line: "POST /v1/purge", body: `{"service":"shop","keys":["sku-1"],"all":true}`},
		{name: "purge: bad prefix, host and key", line: "POST /v1/purge", body: `{"service":"shop","keys":["a\u0000"],"prefixes":["/x","https://shop.example.com/?q"],"hosts":["a/b"]}`},
		{name: "purge: prefix of another service", line: "POST /v1/purge", body: `{"service":"shop","prefixes":["https://www.example.com/x"]}`},
		{name: "purge: unknown wait", line: "POST /v1/purge?wait=some", body: `{"service":"shop","urls":["https://shop.example.com/"]}`},
		{name: "purge: unknown service", line: "POST /v1/purge", body: `{"service":"shpo","urls":["https://shop.example.com/"]}`},
		{name: "purge: bad URLs", line: "POST /v1/purge", body: `{"service":"shop","urls":["/cart","https://shop.example.com/#top",7,"https://www.example.com/"]}`},
		{name: "purge: host of another service", line: "POST /v1/purge", body: `{"service":"shop","urls":["https://a.shop.example.com/x","https://www.example.com/"]}`},
		{name: "purge: no URLs", line: "POST /v1/purge", body: `{"service":"shop","urls":[]}`},
		{name: "body: not an object", line: "POST /v1/purge", body: `["shop"]`},
		{name: "body: broken off", line: "POST /v1/purge", body: `{"service":"shop",`},
		{name: "body: syntax", line: "POST /v1/purge", body: `{"service":shop}`},
		{name: "body: member twice", line: "POST /v1/purge", body: `{"service":"shop","service":"other","urls":["https://shop.example.com/"]}`},
		{name: "body: other case", line: "POST /v1/purge", body: `{"Service":"shop","urls":["https://shop.example.com/"]}`},
		{name: "body: trailing data", line: "POST /v1/purge", body: `{"service":"shop","urls":["https://shop.example.com/"]} {}`},
		{name: "body: not UTF-8", line: "POST /v1/purge", body: "{\"service\":\"sh\xffp\"}"},
		{name: "body: other type", line: "POST /v1/purge", headers: []string{"Content-Type: application/x-www-form-urlencoded"}, body: `service=shop`},
		{name: "body: compressed", line: "POST /v1/purge", headers: []string{"Content-Encoding: gzip"}, body: `{}`},
		{name: "body: too large", line: "POST /v1/purge", body: `{"service":"` + strings.Repeat("x", maxBody) + `"}`},
		{name: "events: limit", line: "GET /v1/events?limit=5000"},
		{name: "events: since", line: "GET /v1/events?since=-1"},
		{name: "events: resumed stream with a limit", line: "GET /v1/events?since=1&limit=1", headers: []string{"Accept: text/event-stream"}},
		{name: "not ready", line: "GET /readyz"},
		{name: "profiles are off", line: "GET /debug/pprof/heap"},
		{name: "rebound host", line: "GET /v1/status", headers: []string{"Host: evil.example:9901"}},
		{name: "another site's page", line: "PUT /v1/regions/eu-west/drain", headers: []string{"Sec-Fetch-Site: cross-site", "Origin: https://evil.example"}},
		{name: "no tokens in the config", line: "GET /v1/status", headers: []string{remoteHeader + ": yes"}},
	}
}

// TestProblems holds every text that an operator may get, so that they can be read and reviewed in one place.
func TestProblems(t *testing.T) {
	backend := &fakeBackend{ready: []string{"registers of a peer", "certificate of shop.example.com"}}
	backend.explain = func(url string, _ netip.Addr) (Explanation, error) {
		switch {
		case strings.Contains(url, "broken"):
			return Explanation{}, errors.New("the routing snapshot is not there yet; wait until the node is ready")
		case strings.Contains(url, "panic"):
			panic("a bug")
		case strings.Contains(url, "late"):
			return Explanation{}, fmt.Errorf("waiting for the snapshot: %w", context.DeadlineExceeded)
		}
		return Explanation{}, NotFound("service host", "shop.exmaple.com", []string{"shop.example.com"})
	}
	s := serve(t, backend, nil)
	var out bytes.Buffer
	for _, q := range problemCases() {
		resp, body := s.do(t, q)
		fmt.Fprintf(&out, "## %s\n%s\n", q.name, q.line)
		if q.body != "" && len(q.body) < 200 {
			fmt.Fprintf(&out, "%q\n", q.body)
		}
		fmt.Fprintf(&out, "→ %d\n", resp.StatusCode)
		for _, name := range []string{"Allow", "Accept", "WWW-Authenticate", "Retry-After"} {
			if v := resp.Header.Get(name); v != "" {
				fmt.Fprintf(&out, "%s: %s\n", name, v)
			}
		}
		if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("%s: Content-Type %q", q.name, got)
		}
		var p Problem
		if err := json.Unmarshal(body, &p); err != nil || p.Status != resp.StatusCode {
			t.Errorf("%s: %s (%v)", q.name, body, err)
		}
		fmt.Fprintf(&out, "%s\n", body)
	}
	golden(t, "problems.txt", out.Bytes())
}

func TestMuxNeverAnswersByItself(t *testing.T) {
	s := serve(t, &fakeBackend{}, nil)
	for _, line := range []string{"BREW /v1/status", "TRACE /", "GET /v1/", "GET /v1", "GET /v2/status", "PUT /healthz", "GET /v1/services//pools"} {
		resp, body := s.do(t, request{line: line})
		if resp.StatusCode >= 400 && resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s", line, resp.StatusCode, body)
		}
	}
	resp, _ := s.do(t, request{line: "OPTIONS /v1/nodes/eu-1/drain"})
	if got := resp.Header.Get("Allow"); resp.StatusCode != http.StatusNoContent || got != "DELETE, OPTIONS, PUT" {
		t.Errorf("OPTIONS: %d, Allow %q", resp.StatusCode, got)
	}
	resp, body := s.do(t, request{line: "HEAD /v1/status"})
	if resp.StatusCode != http.StatusOK || len(body) != 0 || resp.ContentLength <= 0 {
		t.Errorf("HEAD: %d, %d bytes, length %d", resp.StatusCode, len(body), resp.ContentLength)
	}
}

func TestAnswerThatJSONDoesNotHave(t *testing.T) {
	nan := 0.0
	nan /= nan
	s := serve(t, &fakeBackend{explain: func(string, netip.Addr) (Explanation, error) {
		return Explanation{Regions: []ExplainedRegion{{DistanceKM: &nan}}}, nil
	}}, nil)
	resp, body := s.do(t, request{line: "GET /v1/explain?url=shop.example.com"})
	if resp.StatusCode != http.StatusInternalServerError || !bytes.Contains(body, []byte("NaN")) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}
