package cache

import (
	"errors"
	"net/http"
	"slices"
	"sync"
)

const (
	firstChunk = 4 << 10 // bodies of unknown length begin with this and double
	lastChunk  = 512 << 10
	fixedChunk = 1 << 20 // bodies of known length are cut into these

	// window is what an overflowing stream keeps in memory.
	window      = 256 << 10
	windowChunk = 64 << 10
)

var (
	errCut    = errors.New("the reader was too slow for a body that is too large to store")
	errNobody = errors.New("nobody reads the body any more")
)

// stream is a body that grows while any number of readers read it, each at its own pace. Published bytes never change,
// so readers write them to their clients without copying and without the lock.
//
// A stream that overflows, since its body of unknown length turns out too large to store, drops what all readers have
// behind them and goes at the pace of the slowest. One that lags for long while another waits is cut off.
type stream struct {
	mu      sync.Mutex
	chunks  [][]byte // the length of a chunk is what is published of it
	first   int      // number of chunks dropped before chunks[0]
	end     int64    // bytes published
	readers []*reader
	changed chan struct{} // closed at the next change; nil: nobody waits

	overflow bool
	charged  int // chunks before this number are charged to the budget, when overflowing

	done    bool
	err     error
	trailer http.Header
}

// reader is one reader's place.
type reader struct {
	chunk, at int   // number of the chunk counted from the stream's begin, and the offset in it
	off       int64 // in the body
	cut       bool
}

// join adds a reader at the begin; nil when the begin is gone or the body failed.
func (s *stream) join() *reader {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.overflow || s.err != nil {
		return nil
	}
	r := &reader{}
	s.readers = append(s.readers, r)
	return r
}

func (s *stream) leave(r *reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers = slices.DeleteFunc(s.readers, func(other *reader) bool { return other == r })
	s.change()
}

// change wakes all who wait. Call it with the lock held.
func (s *stream) change() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// wait is closed at the next change. Call it with the lock held.
func (s *stream) wait() <-chan struct{} {
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// next moves r by the bytes it has consumed and returns those that follow. Without any, either more is closed when there
// may be some, or it is nil and the body has ended, with err.
func (s *stream) next(r *reader, consumed int) (b []byte, more <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.at += consumed
	r.off += int64(consumed)
	if s.overflow && consumed > 0 {
		s.change() // whoever fills may go on
	}
	if r.cut {
		return nil, nil, errCut
	}
	for i := r.chunk - s.first; i < len(s.chunks); i++ {
		if c := s.chunks[i]; r.at < len(c) {
			return c[r.at:], nil, nil
		}
		if i+1 < len(s.chunks) {
			r.chunk, r.at = r.chunk+1, 0
		}
	}
	if s.done {
		return nil, nil, s.err
	}
	return nil, s.wait(), nil
}

// tail is the free space of the last chunk.
func (s *stream) tail() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.chunks) == 0 {
		return nil
	}
	c := s.chunks[len(s.chunks)-1]
	return c[len(c):cap(c)]
}

func (s *stream) grow(n int) {
	c := make([]byte, 0, n)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chunks = append(s.chunks, c)
}

// publish shows readers n bytes that were read into the tail.
func (s *stream) publish(n int) {
	if n == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.extend(n)
	s.change()
}

func (s *stream) extend(n int) {
	last := len(s.chunks) - 1
	s.chunks[last] = s.chunks[last][:len(s.chunks[last])+n]
	s.end += int64(n)
}

// body is what was published and the held bytes after it, for the store: the last chunk cut to its size when much of it
// is free.
func (s *stream) body(held int) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	body := slices.Clone(s.chunks)
	if last := len(body) - 1; last >= 0 {
		c := body[last]
		c = c[:len(c)+held]
		if cap(c)-len(c) > 1024 {
			c = append(make([]byte, 0, len(c)), c...)
		}
		body[last] = c
	}
	return body
}

// finish ends the body: held bytes are published with its end, so that no reader sees the last of a body before the
// object is in the store.
func (s *stream) finish(held int, err error, trailer http.Header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if held > 0 && err == nil {
		s.extend(held)
	}
	s.done, s.err, s.trailer = true, err, trailer
	s.change()
}

// spill makes the stream overflow.
func (s *stream) spill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.overflow = true
	s.charged = s.first + len(s.chunks)
}

// slide drops the chunks that all readers have behind them and tells whether a new one fits in the window. Otherwise
// more is closed when it may. freed is what is to be given back to the budget.
func (s *stream) slide() (freed int64, fits bool, more <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.readers) == 0 {
		return 0, false, nil, errNobody
	}
	floor, chunk := s.end, s.first+len(s.chunks)
	for _, r := range s.readers {
		if !r.cut {
			floor, chunk = min(floor, r.off), min(chunk, r.chunk)
		}
	}
	for ; s.first < chunk && len(s.chunks) > 0; s.first++ {
		if s.first < s.charged {
			freed += heapBytes(int64(cap(s.chunks[0]))) + 2*chunkOverhead
		}
		s.chunks[0] = nil
		s.chunks = s.chunks[1:]
	}
	if s.end-floor < window {
		return freed, true, nil, nil
	}
	return freed, false, s.wait(), nil
}

// cutLaggards cuts off the readers that hold the window, if another waits for more.
func (s *stream) cutLaggards() {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := slices.ContainsFunc(s.readers, func(r *reader) bool { return r.off == s.end })
	if !waiting {
		return
	}
	for _, r := range s.readers {
		if s.end-r.off >= window {
			r.cut = true
		}
	}
	s.change()
}
