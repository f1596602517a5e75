package server

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// FuzzHead holds the head parser against net/http: what it accepts, net/http rejects too or reads in the same way.
func FuzzHead(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"\r\nPOST /x?y HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 3\r\n\r\nabc",
		"POST http://a.test/x HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nhost:a\r\nTRANSFER-ENCODING:\tchunked \r\nX: \xff\r\n\r\n0\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n",
		"GET / HTTP/1.1\nHost: a\n\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const maxBytes, maxFields = 2048, 16
		var scan headScanner
		end, no := scan.next(b, maxBytes, maxFields)
		var pieces headScanner // must find the same, fed byte by byte
		for n := 0; n <= len(b); n++ {
			e, no2 := pieces.next(b[:n], maxBytes, maxFields)
			if e > 0 || no2 != nil {
				if e != end || no2 != no {
					t.Fatalf("in pieces: %d, %v; at once: %d, %v", e, no2, end, no)
				}
				break
			}
		}
		if end == 0 || no != nil {
			return
		}
		raw := b[scan.start:end]
		h, no := parseHead(raw)
		if no != nil {
			return
		}
		if len(raw) > maxBytes || !bytes.HasSuffix(raw, []byte("\r\n\r\n")) || bytes.Count(raw, []byte("\r\n"))-2 > maxFields {
			t.Fatalf("accepted over a bound: %q", raw)
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b[scan.start:])))
		if err != nil {
			return // net/http answers 400 and closes
		}
		switch h.body {
		case bodyNone:
			if r.ContentLength != 0 || r.TransferEncoding != nil {
				t.Fatalf("no body here, %d %v there: %q", r.ContentLength, r.TransferEncoding, raw)
			}
		case bodyFixed:
			if r.ContentLength != h.length || r.TransferEncoding != nil {
				t.Fatalf("%d bytes here, %d %v there: %q", h.length, r.ContentLength, r.TransferEncoding, raw)
			}
		case bodyChunked:
			if r.ContentLength != -1 || len(r.TransferEncoding) != 1 {
				t.Fatalf("chunked here, %d %v there: %q", r.ContentLength, r.TransferEncoding, raw)
			}
		}
		if !validHost(r.Host) || !validTarget(r.RequestURI) || !strings.HasPrefix(r.Proto, "HTTP/1.") {
			t.Fatalf("host %q, target %q, %s: %q", r.Host, r.RequestURI, r.Proto, raw)
		}
	})
}

// FuzzChunked holds the chunk follower against net/http: where it sees a body's end, net/http rejects the body or sees
// the same end.
func FuzzChunked(f *testing.F) {
	for _, s := range []string{
		"0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\nGET /", "3;a=b\r\nabc\r\n00\r\nA: b\r\n\r\n", "f\r\nabc", "3 \r\nabc\r\n0\r\n\r\n",
		"3\nabc\n0\n\n", "10000000000000000\r\n", "0\r\nA b\r\n\r\n",
	} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, b []byte, piece int) {
		var k chunker
		n, done, no := k.feed(b)
		if n > len(b) || done && no != nil {
			t.Fatalf("%d of %d, %v, %v", n, len(b), done, no)
		}
		var inPieces chunker
		at, size := 0, max(1, piece%7)
		for at < len(b) {
			m, d, no2 := inPieces.feed(b[at:min(at+size, len(b))])
			at += m
			if d || no2 != nil {
				if at != n || d != done || (no2 != nil) != (no != nil) {
					t.Fatalf("in pieces: %d %v %v; at once: %d %v %v", at, d, no2, n, done, no)
				}
				break
			}
		}
		if !done {
			return
		}
		const top = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
		br := bufio.NewReader(io.MultiReader(strings.NewReader(top), bytes.NewReader(b)))
		r, err := http.ReadRequest(br)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(r.Body); err != nil {
			return
		}
		rest, err := io.ReadAll(br)
		if err != nil || !bytes.Equal(rest, b[n:]) {
			t.Fatalf("net/http leaves %q, we %q", rest, b[n:])
		}
	})
}

// FuzzFrameTracker feeds frames in pieces: the boundaries found are those between frames, but for open header blocks.
func FuzzFrameTracker(f *testing.F) {
	f.Add([]byte{1, 4, 5, 1, 0, 9, 0, 0}, 5)
	f.Fuzz(func(t *testing.T, spec []byte, piece int) {
		var wire bytes.Buffer
		bounds := map[int]bool{}
		fr := http2.NewFramer(&wire, nil)
		for i := 0; i+1 < len(spec) && i < 64; i += 2 {
			flags := http2.Flags(0)
			kind := http2.FrameType(spec[i] % 10)
			if spec[i]&0x80 != 0 {
				flags = http2.FlagHeadersEndHeaders
			}
			_ = fr.WriteRawFrame(kind, flags, 1, make([]byte, int(spec[i+1])))
			switch kind {
			case http2.FrameHeaders, http2.FramePushPromise, http2.FrameContinuation:
				bounds[wire.Len()] = flags != 0
			default:
				bounds[wire.Len()] = bounds[0] || true
				if i >= 2 { // another frame doesn't end an open block; x/net never writes one there
					if k := http2.FrameType(spec[i-2] % 10); (k == 1 || k == 5 || k == 9) && spec[i-2]&0x80 == 0 {
						return
					}
				}
			}
		}
		var ft frameTracker
		p := wire.Bytes()
		for at := 0; at < len(p); {
			n := ft.untilBoundary(p[at:min(at+max(1, piece%20), len(p))])
			ft.follow(p[at : at+n])
			at += n
			if ft.boundary() != bounds[at] {
				t.Fatalf("at %d of %x: boundary %v, want %v", at, p, ft.boundary(), bounds[at])
			}
		}
	})
}
