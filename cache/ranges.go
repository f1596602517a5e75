package cache

import (
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

const maxRanges = 32 // of one request; one with more gets the whole

// byteRange is a part of a body: bytes off to off+length-1.
type byteRange struct{ off, length int64 }

// rangeResult is what a Range field comes to.
type rangeResult uint8

const (
	rangeIgnored       rangeResult = iota // other unit, malformed, or abusive: answer with the whole
	rangeUnsatisfiable                    // 416
	rangeGiven
)

// parseRange reads a Range field for a body of size bytes (RFC 9110 section 14.1.2). Ranges that together exceed the
// body are abuse (section 14.2) and ignored.
func parseRange(s string, size int64) ([]byteRange, rangeResult) {
	unit, set, ok := strings.Cut(s, "=")
	if !ok || !strings.EqualFold(unit, "bytes") {
		return nil, rangeIgnored
	}
	var ranges []byteRange
	var total int64
	specs := 0
	for spec := range strings.SplitSeq(set, ",") {
		spec = strings.Trim(spec, " \t")
		if spec == "" {
			continue
		}
		if specs++; specs > maxRanges {
			return nil, rangeIgnored
		}
		r, ok := parseSpec(spec, size)
		if !ok {
			return nil, rangeIgnored
		}
		if r.length > 0 {
			ranges = append(ranges, r)
			total += r.length
		}
	}
	switch {
	case specs == 0 || total > size:
		return nil, rangeIgnored
	case len(ranges) == 0:
		return nil, rangeUnsatisfiable
	}
	return ranges, rangeGiven
}

// parseSpec reads first-last, first- or -suffix; a range that has nothing of the body has length 0.
func parseSpec(spec string, size int64) (r byteRange, ok bool) {
	first, last, ok := strings.Cut(spec, "-")
	if !ok {
		return r, false
	}
	if first == "" {
		n, ok := parsePosition(last)
		if !ok {
			return r, false
		}
		n = min(n, size)
		return byteRange{size - n, n}, true
	}
	from, ok := parsePosition(first)
	if !ok {
		return r, false
	}
	to := int64(maxPosition)
	if last != "" {
		if to, ok = parsePosition(last); !ok || to < from {
			return r, false
		}
	}
	if from >= size {
		return r, true
	}
	return byteRange{from, min(to, size-1) - from + 1}, true
}

const maxPosition = 1 << 62

// parsePosition reads digits; what is larger than any body is the largest position.
func parsePosition(s string) (n int64, ok bool) {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		if n < maxPosition/10 {
			n = n*10 + int64(s[i]-'0')
		} else {
			n = maxPosition
		}
	}
	return n, s != ""
}

func (r byteRange) contentRange(size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", r.off, r.off+r.length-1, size)
}

// ranges are those that the request asks for and that apply to the object.
func (x *exchange) ranges(o *object) ([]byteRange, rangeResult) {
	lines := x.header["Range"]
	if len(lines) != 1 || x.r.Method != http.MethodGet || o.status != http.StatusOK || !rangeApplies(o.validators(), x.header) {
		return nil, rangeIgnored
	}
	return parseRange(lines[0], o.length)
}

// writeUnsatisfiable answers 416 (RFC 9110 section 15.5.17).
func (x *exchange) writeUnsatisfiable(o *object, n note, out Outcome) Outcome {
	h := x.w.Header()
	x.setStored(o, n, isRepresentation)
	h.Set("Content-Range", "bytes */"+strconv.FormatInt(o.length, 10))
	h.Set("Content-Length", "0")
	return x.writeStatus(http.StatusRequestedRangeNotSatisfiable, out)
}

// writeRanges answers 206 with one range, or with several as multipart/byteranges.
func (x *exchange) writeRanges(o *object, ranges []byteRange, n note, out Outcome) Outcome {
	h := x.w.Header()
	x.setStored(o, n, nil)
	if len(ranges) == 1 {
		r := ranges[0]
		h.Set("Content-Range", r.contentRange(o.length))
		h.Set("Content-Length", strconv.FormatInt(r.length, 10))
		out = x.writeStatus(http.StatusPartialContent, out)
		return x.finish(out, x.writeBody(o.body, r, &out.Bytes))
	}
	media := h.Get("Content-Type")
	var size counter
	boundary := writeParts(&size, "", media, o.length, ranges, func(r byteRange) error { size += counter(r.length); return nil })
	h.Set("Content-Type", "multipart/byteranges; boundary="+boundary)
	h.Set("Content-Length", strconv.FormatInt(int64(size), 10))
	out = x.writeStatus(http.StatusPartialContent, out)
	var err error
	w := &countingWriter{w: x.w, n: &out.Bytes}
	writeParts(w, boundary, media, o.length, ranges, func(r byteRange) error {
		if err == nil {
			err = x.writeBody(o.body, r, &out.Bytes)
		}
		return err
	})
	if err == nil {
		err = w.err
	}
	return x.finish(out, err)
}

// writeParts writes the frame of a multipart/byteranges body, with body called for what is between, and returns the
// boundary: the given one, or a new one.
func writeParts(w io.Writer, boundary, media string, size int64, ranges []byteRange, body func(byteRange) error) string {
	parts := multipart.NewWriter(w)
	if boundary != "" {
		parts.SetBoundary(boundary) // its own, so it is valid
	}
	for _, r := range ranges {
		head := textproto.MIMEHeader{"Content-Range": {r.contentRange(size)}}
		if media != "" {
			head.Set("Content-Type", media)
		}
		if _, err := parts.CreatePart(head); err != nil {
			break
		}
		if body(r) != nil {
			break
		}
	}
	parts.Close()
	return parts.Boundary()
}

// counter counts bytes that it is not meant to keep.
type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// countingWriter counts what it writes, and keeps the first error.
type countingWriter struct {
	w   io.Writer
	n   *int64
	err error
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	*c.n += int64(n)
	if c.err == nil {
		c.err = err
	}
	return n, err
}
