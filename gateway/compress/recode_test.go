package compress

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// Whatever a stored response was coded with here, it becomes what the origin's own answer would have become in any other
// coding: bytes, entity tag and header.
func TestRecode(t *testing.T) {
	c, _ := newTest(t, 0)
	for _, size := range []int{1000, 400_000} {
		text := []byte(strings.Repeat("To be recoded, and back. ", size/25+1)[:size])
		for _, tag := range []string{"", `"v1"`, `W/"v1"`}[:min(3, 300_000/size+1)] {
			fresh := func(coding string) *http.Response {
				resp := response("GET", 200, text, "Content-Type", "text/plain", "Cache-Control", "max-age=1")
				if tag != "" {
					resp.Header.Set("Etag", tag)
				}
				return c.Response(resp, coding)
			}
			for _, from := range []string{"", "gzip", "br", "zstd"} {
				for _, to := range []string{"", "gzip", "br", "zstd"} {
					stored, want := fresh(from), fresh(to)
					got := recoded(t, c, stored, to)
					if from == to {
						if got != nil {
							t.Errorf("%q was recoded to itself", from)
						}
						_ = stored.Body.Close()
						_ = want.Body.Close()
						continue
					}
					b, err := io.ReadAll(got.Body)
					if to != "" {
						b, err = io.ReadAll(decoder(t, to, bytes.NewReader(b)))
					}
					_ = got.Body.Close()
					_ = want.Body.Close()
					if err != nil || !bytes.Equal(b, text) {
						t.Errorf("%q to %q: %v, %d bytes", from, to, err, len(b))
					}
					for _, name := range []string{"Etag", "Content-Encoding", "Vary", "Content-Type", "Cache-Control", HeaderCoded} {
						if got.Header.Get(name) != want.Header.Get(name) {
							t.Errorf("%q to %q: %s is %q, want %q", from, to, name, got.Header.Get(name), want.Header.Get(name))
						}
					}
				}
			}
		}
	}
	if n := c.live.Load(); n != 0 {
		t.Errorf("%d encoders are still held", n)
	}
}

// recoded stores a response's body and recodes it; nil: Recodes says no.
func recoded(t *testing.T, c *Compressor, stored *http.Response, to string) *http.Response {
	t.Helper()
	if !c.Recodes(stored.StatusCode, stored.Header, stored.ContentLength, to) {
		return nil
	}
	b, err := io.ReadAll(stored.Body)
	if err != nil {
		t.Fatal(err)
	}
	_ = stored.Body.Close()
	return c.Recode(&http.Response{StatusCode: stored.StatusCode, Header: stored.Header.Clone(), ContentLength: int64(len(b)), Body: io.NopCloser(bytes.NewReader(b))}, to)
}

// What was not coded here, may not be transformed, or whose tag could not be told back, is left alone.
func TestNotRecoded(t *testing.T) {
	c, _ := newTest(t, 0)
	text := bytes.Repeat([]byte("x"), 1000)
	for name, fields := range map[string][]string{
		"the origin's coding":   {"Content-Type", "text/plain", "Content-Encoding", "gzip"},
		"a tag with the suffix": {"Content-Type", "text/plain", "Etag", `"v1-br"`},
		"a tag that is none":    {"Content-Type", "text/plain", "Etag", `v1`},
		"no-transform":          {"Content-Type", "text/plain", "Cache-Control", "no-transform"},
		"another type":          {"Content-Type", "image/png"},
	} {
		resp := c.Response(response("GET", 200, text, fields...), "br")
		for _, to := range []string{"", "gzip", "deflate"} {
			if c.Recodes(resp.StatusCode, resp.Header, -1, to) {
				t.Errorf("%s: recoded to %q", name, to)
			}
		}
		_ = resp.Body.Close()
	}
	if c.Recodes(200, http.Header{"Content-Type": {"text/plain"}}, 10, "gzip") {
		t.Error("too small")
	}
}

// A stored body that isn't whole never becomes a whole one, and no encoder is used past the bound.
func TestRecodeFailures(t *testing.T) {
	for _, from := range []string{"gzip", "br", "zstd"} {
		c, _ := newTest(t, 0)
		resp := c.Response(response("GET", 200, bytes.Repeat([]byte("abc "), 5000), "Content-Type", "text/plain"), from)
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		torn := c.Recode(&http.Response{StatusCode: 200, Header: resp.Header, Body: io.NopCloser(bytes.NewReader(b[:len(b)/2]))}, "")
		if _, err := io.ReadAll(torn.Body); err == nil {
			t.Errorf("%s: a torn body was read to its end", from)
		}
		_ = torn.Body.Close()
		_ = torn.Body.Close()
		if _, err := torn.Body.Read(make([]byte, 1)); err == nil || c.live.Load() != 0 {
			t.Errorf("%s: %v, %d held", from, err, c.live.Load())
		}
	}
	c, m := newTest(t, 1)
	held := c.Response(response("GET", 200, bytes.Repeat([]byte("x"), 1000), "Content-Type", "text/plain"), "br")
	stored := &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/plain"}}, Body: io.NopCloser(strings.NewReader("x"))}
	if c.Recode(stored, "br") != nil || counter(t, m.refused, "encoders") != 1 {
		t.Error("recoded without an encoder")
	}
	_ = held.Body.Close()
}
