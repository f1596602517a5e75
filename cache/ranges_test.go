package cache

import (
	"bytes"
	"io"
	"mime"
	"mime/multipart"
	"strconv"
	"testing"
)

// RFC 9110 section 14, on a body of several chunks.
func TestRanges(t *testing.T) {
	body := make([]byte, 2*fixedChunk+100)
	for i := range body {
		body[i] = byte(i % 251)
	}
	size := len(body)
	b := newBench(t)
	b.answers(200, string(body), cacheable, `Etag: "1"`, lm, "Content-Type: x/y")
	if got := b.get("http://a.test/", "Range: bytes=0-9"); got.Result != Pass || got.status != "landfall; fwd=uri-miss" {
		t.Errorf("on a miss: %s %q", got.Result, got.status)
	}
	if b.last().Header.Get("Range") == "" {
		t.Error("Range did not reach the origin")
	}
	b.get("http://a.test/")
	for _, c := range []struct {
		lines    []string
		status   int
		from, to int // half-open
	}{
		{[]string{"Range: bytes=0-0"}, 206, 0, 1},
		{[]string{"Range: bytes=10-1048600"}, 206, 10, 1048601},
		{[]string{"Range: bytes=2097200-"}, 206, 2097200, size},
		{[]string{"Range: bytes=-7"}, 206, size - 7, size},
		{[]string{"Range: bytes=-99999999"}, 206, 0, size},
		{[]string{"Range: BYTES=5-99999999999999999999999"}, 206, 5, size},
		{[]string{"Range: bytes=, 5-6 ,"}, 206, 5, 7},
		{[]string{"Range: bytes=0-1", `If-Range: "1"`}, 206, 0, 2},
		{[]string{"Range: bytes=0-1", `If-Range: W/"1"`}, 200, 0, size},
		{[]string{"Range: bytes=0-1", `If-Range: "2"`}, 200, 0, size},
		{[]string{"Range: bytes=0-1", "If-Range: Sun, 01 Feb 2026 00:00:00 GMT"}, 206, 0, 2},
		{[]string{"Range: bytes=0-1", "If-Range: Sun, 01 Feb 2026 00:00:01 GMT"}, 200, 0, size},
		{[]string{"Range: bytes=99999999-"}, 416, 0, 0},
		{[]string{"Range: bytes=-0"}, 416, 0, 0},
		{[]string{"Range: lines=0-1"}, 200, 0, size},
		{[]string{"Range: bytes=5-4"}, 200, 0, size},
		{[]string{"Range: bytes="}, 200, 0, size},
		{[]string{"Range: bytes=a-"}, 200, 0, size},
		{[]string{"Range: bytes=0-,0-"}, 200, 0, size},
		{[]string{"Range: bytes=0-1", "Range: bytes=2-3"}, 200, 0, size},
		{[]string{"Range: bytes=0-1", `If-None-Match: "1"`}, 304, 0, 0},
	} {
		got := b.get("http://a.test/", c.lines...)
		if got.StatusCode != c.status || got.body != string(body[c.from:c.to]) || got.Result != Hit {
			t.Errorf("%v: %d, %d bytes, %s", c.lines, got.StatusCode, len(got.body), got.Result)
		}
		if c.status == 416 && got.Header.Get("Content-Range") != "bytes */"+strconv.Itoa(size) {
			t.Errorf("%v: Content-Range %q", c.lines, got.Header.Get("Content-Range"))
		}
		if c.status != 304 && got.Header.Get("Content-Length") != strconv.Itoa(len(got.body)) {
			t.Errorf("%v: Content-Length %q", c.lines, got.Header.Get("Content-Length"))
		}
	}
	if got := b.get("http://a.test/", "Range: bytes=1-2"); got.Header.Get("Content-Range") != "bytes 1-2/"+strconv.Itoa(size) {
		t.Errorf("Content-Range %q", got.Header.Get("Content-Range"))
	}
	if b.fetches() != 2 {
		t.Errorf("%d fetches", b.fetches())
	}
}

func TestManyRanges(t *testing.T) {
	b := newBench(t)
	b.answers(200, "0123456789", cacheable, "Content-Type: x/y")
	b.get("http://a.test/")
	got := b.get("http://a.test/", "Range: bytes=0-1, 99-, 5-6, -1")
	media, params, err := mime.ParseMediaType(got.Header.Get("Content-Type"))
	if err != nil || media != "multipart/byteranges" || got.StatusCode != 206 {
		t.Fatalf("%d %q %v", got.StatusCode, got.Header.Get("Content-Type"), err)
	}
	if n := strconv.Itoa(len(got.body)); got.Header.Get("Content-Length") != n || strconv.FormatInt(got.Bytes, 10) != n {
		t.Errorf("%s bytes, Content-Length %s, outcome %d", n, got.Header.Get("Content-Length"), got.Bytes)
	}
	parts := multipart.NewReader(bytes.NewReader([]byte(got.body)), params["boundary"])
	for _, want := range []struct{ place, text string }{{"bytes 0-1/10", "01"}, {"bytes 5-6/10", "56"}, {"bytes 9-9/10", "9"}} {
		part, err := parts.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(part)
		if string(text) != want.text || part.Header.Get("Content-Range") != want.place || part.Header.Get("Content-Type") != "x/y" {
			t.Errorf("%q %v", text, part.Header)
		}
	}
	if _, err := parts.NextPart(); err != io.EOF {
		t.Errorf("after the last: %v", err)
	}
}

func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-1", "bytes=-5,3-", "bytes=1-0", "bytes=0-,-1", "x=1", "bytes=99999999999999999999-"} {
		f.Add(s, int64(10))
	}
	f.Fuzz(func(t *testing.T, s string, size int64) {
		if size < 0 {
			return
		}
		ranges, given := parseRange(s, size)
		if (given == rangeGiven) != (len(ranges) > 0) || len(ranges) > maxRanges {
			t.Fatalf("%v with %d ranges", given, len(ranges))
		}
		var total int64
		for _, r := range ranges {
			if r.off < 0 || r.length <= 0 || r.off > size-r.length {
				t.Fatalf("%+v of %d", r, size)
			}
			total += r.length
		}
		if total > size {
			t.Fatalf("%d bytes of %d", total, size)
		}
	})
}
