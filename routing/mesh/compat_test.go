package mesh

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// later makes a node one of a later release, as far as its peers can tell: all that it sends goes through a relay that raises
// the versions of its greetings and adds fields, sections and kinds that nobody knows yet; the versions of what comes in are
// lowered by as much, since the later release would compare them with its own.
type later struct {
	node  string
	shift int
}

// kindOfLater is a kind of message that this version doesn't know.
const (
	kindOfLater    = 77
	sectionOfLater = 99
)

// greets shifts the versions of a greeting, and adds a field to one that the node sends.
func (l later) greets(raw []byte, by int) []byte {
	all := map[string]any{}
	if err := json.Unmarshal(raw, &all); err != nil {
		return raw
	}
	for _, field := range []string{"speaks", "oldest"} {
		if v, ok := all[field].(float64); ok {
			all[field] = int(v) + by
		}
	}
	if by > 0 {
		all["of_later"] = map[string]int{"x": 1}
	}
	return encode(all)
}

// sends rewrites one frame that the node sends, the k-th.
func (l later) sends(k int, raw []byte) [][]byte {
	if k == 0 {
		return [][]byte{l.greets(raw, l.shift)}
	}
	out := [][]byte{raw}
	switch m, _ := decodeMessage(raw); m := m.(type) {
	case *soft:
		if m.node == l.node {
			m.sections = append(m.sections, section{sectionOfLater, []byte("of a later version")})
		}
		out[0] = append(appendMessage(nil, m), "later fields"...)
	case *need, *held, *taken, *sums, *bye:
		out[0] = append(bytes.Clone(raw), "later fields"...)
	}
	if k%5 == 1 {
		out = append([][]byte{{kindOfLater, 1, 2, 3}}, out...)
	}
	return out
}

// gets rewrites one frame that the node gets.
func (l later) gets(k int, raw []byte) [][]byte {
	if k == 0 {
		return [][]byte{l.greets(raw, -l.shift)}
	}
	return [][]byte{raw}
}

// relayed passes frames on through edit.
func relayed(src io.ReadCloser, edit func(int, []byte) [][]byte) io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		in := bufio.NewReader(src)
		for k := 0; ; k++ {
			raw, err := readFrame(in, maxFrame)
			if err == nil {
				for _, frame := range edit(k, raw) {
					if _, err = w.Write(append(binary.AppendUvarint(nil, uint64(len(frame))), frame...)); err != nil {
						break
					}
				}
			}
			if err != nil {
				_ = w.CloseWithError(err)
				_ = src.Close()
				return
			}
		}
	}()
	return relayedBody{r, src}
}

type relayedBody struct {
	*io.PipeReader
	src io.Closer
}

func (b relayedBody) Close() error {
	_ = b.PipeReader.Close()
	return b.src.Close()
}

// over relays the links that the node dials.
func (l later) over(next http.RoundTripper) http.RoundTripper {
	return relayTrip(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		r.Body = relayed(r.Body, l.sends)
		resp, err := next.RoundTrip(r)
		if err == nil && resp.StatusCode == http.StatusOK {
			resp.Body = relayed(resp.Body, l.gets)
		}
		return resp, err
	})
}

type relayTrip func(*http.Request) (*http.Response, error)

func (f relayTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// handler relays the links that others dial.
func (l later) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = relayed(r.Body, l.gets)
		next.ServeHTTP(&relayedWriter{ResponseWriter: w, l: l}, r)
	})
}

// relayedWriter rewrites frames; the mesh writes whole ones.
type relayedWriter struct {
	http.ResponseWriter
	l     later
	k     int
	plain bool
}

func (w *relayedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *relayedWriter) WriteHeader(code int) {
	w.plain = code != http.StatusOK
	w.ResponseWriter.WriteHeader(code)
}

func (w *relayedWriter) Write(b []byte) (int, error) {
	if w.plain {
		return w.ResponseWriter.Write(b)
	}
	var out []byte
	for in := bufio.NewReader(bytes.NewReader(b)); ; w.k++ {
		raw, err := readFrame(in, maxFrame)
		if err != nil {
			break
		}
		for _, frame := range w.l.sends(w.k, raw) {
			out = append(binary.AppendUvarint(out, uint64(len(frame))), frame...)
		}
	}
	_, err := w.ResponseWriter.Write(out)
	return len(b), err
}

// startLater runs a node of a later release.
func (f *fleet) startLater(name string, shift int, seeds ...*node) *node {
	l := later{name, shift}
	f.wrap = func(n string, h http.Handler) http.Handler {
		if n != name {
			return h
		}
		return l.handler(h)
	}
	return f.start(name, func(o *Options) {
		inner := *o.Client
		inner.Transport = l.over(o.Client.Transport)
		o.Client = &inner
	}, seeds...)
}

// A node of the next release runs together with those of this one, over real sockets: what they don't know of its words they
// keep, its other messages they skip, and registers go both ways.
func TestNextVersionRunsAlong(t *testing.T) {
	f := newFleet(t)
	a := f.start("a", nil)
	b := f.start("b", nil, a)
	next := f.startLater("next", 1, a)
	whole(t, a, b, next)
	for _, n := range []*node{a, b, next} {
		ack, err := n.Write(t.Context(), "drain/"+n.name, json.RawMessage(`"on"`), 0, WaitAll)
		if err != nil || len(ack.Missing) > 0 || len(ack.Applied) != 3 {
			t.Fatalf("a write at %s: %+v, %v", n.name, ack, err)
		}
	}
	next.Publish(json.RawMessage(`{"load":7}`))
	eventually(t, "its report and the unknown section are held", func() bool {
		a.Mesh.mu.Lock()
		defer a.Mesh.mu.Unlock()
		w := a.core.whole("next")
		if w == nil {
			return false
		}
		last := w.sections[len(w.sections)-1]
		return last.id == sectionOfLater && string(last.body) == "of a later version" && string(a.core.members["next"].report) == `{"load":7}`
	})
	eventually(t, "its unknown messages are skipped and counted", func() bool {
		return gather(t, a)[`landfall_mesh_refused_total{reason="kind"}`] > 3
	})
	for _, n := range []*node{a, b, next} {
		if got := gather(t, n)[`landfall_mesh_refused_total{reason="malformed"}`] + gather(t, n)[`landfall_mesh_refused_total{reason="version"}`]; got > 0 {
			t.Errorf("%s refused %g messages or links", n.name, got)
		}
	}
	if a.saw("mesh.refused next") || next.saw("mesh.refused a") {
		t.Error("adjacent versions refuse each other")
	}
}

// One of the release after that is refused both ways, with a sentence that tells why and what to do.
func TestVersionAfterTheNextIsRefused(t *testing.T) {
	f := newFleet(t)
	a := f.start("a", nil)
	far := f.startLater("far", 2, a)
	for _, n := range []*node{a, far} {
		eventually(t, n.name+" refuses the other", func() bool { return gather(t, n)[`landfall_mesh_refused_total{reason="version"}`] > 0 })
	}
	eventually(t, "both tell of it", func() bool { return a.saw("mesh.refused far") && far.saw("mesh.refused a") })
	a.Mesh.mu.Lock()
	defer a.Mesh.mu.Unlock()
	mb := a.core.members["far"]
	want := fmt.Sprintf("speaks versions %d to %d of the mesh's protocol", protoOldest, protoVersion)
	if mb == nil || mb.link != nil || !strings.Contains(mb.lastErr, want) || !strings.Contains(mb.lastErr, "go through the ones between") {
		t.Errorf("a finds %+v", mb)
	}
}
