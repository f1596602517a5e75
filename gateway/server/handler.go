package server

import (
	"context"
	"encoding/hex"
	"io"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"landfall/configs"
)

// request is a request in flight: its context, its ResponseWriter and its place in the books, in one allocation. It is
// never reused, since handlers may hold on to the context.
type request struct {
	context.Context // the HTTP library's
	writer          responseWriter
	body            stallBody
	c               *conn
	info            ConnInfo
	start           time.Time
	major           int
	byAlternative   bool // the client came by an alternative service (RFC 7838, section 5)
	method          string
	host            string
	path            string
	prev, next      *request // in conn.requests, guarded by conn.mu
	once            sync.Once

	mu      sync.Mutex // keeps the stall sweep from a writer that is gone
	over    bool
	writing atomic.Int64 // since when a write is under way, Unix nanoseconds; HTTP/2 only
	reading atomic.Int64 // since when a read of the body is; HTTP/2 only
}

// Value finds the request's ConnInfo, without a context of its own.
func (q *request) Value(key any) any {
	if key == (infoKey{}) {
		return &q.info
	}
	return q.Context.Value(key)
}

// proto is the protocol as Held names it.
func (q *request) proto(upgraded bool) string {
	switch {
	case upgraded:
		return "upgraded"
	case q.major == 3:
		return "HTTP/3.0"
	case q.major == 2:
		return "HTTP/2.0"
	}
	return "HTTP/1.1"
}

// finish takes the request out of the books; it may be called more than once.
func (q *request) finish() {
	q.once.Do(func() {
		s := q.c.srv
		q.c.drop(q)
		s.metrics.inFlight.Dec()
		if !s.hurry.Load() {
			s.finished.Add(1)
		}
		s.inFlight.Add(-1)
	})
}

// serve is the handler of all HTTP servers: the head phase, then the listener's handler.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(connKey{}).(*conn)
	q := s.begin(c, w, r)
	defer s.end(q)
	no := c.takeRefusal(r)
	if no == nil {
		no = admit(r, s.limitsOf(c.ln.kind))
	}
	parsed := r
	r = r.WithContext(q)
	if no != nil {
		q.refuse(r, no)
		return
	}
	if r.ProtoMajor == 3 && len(r.Trailer) > 0 {
		r.Body = &h3Trailers{ReadCloser: r.Body, from: parsed, to: r.Trailer}
	}
	if no := s.prepareBody(q, w, r); no != nil {
		q.refuse(r, no)
		return
	}
	c.ln.handler.ServeHTTP(&q.writer, r)
}

// begin enters a request into the books.
func (s *Server) begin(c *conn, w http.ResponseWriter, r *http.Request) *request {
	q := &request{Context: r.Context(), c: c, info: c.base, start: s.now(), major: r.ProtoMajor, byAlternative: r.Header["Alt-Used"] != nil,
		method: r.Method, host: r.Host, path: r.URL.Path}
	q.info.ID = s.newID()
	if h3 := c.http3(); h3 != nil {
		q.info.RemoteAddr = h3.remote()
	}
	q.writer = responseWriter{ResponseWriter: w, q: q}
	s.inFlight.Add(1)
	s.metrics.inFlight.Inc()
	c.add(q)
	return q
}

// newID draws a request id. A source of randomness that fails leaves the ids alike, not the requests unanswered.
func (s *Server) newID() string {
	var b [16]byte
	_, _ = io.ReadFull(s.rand, b[:])
	return hex.EncodeToString(b[:])
}

// end is deferred by serve: it answers for a handler that panicked and takes the request out of the books, unless it
// lives on as an upgraded connection.
func (s *Server) end(q *request) {
	p := recover()
	if p != nil && p != http.ErrAbortHandler {
		s.metrics.panics.Inc()
		s.log.Error("a request's handler panicked", "method", q.method, "host", clip(q.host), "path", clip(q.path),
			"request_id", q.info.ID, "panic", p, "stack", string(debug.Stack()))
	}
	if p != nil && p != http.ErrAbortHandler && !q.writer.wrote && !q.writer.hijacked {
		r := &http.Request{Method: q.method, ProtoMajor: q.major, Header: http.Header{}}
		q.refuse(r, refusePanic)
		p = nil
	}
	if p == nil && !q.writer.hijacked {
		q.writer.begin(http.StatusOK) // for a handler that wrote nothing
	}
	q.mu.Lock()
	q.over = true
	q.mu.Unlock()
	if !q.writer.hijacked {
		q.finish()
	}
	if s.leaving.Load() {
		q.c.leave()
	}
	if p != nil {
		panic(http.ErrAbortHandler) // the HTTP library cuts the stream or connection
	}
}

