package compress

import (
	"bytes"
	"io"
	"net/http"
	"testing"
)

// From one coding to another takes two encoders: with one left the response stays as it is, rather than becoming plain.
func TestRecodeTakesTwoEncoders(t *testing.T) {
	c, _ := newTest(t, 1)
	text := bytes.Repeat([]byte("abc "), 5000)
	resp := c.Response(response("GET", 200, text, "Content-Type", "text/plain", "Etag", `"v"`), "gzip")
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.Body.Close() != nil {
		t.Fatal(err)
	}
	coded := func() *http.Response {
		return &http.Response{StatusCode: 200, Header: resp.Header.Clone(), Body: io.NopCloser(bytes.NewReader(b))}
	}
	if got := c.Recode(coded(), "br"); got != nil || c.live.Load() != 0 {
		t.Errorf("recoded to %q with one encoder; %d live", got.Header.Get("Content-Encoding"), c.live.Load())
	}
	got := c.Recode(coded(), "")
	if got == nil {
		t.Fatal("one encoder is enough to decode")
	}
	plain, err := io.ReadAll(got.Body)
	if err != nil || got.Body.Close() != nil || !bytes.Equal(plain, text) {
		t.Errorf("%d bytes, %v", len(plain), err)
	}
}
