package upstream

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
)

// maxReplayBody is how many bytes of a request's body are kept in memory so that it can be sent again.
const maxReplayBody = 64 << 10

// bodySource is a request's body over all of the request's attempts. A body that can be had again (from GetBody, or
// small enough to be in memory) goes with every attempt; any other with one attempt, or more as long as none has read it.
type bodySource struct {
	body    io.ReadCloser // nil: the request has none
	again   func() (io.ReadCloser, error)
	mu      sync.Mutex
	reading int // Reads under way
	touched bool
	closed  bool
	err     error // what reading it failed of: the client's fault
}

// newBodySource takes over r.Body. A body of known length up to maxReplayBody is read here, unless the client waits for a
// 100 before sending it, which is the origin's to say (RFC 9110 section 10.1.1).
func newBodySource(r *http.Request) (*bodySource, error) {
	s := &bodySource{}
	if r.Body == nil || r.Body == http.NoBody {
		return s, nil
	}
	s.body, s.again = r.Body, r.GetBody
	if s.again != nil || r.ContentLength <= 0 || r.ContentLength > maxReplayBody || r.Header.Get("Expect") != "" {
		return s, nil
	}
	buf := make([]byte, r.ContentLength)
	_, err := io.ReadFull(r.Body, buf)
	s.touched = true
	if err != nil {
		s.err = err
		s.close()
		return s, err
	}
	s.close()
	s.again = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf)), nil }
	return s, nil
}

// attach gives an attempt's request its body.
func (s *bodySource) attach(out *http.Request, a *attempt) error {
	if s.body == nil {
		return nil
	}
	a.upload.start(a.policy.Idle, func() {
		a.cancel(&timeoutError{"the origin took no more of the request's body", a.policy.Idle})
	})
	out.GetBody = nil
	if s.again == nil {
		out.Body = &sharedBody{source: s, attempt: a}
		return nil
	}
	get := func() (io.ReadCloser, error) {
		body, err := s.again()
		if err != nil {
			return nil, err
		}
		return &replayBody{body, a}, nil
	}
	body, err := get()
	if err != nil {
		return err
	}
	out.Body, out.GetBody = body, get
	return nil
}

// replayable tells whether another attempt can send the body.
func (s *bodySource) replayable() bool {
	if s.body == nil || s.again != nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.touched && !s.closed
}

func (s *bodySource) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// close closes the request's body, as a RoundTripper must. While a Read is under way the last one closes it when it
// returns: closing a server's request body waits for its reader, which would make us wait for a client that stalls.
func (s *bodySource) close() {
	if s.body == nil {
		return
	}
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	idle := s.reading == 0
	s.mu.Unlock()
	if first && idle {
		_ = s.body.Close()
	}
}

func (s *bodySource) read(p []byte) (int, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return 0, http.ErrBodyReadAfterClose
	}
	s.touched = true
	s.reading++
	s.mu.Unlock()
	n, err := s.body.Read(p)
	s.mu.Lock()
	s.reading--
	if err != nil && err != io.EOF && s.err == nil && !s.closed {
		s.err = err
	}
	last := s.closed && s.reading == 0
	s.mu.Unlock()
	if last {
		_ = s.body.Close()
	}
	return n, err
}

// sharedBody is the body as one attempt sends it, when it can be read only once.
type sharedBody struct {
	source  *bodySource
	attempt *attempt
}

func (b *sharedBody) Read(p []byte) (int, error) {
	b.attempt.upload.end() // waiting for the client now
	n, err := b.source.read(p)
	b.attempt.upload.begin() // waiting for the origin to take it
	return n, err
}

// Close leaves a body that nobody has read yet to the next attempt.
func (b *sharedBody) Close() error {
	b.attempt.upload.end()
	if !b.source.replayable() {
		b.source.close()
	}
	return nil
}

// replayBody is the body as one attempt sends it, when it can be had again.
type replayBody struct {
	io.ReadCloser
	attempt *attempt
}

func (b *replayBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.attempt.upload.begin()
	return n, err
}

func (b *replayBody) Close() error {
	b.attempt.upload.end()
	return b.ReadCloser.Close()
}

// bodyCause is the cause of a request whose body could not be read.
func bodyCause(err error) string {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return CauseTooLarge
	}
	return CauseCanceled
}
