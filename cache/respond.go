package cache

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"
)

var errTooShort = errors.New("the body is shorter than its Content-Length")

// floorSeconds rounds down, so that what has just become stale has a negative ttl.
func floorSeconds(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d < 0 && d%time.Second != 0 {
		s--
	}
	return s
}

// setHeader writes the header of a response that is being stored, Age and Cache-Status to the client's, but for the fields
// that skip tells.
func (x *exchange) setHeader(m *meta, n note, withAge bool, skip func(string) bool) {
	h := x.w.Header()
	for i := range m.fields {
		if f := &m.fields[i]; skip == nil || !skip(f.name) {
			h[f.name] = f.values
		}
	}
	age := time.Duration(-1)
	if withAge {
		age = max(m.age(x.now), 0)
	}
	setOwn(h, make([]string, 2+len(m.upstream)), n, age, m.upstream)
	if x.policy.Peer {
		tellPeer(h, m.keys, m.targeted, m.coded, n)
	}
}

// setStored is setHeader for a stored object. Its texts are parts of the object's head, so that a hit allocates one slice
// for all values of the header, and one text for what is new in it.
func (x *exchange) setStored(o *object, n note, skip func(string) bool) {
	h := x.w.Header()
	upstream := o.upstream()
	c := cursor{s: o.head[o.fieldsAt:]}
	count := c.count()
	values := make([]string, count+2+len(upstream))
	last, first := "", 0 // the lines of one name follow each other
	for i := range count {
		name, value := c.name(), c.text()
		values[i] = value
		if name != last {
			last, first = name, i
		}
		if skip == nil || !skip(name) {
			h[name] = values[first : i+1 : i+1]
		}
	}
	setOwn(h, values[count:], n, max(o.age(x.now), 0), upstream)
	if x.policy.Peer {
		keys, _ := o.tags()
		tellPeer(h, keys, o.details().targeted, o.is(isCoded), n)
	}
}

// setOwn writes Age, unless it is negative, and Cache-Status into values, which has room for them and for upstream.
func setOwn(h http.Header, values []string, n note, age time.Duration, upstream []string) {
	var room [96]byte
	b := room[:0]
	if age >= 0 {
		b = strconv.AppendInt(b, int64(age/time.Second), 10)
	}
	split := len(b)
	text := string(n.append(b))
	if age >= 0 {
		values[0] = text[:split]
		h["Age"] = values[:1:1]
	}
	copy(values[1:], upstream)
	values[len(values)-1] = text[split:]
	h["Cache-Status"] = values[1:len(values):len(values)]
}

func formatAge(age time.Duration) string {
	return strconv.FormatInt(int64(max(age, 0)/time.Second), 10)
}

// tellPeer adds what only caches of the fleet say to each other.
func tellPeer(h http.Header, keys, targeted []string, coded bool, n note) {
	if len(keys) > 0 {
		h[HeaderKey] = keys
	}
	if len(targeted) > 0 {
		h["Landfall-Cache-Control"] = targeted
	}
	if coded {
		h[HeaderCoded] = []string{"1"}
	}
	if n.stale {
		h[HeaderStale] = []string{"1"}
	}
}

// isRepresentation tells the fields that describe a body, which a response without it does not carry.
func isRepresentation(name string) bool {
	switch name {
	case "Content-Length", "Content-Type", "Content-Encoding", "Content-Language", "Content-Range", "Content-Disposition":
		return true
	case "Etag", "Last-Modified", "Cache-Control", "Expires":
		return true
	}
	return false
}

// isBodyField tells the fields that a 304 leaves out (RFC 9110 section 15.4.5).
func isBodyField(name string) bool {
	switch name {
	case "Content-Length", "Content-Type", "Content-Encoding", "Content-Range", "Content-Language":
		return true
	}
	return false
}

func (x *exchange) writeStatus(status int, out Outcome) Outcome {
	out.Status = status
	x.w.WriteHeader(status)
	return out
}

// finish is the outcome after a body: any error means that it did not reach the client whole.
func (x *exchange) finish(out Outcome, err error) Outcome {
	out.Aborted = err != nil
	return out
}

// writeObject answers from a stored object.
func (x *exchange) writeObject(o *object, n note, result string) Outcome {
	o.used()
	n.stale = result == Stale
	out := Outcome{Result: result, Forward: n.fwd}
	if asksIfModified(x.header) && notModified(o.validators(), x.header) {
		x.setStored(o, n, isBodyField)
		return x.writeStatus(http.StatusNotModified, out)
	}
	if x.header["Range"] != nil {
		switch ranges, given := x.ranges(o); given {
		case rangeUnsatisfiable:
			return x.writeUnsatisfiable(o, n, out)
		case rangeGiven:
			return x.writeRanges(o, ranges, n, out)
		}
	}
	x.setStored(o, n, nil)
	out = x.writeStatus(int(o.status), out)
	if x.r.Method == http.MethodHead {
		return out
	}
	return x.finish(out, x.writeBody(o.body, byteRange{0, o.length}, &out.Bytes))
}

