package compress

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newTest(t testing.TB, maxEncoders int) (*Compressor, *Metrics) {
	t.Helper()
	m := NewMetrics(prometheus.NewRegistry())
	return New(Options{
		Algorithms: []string{"zstd", "br", "gzip"}, MinSize: 512, MaxEncoders: maxEncoders, Metrics: m,
		Types: []string{"text/*", "application/json"},
	}), m
}

func counter(t testing.TB, vec *prometheus.CounterVec, label string) float64 {
	t.Helper()
	var out dto.Metric
	if err := vec.WithLabelValues(label).Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.GetCounter().GetValue()
}

// response answers method with the header fields (name, value, name, value…). A nil body is empty.
func response(method string, status int, body []byte, fields ...string) *http.Response {
	h := http.Header{}
	for i := 0; i < len(fields); i += 2 {
		h.Set(fields[i], fields[i+1])
	}
	if h.Get("Content-Length") == "" && len(body) > 0 {
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	resp := &http.Response{
		StatusCode: status, Header: h, Body: http.NoBody, ContentLength: int64(len(body)),
		Request: &http.Request{Method: method, Header: http.Header{}},
	}
	if method != http.MethodHead && len(body) > 0 {
		resp.Body = io.NopCloser(bytes.NewReader(body))
	}
	return resp
}

func decoder(t testing.TB, coding string, r io.Reader) io.Reader {
	t.Helper()
	switch coding {
	case "gzip":
		z, err := gzip.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		return z
	case "zstd":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(z.Close)
		return z
	case "br":
		return brotli.NewReader(r)
	}
	return r
}

func decode(t testing.TB, coding string, r io.Reader) []byte {
	t.Helper()
	plain, err := io.ReadAll(decoder(t, coding, r))
	if err != nil {
		t.Fatalf("decode %s: %v", coding, err)
	}
	return plain
}

func TestResponseCompresses(t *testing.T) {
	for _, coding := range []string{"zstd", "br", "gzip"} {
		for _, known := range []bool{true, false} {
			for _, size := range []int{0, 600, 100 << 10, 1 << 20} {
				if known && size == 0 {
					continue
				}
				c, m := newTest(t, 0)
				body := sample(size)
				resp := response("GET", 200, body, "Content-Type", "text/html; charset=utf-8", "Etag", `"x"`,
					"Accept-Ranges", "bytes", "Content-Md5", "m", "Repr-Digest", "d", "Content-Digest", "d", "Vary", "Cookie")
				if !known {
					resp.ContentLength = -1
					resp.Header.Del("Content-Length")
				}
				resp = c.Response(resp, coding)
				h := resp.Header
				if h.Get("Content-Encoding") != coding || h.Get("Etag") != `"x-`+coding+`"` || resp.ContentLength != -1 {
					t.Fatalf("%s: header %v, length %d", coding, h, resp.ContentLength)
				}
				for _, gone := range []string{"Content-Length", "Accept-Ranges", "Content-Md5", "Repr-Digest", "Content-Digest"} {
					if h.Get(gone) != "" {
						t.Errorf("%s: %s is still there", coding, gone)
					}
				}
				if vary := strings.Join(h["Vary"], ", "); vary != "Cookie, Accept-Encoding" {
					t.Errorf("Vary: %s", vary)
				}
				if got := decode(t, coding, resp.Body); !bytes.Equal(got, body) {
					t.Fatalf("%s: %d bytes came back as %d", coding, len(body), len(got))
				}
				if err := resp.Body.Close(); err != nil {
					t.Error(err)
				}
				if n := counter(t, m.responses, coding); n != 1 {
					t.Errorf("responses: %v", n)
				}
				if saved := counter(t, m.saved, coding); size > 0 && (saved <= 0 || saved >= float64(size)) {
					t.Errorf("%s: saved %v of %d bytes", coding, saved, size)
				}
				if c.live.Load() != 0 {
					t.Errorf("%d encoders are still taken", c.live.Load())
				}
			}
		}
	}
}

func TestResponseLeavesAlone(t *testing.T) {
	big := sample(4 << 10)
	tests := []struct {
		name   string
		resp   *http.Response
		coding string
		vary   bool
	}{
		{"identity wanted", response("GET", 200, big, "Content-Type", "text/css"), "", true},
		{"coding that we do not offer", response("GET", 200, big, "Content-Type", "text/css"), "deflate", true},
		{"type", response("GET", 200, big, "Content-Type", "image/png"), "gzip", false},
		{"no type", response("GET", 200, big), "gzip", false},
		{"small", response("GET", 200, big[:511], "Content-Type", "text/css"), "gzip", false},
		{"empty", response("GET", 200, nil, "Content-Type", "text/css"), "gzip", false},
		{"encoded by the origin", response("GET", 200, big, "Content-Type", "text/css", "Content-Encoding", "gzip"), "gzip", true},
		{"no-transform", response("GET", 200, big, "Content-Type", "text/css", "Cache-Control", "public, No-Transform"), "gzip", false},
		{"events", response("GET", 200, big, "Content-Type", "text/event-stream"), "gzip", false},
		{"grpc", response("GET", 200, big, "Content-Type", "application/grpc+proto"), "gzip", false},
		{"partial", response("GET", 206, big, "Content-Type", "text/css", "Content-Range", "bytes 0-4095/9999"), "gzip", false},
		{"range not satisfiable", response("GET", 416, big, "Content-Type", "text/css", "Content-Range", "bytes */9"), "gzip", false},
		{"no content", response("GET", 204, nil, "Content-Type", "text/css"), "gzip", false},
		{"upgrade", response("GET", 101, nil, "Content-Type", "text/css"), "gzip", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := newTest(t, 0)
			body, coded := tt.resp.Body, tt.resp.Header.Get("Content-Encoding")
			resp := c.Response(tt.resp, tt.coding)
			if resp.Body != body || resp.Header.Get("Content-Encoding") != coded {
				t.Error("it was compressed")
			}
			if got := resp.Header.Get("Vary") == "Accept-Encoding"; got != tt.vary {
				t.Errorf("Vary: %q, want it %v", resp.Header.Get("Vary"), tt.vary)
			}
		})
	}
}