// takeRefusal is what the framing filter found wrong, if r stands in for a refused request.
func (c *conn) takeRefusal(r *http.Request) *refusal {
	if r.Method != refusedMethod {
		return nil
	}
	return c.refused.Load()
}

// refuse answers with no and counts it.
func (q *request) refuse(r *http.Request, no *refusal) {
	q.c.srv.metrics.refusedRequests.WithLabelValues(no.reason).Inc()
	if no.shut && q.major == 1 {
		q.c.h1.linger.Store(true)
	}
	no.write(&q.writer, r, q.info.ID)
}

// admit judges a request that the HTTP library has parsed, of either version, and normalises it: the host in lower
// case, the target in origin form.
func admit(r *http.Request, l *configs.Limits) *refusal {
	if r.Method == http.MethodConnect && r.ProtoMajor == 2 && r.Header[protocolField] != nil {
		if no := admitExtended(r); no != nil {
			return no
		}
	} else if r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		return refuseMethod
	}
	if r.ProtoMajor >= 2 {
		if no := admitH2(r, l); no != nil {
			return no
		}
	}
	if r.URL.Host != "" { // absolute form; the filter has compared it with Host
		if r.URL.Scheme, r.URL.Host = "", ""; r.URL.Path == "" {
			r.URL.Path = "/"
			if r.Method == http.MethodOptions {
				r.URL.Path = "*" // RFC 9112 section 3.2.4
			}
		}
		r.RequestURI = r.URL.RequestURI()
	}
	if p := r.URL.Path; !strings.HasPrefix(p, "/") && (p != "*" || r.Method != http.MethodOptions) {
		return refuseTarget
	}
	r.Host = strings.ToLower(r.Host)
	if r.ContentLength > int64(l.Body) {
		return refuseBodyTooLarge
	}
	return nil
}

// protocolField is where net/http puts the :protocol of an extended CONNECT (RFC 8441 section 4).
const protocolField = ":protocol"

// admitExtended judges an extended CONNECT: only WebSockets are spoken here (RFC 9220 section 3 names the status of others).
func admitExtended(r *http.Request) *refusal {
	if p := r.Header[protocolField]; len(p) != 1 || !strings.EqualFold(p[0], "websocket") {
		return refuseProtocol
	}
	return nil
}

// extended tells a WebSocket over HTTP/2. Its body is one direction of a connection, which lasts and may be silent.
func extended(r *http.Request) bool {
	return r.Method == http.MethodConnect && r.Header[protocolField] != nil
}

// admitH2 judges what the filter judges for HTTP/1.1 and the libraries for HTTP/2 and HTTP/3 do not.
func admitH2(r *http.Request, l *configs.Limits) *refusal {
	if hosts := r.Header["Host"]; len(hosts) > 0 { // beside :authority or in its place, RFC 9113 section 8.3.1
		if len(hosts) > 1 || hosts[0] != r.Host {
			return refuseHost
		}
		delete(r.Header, "Host")
	}
	if r.Host == "" {
		return refuseNoHost
	}
	if !validHost(r.Host) {
		return refuseHost
	}
	if !validTarget(r.RequestURI) {
		return refuseTarget
	}
	if v := r.Header["Content-Length"]; len(v) > 0 { // must be the body's, RFC 9113 section 8.1.1
		if n, ok := parseLength([]byte(v[0])); len(v) > 1 || !ok || n != r.ContentLength {
			return refuseLength
		}
	}
	fields := 0
	for _, v := range r.Header {
		fields += len(v)
	}
	if fields > l.Headers {
		return refuseTooManyFields
	}
	return nil
}

// prepareBody bounds the request body in size, where no length was declared, and over HTTP/2 and HTTP/3 in time.
func (s *Server) prepareBody(q *request, w http.ResponseWriter, r *http.Request) *refusal {
	if r.TLS == nil && q.info.TLS { // HTTP/2: net/http was not told of the TLS below
		st := q.c.h2.tls.ConnectionState()
		r.TLS = &st
	}
	if r.ContentLength == 0 {
		r.Body = http.NoBody
		return nil
	}
	if extended(r) {
		return nil // its silence and its size are bounded like those of any upgraded connection
	}
	if q.c.ln.kind == peerListener {
		return nil // the node that the client is connected to has bounded the body and its silence, an upgrade's among them
	}
	if r.ProtoMajor >= 2 {
		q.body = stallBody{ReadCloser: r.Body, q: q}
		r.Body = &q.body
	}
	if r.ProtoMajor == 3 {
		if no := prepareH3Body(q, r); no != nil {
			return no
		}
	}
	if r.ContentLength < 0 {
		r.Body = http.MaxBytesReader(w, r.Body, int64(s.limits().Body))
	}
	return nil
}

// clip bounds what a client said before it is logged.
func clip(v string) string {
	if len(v) > 256 {
		return v[:256]
	}
	return v
}
