package drill

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"landfall/cache/replay"
	"landfall/deploy/lab"
)

// cachingNode is a node that keeps everything that is not personal, compressed, and asks its origin for the rest.
type cachingNode struct {
	origin string
	broken bool // gives another page's body
	never  bool // keeps nothing

	mu   sync.Mutex
	kept map[string][]byte
}

func (n *cachingNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	body, hit := n.kept[r.URL.Path]
	if !hit {
		resp, err := http.Get(n.origin + r.URL.Path)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		var b bytes.Buffer
		_, _ = b.ReadFrom(resp.Body)
		_ = resp.Body.Close()
		if body = b.Bytes(); !n.never && !strings.Contains(r.URL.Path, "/account/") {
			n.kept[r.URL.Path] = body
		}
	}
	w.Header().Set("Cache-Status", "landfall; fwd=uri-miss; stored")
	if hit {
		w.Header().Set("Cache-Status", "landfall; hit; ttl=3")
	}
	switch {
	case n.broken:
		fmt.Fprint(w, "another page")
	case strings.Contains(r.Header.Get("Accept-Encoding"), "gzip"):
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = z.Write(body)
		_ = z.Close()
	default:
		_, _ = w.Write(body)
	}
}

// countingOrigin is the lab's origin as far as the drill knows it.
func countingOrigin(t *testing.T) string {
	var mix replay.Origin
	var asked atomic.Int64
	mux := http.NewServeMux()
	mux.Handle(lab.ReplayPath+"/", http.StripPrefix(lab.ReplayPath, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.Add(1); mix.ServeHTTP(w, r) })))
	mux.HandleFunc("/replayed", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]int64{"requests": asked.Load()})
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

// The figures are what happened, by the origin's count and the client's; and each promise that does not hold is told.
func TestOffloadFigures(t *testing.T) {
	for name, n := range map[string]*cachingNode{"good": {}, "keeps nothing": {never: true}, "wrong": {broken: true}} {
		t.Run(name, func(t *testing.T) {
			n.origin, n.kept = countingOrigin(t), map[string][]byte{}
			node := httptest.NewServer(n)
			t.Cleanup(node.Close)
			t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
			m := &mix{nodes: []string{node.URL}, origins: []string{n.origin}, host: lab.Host, prefix: lab.ReplayPath, seed: 1, most: 300}
			out, err := m.run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			n.mu.Lock()
			defer n.mu.Unlock()
			misses := out.Requests - int64(out.HitRate*float64(out.Requests)+0.5)
			if out.Requests != 300 || out.OriginRequests != misses || out.Failed != 0 || n.never != (out.HitRate == 0) || n.broken != (out.Wrong > 0) {
				t.Errorf("%+v, %d kept", out, len(n.kept))
			}
			if !n.broken && (out.BytesSaved < 0.2 || out.BytesSaved > 0.9) {
				t.Errorf("%.2f of the bytes were saved", out.BytesSaved)
			}
			s := &session{report: &Report{Offload: out}}
			s.judgeOffload(out)
			if told := strings.Join(s.report.Broken, "\n"); n.never != strings.Contains(told, "spared: 0.0%") || n.broken != strings.Contains(told, "bodies were wrong") {
				t.Errorf("told: %s", told)
			}
		})
	}
	s := &session{report: &Report{Offload: &OffloadReport{Requests: 20_000, HitRate: .86, Offload: .85, BytesSaved: .41}}}
	if s.judgeOffload(s.report.Offload); len(s.report.Broken) > 0 {
		t.Errorf("told: %q", s.report.Broken)
	}
	s.report.judge()
	var text bytes.Buffer
	if s.report.Print(&text); !strings.Contains(text.String(), "PASS: 86.0% hits, 85.0% fewer requests") {
		t.Errorf("%s", &text)
	}
}

// A lab that is too old, or gone, is an error, not a figure.
func TestOffloadNeedsTheCount(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	m := &mix{nodes: []string{s.URL}, origins: []string{s.URL}, most: 10}
	if _, err := m.run(t.Context()); err == nil || !strings.Contains(err.Error(), "start the lab anew") {
		t.Errorf("%v", err)
	}
}