func TestResponseVaryIsNotRepeated(t *testing.T) {
	c, _ := newTest(t, 0)
	for _, vary := range []string{"Cookie, accept-encoding", "*"} {
		resp := c.Response(response("GET", 200, sample(600), "Content-Type", "text/css", "Vary", vary), "")
		if got := resp.Header["Vary"]; len(got) != 1 || got[0] != vary {
			t.Errorf("Vary %q became %q", vary, got)
		}
	}
}

func TestResponseToHead(t *testing.T) {
	c, _ := newTest(t, 0)
	resp := response("HEAD", 200, sample(4096), "Content-Type", "text/css", "Etag", `W/"x"`)
	resp = c.Response(resp, "br")
	if resp.Header.Get("Content-Encoding") != "br" || resp.Header.Get("Etag") != `W/"x-br"` ||
		resp.Header.Get("Content-Length") != "" || resp.Body != http.NoBody {
		t.Errorf("HEAD: %v, length %d", resp.Header, resp.ContentLength)
	}
	resp = c.Response(response("HEAD", 200, sample(100), "Content-Type", "text/css"), "br")
	if resp.Header.Get("Content-Encoding") != "" || resp.Header.Get("Content-Length") != "100" {
		t.Errorf("HEAD of a small body: %v", resp.Header)
	}
	if resp = c.Response(response("HEAD", 200, nil, "Content-Type", "text/css"), "br"); resp.Header.Get("Content-Encoding") != "br" {
		t.Errorf("HEAD without a length: %v", resp.Header)
	}
	if c.live.Load() != 0 {
		t.Error("HEAD takes an encoder")
	}
}

func TestNotModified(t *testing.T) {
	tests := []struct {
		name, coding, ifNoneMatch, etag, contentType, want string
		vary                                               bool
	}{
		{"suffix comes back", "gzip", `"x-gzip"`, `"x"`, "", `"x-gzip"`, true},
		{"weak", "gzip", `W/"x-gzip"`, `W/"x"`, "", `W/"x-gzip"`, true},
		{"in a list", "br", `"a", "x-br"`, `"x"`, "", `"x-br"`, true},
		{"another tag of the list", "br", `"a", "x-br"`, `"a"`, "", `"a"`, true},
		{"plain", "gzip", `"x"`, `"x"`, "", `"x"`, true},
		{"origin put it itself", "gzip", `"x-gzip"`, `"x-gzip"`, "text/css", `"x-gzip"`, true},
		{"type that never varies", "gzip", `"x"`, `"x"`, "image/png", `"x"`, false},
		{"identity", "", `"x"`, `"x"`, "", `"x"`, true},
		{"without tag", "gzip", `"x-gzip"`, "", "", "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := newTest(t, 0)
			resp := response("GET", 304, nil)
			for name, value := range map[string]string{"Etag": tt.etag, "Content-Type": tt.contentType} {
				if value != "" {
					resp.Header.Set(name, value)
				}
			}
			resp.Request.Header.Set("If-None-Match", tt.ifNoneMatch)
			if tt.coding != "" {
				resp.Request.Header.Set("Accept-Encoding", tt.coding)
			}
			c.PrepareRequest(resp.Request.Header)
			resp = c.Response(resp, tt.coding)
			if got := resp.Header.Get("Etag"); got != tt.want {
				t.Errorf("Etag %s, want %s", got, tt.want)
			}
			if got := resp.Header.Get("Vary") != ""; got != tt.vary {
				t.Errorf("Vary: %q", resp.Header.Get("Vary"))
			}
		})
	}
}

func TestOffDoesNothing(t *testing.T) {
	c := New(Options{Types: []string{"text/*"}})
	resp := response("GET", 200, sample(4096), "Content-Type", "text/css")
	if c.Response(resp, "gzip"); resp.Header.Get("Vary") != "" || resp.Header.Get("Content-Encoding") != "" {
		t.Errorf("switched off, but: %v", resp.Header)
	}
}
