package cache

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
)

var (
	errTooLong    = errors.New("the body is longer than its Content-Length")
	errNoProgress = io.ErrNoProgress
)

// maxEmptyReads is how many reads in a row may bring nothing.
const maxEmptyReads = 100

// lengthOf is the length that a response announces, -1 if none. A response built by hand with a body and without any
// length has ContentLength 0, as net/http also knows.
func lengthOf(response *http.Response) int64 {
	if n, err := strconv.ParseInt(response.Header.Get("Content-Length"), 10, 64); err == nil && n >= 0 {
		if response.ContentLength <= 0 || response.ContentLength == n {
			return n
		}
	}
	if response.ContentLength == 0 && response.Body != http.NoBody {
		return -1
	}
	return response.ContentLength
}

// lengthRoom is for the Content-Length that a response of unknown length gets when it is stored.
const lengthRoom = 24

// reserveFor takes the bytes that the object will be charged with: all of them when its length is known, or else its
// head's, with the Content-Length that it will get.
func (f *fill) reserveFor(m *meta) bool {
	head, _ := pack(f.key, m, f.header)
	var n int64
	if m.length < 0 {
		n = headBytes(len(head)+lengthRoom, f.key, m) + heapBytes(chunkOverhead)
	} else {
		n = headBytes(len(head), f.key, m) + lengthBytes(m.length)
	}
	if !f.c.store.reserve(n) {
		return false
	}
	f.reserved = n
	return true
}

// lengthBytes is bodyBytes of a body of known length.
func lengthBytes(length int64) int64 {
	whole, rest := length/fixedChunk, length%fixedChunk
	chunks := whole
	if rest > 0 {
		chunks++
	}
	return whole*heapBytes(fixedChunk) + heapBytes(rest) + heapBytes(chunks*chunkOverhead)
}

// copy reads the body into the stream. The bytes that complete a known length are held back until the end is confirmed:
// a body that goes on, or fails where it should end, was never whole.
func (f *fill) copy() (held int, err error) {
	var total int64
	var probe [1]byte
	for empty := 0; empty < maxEmptyReads; empty++ {
		buf := probe[:]
		complete := f.meta.length >= 0 && total == f.meta.length
		if !complete {
			if buf, err = f.room(total); err != nil {
				return 0, err
			}
		}
		n, err := f.body.Read(buf)
		if n > 0 {
			empty = 0
			if complete {
				return 0, errTooLong
			}
			total += int64(n)
			if total == f.meta.length {
				held = n
			} else {
				f.stream.publish(n)
			}
		}
		switch {
		case err == io.EOF && f.meta.length >= 0 && total < f.meta.length:
			return 0, io.ErrUnexpectedEOF
		case err == io.EOF:
			return held, nil
		case err != nil:
			return 0, err
		}
	}
	return 0, errNoProgress
}

// room is space for the next read. Where memory may not grow, it makes the stream overflow, and then waits for readers.
func (f *fill) room(total int64) ([]byte, error) {
	if tail := f.stream.tail(); len(tail) > 0 {
		return tail, nil
	}
	switch {
	case f.meta.length >= 0:
		f.stream.grow(int(min(f.meta.length-total, fixedChunk)))
	case f.stream.overflow:
		if err := f.waitForReaders(); err != nil {
			return nil, err
		}
		f.stream.grow(windowChunk)
	default:
		n := min(max(total, firstChunk), lastChunk, f.c.maxObject+1-total)
		if n <= 0 || !f.c.store.reserve(heapBytes(n)+2*chunkOverhead) {
			f.spill()
			return f.room(total)
		}
		f.reserved += heapBytes(n) + 2*chunkOverhead
		f.stream.grow(int(n))
	}
	return f.stream.tail(), nil
}

// spill gives up storing. From here on the fetch lives only as long as it is read.
func (f *fill) spill() {
	f.c.store.unshare(f)
	f.c.marks.set(f.key, f.c.now(), markFor)
	f.stream.spill()
	f.expire()
}

// waitForReaders waits until the slowest reader leaves room in the window.
func (f *fill) waitForReaders() error {
	lag := time.NewTimer(lagLimit)
	defer lag.Stop()
	for {
		freed, fits, more, err := f.stream.slide()
		if freed > 0 {
			f.c.store.budget.release(freed)
			f.reserved -= freed
		}
		if fits || err != nil {
			return err
		}
		select {
		case <-more:
		case <-f.ctx.Done():
			return f.ctx.Err()
		case <-lag.C:
			f.stream.cutLaggards()
			lag.Reset(lagLimit)
		}
	}
}
