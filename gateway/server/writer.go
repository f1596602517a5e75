package server

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// responseWriter is what handlers write to. It keeps what the HTTP library's writer can do (flush, hijack, read from,
// deadlines through http.ResponseController), tells HTTP/1.1 clients of a leaving node to come back on another
// connection, and marks writes that are under way, so that a client that takes nothing is found.
type responseWriter struct {
	http.ResponseWriter
	q        *request
	wrote    bool // a final status was written
	hijacked bool
}

// Unwrap is for http.ResponseController.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader sends the status; informational ones (1xx) may come before the final one.
func (w *responseWriter) WriteHeader(status int) {
	if status >= 200 {
		w.begin(status)
		return
	}
	w.mark()
	w.ResponseWriter.WriteHeader(status)
	w.unmark()
}

// begin sends the final status, once.
func (w *responseWriter) begin(status int) {
	if w.wrote || w.hijacked {
		return
	}
	w.wrote = true
	if w.q.major == 1 && w.q.c.srv.leaving.Load() {
		w.Header().Set("Connection", "close")
	}
	// A client that another region sent here by an alternative keeps it: ours, which is of the name itself, would replace it
	// and lead the client back to where DNS sent it.
	if told := w.q.c.ln.altSvc.Load(); told != nil && !w.q.byAlternative && !w.q.c.srv.leaving.Load() {
		if h := w.Header(); h["Alt-Svc"] == nil { // a better region comes first
			h["Alt-Svc"] = []string{*told}
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write sends p as part of the body.
func (w *responseWriter) Write(p []byte) (n int, err error) {
	w.begin(http.StatusOK)
	if w.q.major == 1 {
		return w.ResponseWriter.Write(p) // the connection bounds writes
	}
	for {
		piece := p[n:]
		if len(piece) > maxWriteAtOnce {
			piece = piece[:maxWriteAtOnce]
		}
		w.mark()
		m, err := w.ResponseWriter.Write(piece)
		w.unmark()
		if n += m; err != nil || n == len(p) {
			return n, err
		}
	}
}

// ReadFrom sends all of r as part of the body.
func (w *responseWriter) ReadFrom(r io.Reader) (int64, error) {
	w.begin(http.StatusOK)
	if rf, ok := w.ResponseWriter.(io.ReaderFrom); ok && w.q.major == 1 {
		return rf.ReadFrom(r)
	}
	buf := w.q.c.srv.getBuf()
	defer w.q.c.srv.putBuf(buf)
	return io.CopyBuffer(onlyWriter{w}, r, buf[:cap(buf)])
}

// onlyWriter hides ReadFrom from io.CopyBuffer.
type onlyWriter struct{ io.Writer }

// Flush sends what is buffered.
func (w *responseWriter) Flush() { _ = w.FlushError() }

// FlushError is Flush with its error.
func (w *responseWriter) FlushError() error {
	w.begin(http.StatusOK)
	w.mark()
	defer w.unmark()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack takes the connection over from HTTP/1.1, as after a 101. It stays in the books as a request in flight until
// it is closed, and Stop cuts it when its grace is over. Over HTTP/2 and HTTP/3 it fails with http.ErrNotSupported.
func (w *responseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h := w.q.c.h1
	h.state = readRaw
	w.hijacked = true
	if !w.q.c.setPhase(phaseHijacked) {
		w.q.finish() // closed meanwhile: nothing will end it
	}
	return nc, rw, nil
}

// mark notes that a write is under way.
func (w *responseWriter) mark() {
	if w.q.major >= 2 {
		w.q.writing.Store(w.q.c.srv.now().UnixNano())
	}
}

func (w *responseWriter) unmark() {
	if w.q.major >= 2 {
		w.q.writing.Store(0)
	}
}

// stallBody is an HTTP/2 or HTTP/3 request's body; it marks reads that are under way.
type stallBody struct {
	io.ReadCloser
	q *request
}

// Read reads what the client sends.
func (b *stallBody) Read(p []byte) (int, error) {
	b.q.reading.Store(b.q.c.srv.now().UnixNano())
	n, err := b.ReadCloser.Read(p)
	b.q.reading.Store(0)
	return n, err
}