// writeBody writes a part of a body, chunk by chunk as it lies in memory.
func (x *exchange) writeBody(body [][]byte, r byteRange, written *int64) error {
	for _, chunk := range body {
		if r.length <= 0 {
			break
		}
		if r.off >= int64(len(chunk)) {
			r.off -= int64(len(chunk))
			continue
		}
		chunk = chunk[r.off:]
		chunk = chunk[:min(int64(len(chunk)), r.length)]
		r.off, r.length = 0, r.length-int64(len(chunk))
		n, err := x.w.Write(chunk)
		*written += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}

// writeStream answers from a fetch that is being stored, as its body grows.
func (x *exchange) writeStream(f *fill, place *reader, n note, result string) Outcome {
	defer f.stream.leave(place)
	out := Outcome{Result: result, Forward: n.fwd}
	withAge := n.collapsed || f.meta.aged
	if notModified(f.meta.validators(), x.header) {
		x.setHeader(&f.meta, n, withAge, isBodyField)
		return x.writeStatus(http.StatusNotModified, out)
	}
	x.setHeader(&f.meta, n, withAge, nil)
	out = x.writeStatus(f.meta.status, out)
	if x.r.Method == http.MethodHead {
		return out
	}
	err := x.copyStream(f, place, &out.Bytes)
	if err == nil && len(f.stream.trailer) > 0 {
		x.flush() // or net/http may still choose a Content-Length, which leaves no place for trailers
		x.writeTrailer(f.stream.trailer, nil)
	}
	out.Stored = f.stored.Load()
	return x.finish(out, err)
}

func (x *exchange) copyStream(f *fill, place *reader, written *int64) error {
	consumed := 0
	for {
		b, more, err := f.stream.next(place, consumed)
		consumed = 0
		switch {
		case len(b) > 0:
			consumed, err = x.w.Write(b)
			*written += int64(consumed)
			if err != nil {
				return err
			}
		case more == nil:
			return err
		default:
			if f.meta.length < 0 {
				x.flush() // the origin may take its time for the rest
			}
			select {
			case <-more:
			case <-x.r.Context().Done():
				return x.r.Context().Err()
			}
		}
	}
}

// relay answers with a response that is not stored.
func (x *exchange) relay(response *http.Response, n note, result string) Outcome {
	defer response.Body.Close()
	out := Outcome{Result: result, Forward: n.fwd}
	h := x.w.Header()
	status := response.StatusCode
	skip := func(string) bool { return false }
	if result != Pass && x.alreadyHas(response) { // its conditions were taken out of the fetch
		status, skip = http.StatusNotModified, isBodyField
	}
	for name, values := range response.Header {
		if !isHop(name) && !listedHop(response.Header, name) && !skip(name) && (x.policy.Peer || !isForCaches(name)) {
			h[name] = values
		}
	}
	var room [96]byte
	h["Cache-Status"] = append(slices.Clip(response.Header["Cache-Status"]), string(n.append(room[:0])))
	bodiless := x.r.Method == http.MethodHead || status == http.StatusNotModified || status == http.StatusNoContent
	for name := range response.Trailer {
		if !bodiless {
			h.Add("Trailer", name)
		}
	}
	announced := len(response.Trailer)
	out = x.writeStatus(status, out)
	if bodiless {
		return out
	}
	length := lengthOf(response)
	streams := length < 0 || isEventStream(response.Header)
	if streams || announced > 0 {
		x.flush() // headers first: an event stream may be silent for long, and trailers need chunks
	}
	err := x.copyBody(response.Body, streams, &out.Bytes)
	if err == nil && length >= 0 && out.Bytes < length {
		err = errTooShort
	}
	if err == nil {
		x.writeTrailer(response.Trailer, h["Trailer"])
	}
	return x.finish(out, err)
}

// alreadyHas tells whether the client's own conditions let it keep what it has.
func (x *exchange) alreadyHas(response *http.Response) bool {
	if response.StatusCode != http.StatusOK || !isConditional(x.header) {
		return false
	}
	m := meta{status: response.StatusCode, etag: validETag(response.Header.Get("Etag"))}
	m.lastModified, _ = parseDate(response.Header.Get("Last-Modified"))
	m.date, _ = dateOf(response.Header, x.now)
	return notModified(m.validators(), x.header)
}

// writeTrailer sends trailers after a body: those announced by their names, the rest by net/http's prefix.
func (x *exchange) writeTrailer(trailer http.Header, announced []string) {
	h := x.w.Header()
	for name, values := range trailer {
		prefix := http.TrailerPrefix
		for _, a := range announced {
			if a == name {
				prefix = ""
			}
		}
		for _, v := range values {
			h.Add(prefix+name, v)
		}
	}
}

func (x *exchange) copyBody(body io.Reader, flush bool, written *int64) error {
	buf := x.c.buffers.Get().(*[copyBuffer]byte)
	defer x.c.buffers.Put(buf)
	for empty := 0; empty < maxEmptyReads; empty++ {
		n, err := body.Read(buf[:])
		if n > 0 {
			empty = 0
			m, err := x.w.Write(buf[:n])
			*written += int64(m)
			if err != nil {
				return err
			}
			if flush {
				x.flush()
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return errNoProgress
}

func (x *exchange) flush() {
	// A writer that can't flush sends all at the end, which is the best it can.
	_ = http.NewResponseController(x.w).Flush()
}

// writeTimeout answers only-if-cached when nothing can be served from the store (RFC 9111 section 5.2.1.7).
func (x *exchange) writeTimeout() Outcome {
	const text = "nothing stored may answer this request, and only-if-cached forbids asking the origin\n"
	h := x.w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Cache-Status", string(note{detail: "only-if-cached"}.append(nil)))
	out := x.writeStatus(http.StatusGatewayTimeout, Outcome{Result: Miss})
	if x.r.Method != http.MethodHead {
		n, err := io.WriteString(x.w, text)
		out.Bytes = int64(n)
		return x.finish(out, err)
	}
	return out
}

// failure is the outcome when nothing was written.
func failure(reason string, err error) Outcome {
	if err == nil {
		err = context.Canceled
	}
	return Outcome{Result: Failed, Forward: reason, Err: err}
}
