package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"landfall/configs"
)

// Options are what an API is made from.
type Options struct {
	Backend  Backend             // required
	Admin    configs.Admin       // who may call; swapped by SetConfig
	Gatherer prometheus.Gatherer // what /metrics shows; nil: nothing
	Events   *EventLog           // what /v1/events shows; nil: an empty log
	Metrics  *Metrics            // nil: unregistered ones
	Logger   *slog.Logger        // nil: silent
	Now      func() time.Time    // nil: time.Now

	// Heartbeat is how often an idle event stream carries a comment, so that both ends notice a dead connection; 0: 15s.
	Heartbeat time.Duration
}

// API serves the admin API of one node. It lives as long as the process; a reload swaps its config.
type API struct {
	backend   Backend
	gatherer  prometheus.Gatherer
	events    *EventLog
	metrics   *Metrics
	logger    *slog.Logger
	now       func() time.Time
	heartbeat time.Duration

	gate     atomic.Pointer[gate]
	origins  *http.CrossOriginProtection
	changing chan struct{} // held by each request that changes something
	handler  http.Handler
	listed   []operation // what the handler serves
	paths    []string    // their paths, sorted
	document []byte      // the OpenAPI document

	done context.CancelFunc // ends what would outlive a request
	life context.Context
}

// maxChanging bounds the changes in progress; each may wait for other nodes.
const maxChanging = 32

// New makes the API. Close it when its listener stops.
func New(o Options) *API {
	a := &API{
		backend: o.Backend, gatherer: o.Gatherer, events: o.Events, metrics: o.Metrics, logger: o.Logger, now: o.Now,
		heartbeat: o.Heartbeat, origins: http.NewCrossOriginProtection(), changing: make(chan struct{}, maxChanging),
	}
	if a.logger == nil {
		a.logger = slog.New(slog.DiscardHandler)
	}
	if a.now == nil {
		a.now = time.Now
	}
	if a.gatherer == nil {
		a.gatherer = prometheus.NewRegistry()
	}
	if a.events == nil {
		a.events = NewEventLog(1, a.now, a.logger)
	}
	if a.metrics == nil {
		a.metrics = NewMetrics(nil)
	}
	if a.heartbeat <= 0 {
		a.heartbeat = 15 * time.Second
	}
	a.life, a.done = context.WithCancel(context.Background())
	a.SetConfig(o.Admin)
	a.listed = a.operations()
	a.document = openAPI(a.listed)
	a.handler = a.route(a.listed)
	return a
}

// SetConfig swaps who may call. Requests in progress go on.
func (a *API) SetConfig(c configs.Admin) { a.gate.Store(newGate(c, a.now)) }

// Handler serves the API. It must be served by an http.Server, which tells it both ends of each connection. Time limits
// on reading headers and on idle connections are the server's; the handler moves the server's WriteTimeout where an
// answer takes longer.
func (a *API) Handler() http.Handler { return a.handler }

// Close ends the event streams, which http.Server.Shutdown would otherwise wait for: register it with
// http.Server.RegisterOnShutdown.
func (a *API) Close() { a.done() }

// operation is one method of one path: what the mux serves, what the OpenAPI document tells and what the index shows.
type operation struct {
	method  string
	path    string // as http.ServeMux takes it
	id      string // OpenAPI operationId, and the metrics' label
	summary string
	scope   string
	query   []parameter
	body    any    // a sample of the body's type; nil: it takes none
	result  any    // a sample of the answer's type; nil: media is a raw one
	media   string // of the answer; empty: application/json
	errors  []int  // statuses of its own problems, beside those that every operation has

	// handle answers with a status and a value for JSON, or with status 0 when it wrote the answer by itself.
	handle func(w http.ResponseWriter, c *call) (status int, result any, err error)
}

// changes tells whether the operation changes something.
func (o operation) changes() bool { return o.method != http.MethodGet }

// call is one admitted request.
type call struct {
	*http.Request
	by   string // who calls
	body []byte // of an operation that takes one; nil when absent
}

// route builds the mux: a handler a path, that chooses among its methods itself, so that a 405 is a problem document too.
func (a *API) route(operations []operation) http.Handler {
	byPath := map[string]map[string]operation{}
	for _, o := range operations {
		if byPath[o.path] == nil {
			byPath[o.path] = map[string]operation{}
			a.paths = append(a.paths, strings.TrimSuffix(o.path, "{$}"))
		}
		byPath[o.path][o.method] = o
	}
	slices.Sort(a.paths)
	a.paths = slices.Compact(a.paths)
	mux := http.NewServeMux()
	for path, methods := range byPath {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { a.dispatch(w, r, methods) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		a.serve(w, r, operation{method: http.MethodGet, id: "none", scope: scopeRead, media: "none", handle: func(http.ResponseWriter, *call) (int, any, error) {
			return 0, nil, a.unknownPath(r.URL.Path)
		}})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		mux.ServeHTTP(w, r)
	})
}

func (a *API) unknownPath(path string) *Problem {
	p := problem(http.StatusNotFound, codeNotFound, "Not found",
		fmt.Sprintf("there is nothing at %q%s", clip(path, 120), didYouMean(path, a.paths)))
	p.Known = a.paths
	return p
}

func (a *API) dispatch(w http.ResponseWriter, r *http.Request, methods map[string]operation) {
	allow := []string{http.MethodOptions}
	for m := range methods {
		allow = append(allow, m)
		if m == http.MethodGet {
			allow = append(allow, http.MethodHead)
		}
	}
	slices.Sort(allow)
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	o, ok := methods[method]
	switch {
	case ok:
		a.serve(w, r, o)
	case method == http.MethodOptions:
		w.Header().Set("Allow", strings.Join(allow, ", "))
		w.WriteHeader(http.StatusNoContent)
		a.count("none", http.StatusNoContent)
	default:
		p := problem(http.StatusMethodNotAllowed, codeMethodNotAllowed, "Method not allowed",
			fmt.Sprintf("%s does not take %s; it takes %s", clip(r.URL.Path, 120), clip(r.Method, 20), strings.Join(allow, ", ")))
		a.fail(w, p.with("Allow", strings.Join(allow, ", ")))
		a.count("none", p.Status)
	}
}

// serve runs one operation: who may, what is asked, the work, the answer, the account.
func (a *API) serve(w http.ResponseWriter, r *http.Request, o operation) {
	started := a.now()
	rec := &recorder{ResponseWriter: w}
	by := ""
	defer func() { a.account(r, o, rec, by, started) }()
	defer a.recovered(rec, r)
	who, denied := a.admit(r, o)
	if denied != nil {
		a.metrics.denied.WithLabelValues(denied.code()).Inc()
		a.logger.Warn("admin request denied", "operation", o.id, "remote", r.RemoteAddr, "reason", denied.code())
		a.fail(rec, denied)
		return
	}
	by = who.name
	status, result, err := a.perform(rec, r, o, by)
	switch {
	case err != nil:
		a.fail(rec, asProblem(err))
	case status != 0:
		a.answer(rec, status, "application/json", result)
	}
}

func (a *API) admit(r *http.Request, o operation) (caller, *Problem) {
	// A page of another site may not change anything with what this browser may do. The check passes what is no browser.
	if err := a.origins.Check(r); err != nil {
		return caller{}, problem(http.StatusForbidden, codeCrossOrigin, "Cross-origin request refused",
			"a page of another site may not change anything here")
	}
	return a.gate.Load().admit(r, o.scope)
}

func (a *API) perform(w http.ResponseWriter, r *http.Request, o operation, by string) (int, any, error) {
	c := &call{Request: r, by: by}
	if o.media == "" {
		if err := checkQuery(r, o.query); err != nil {
			return 0, nil, err
		}
	}
	if o.changes() {
		select {
		case a.changing <- struct{}{}:
			defer func() { <-a.changing }()
		default:
			return 0, nil, Unavailable(fmt.Sprintf("%d changes are in progress already; try again in a second", maxChanging))
		}
	}
	switch {
	case o.body != nil:
		body, err := readBody(w, r)
		if err != nil {
			return 0, nil, err
		}
		c.body = body
	case r.ContentLength != 0 && o.id != "none":
		return 0, nil, invalidBody(fmt.Sprintf("%s %s takes no body", r.Method, clip(r.URL.Path, 120)))
	}
	return o.handle(w, c)
}

// recovered, deferred, answers a panic. What was being written is cut off, so that nobody takes it for the whole.
func (a *API) recovered(rec *recorder, r *http.Request) {
	v := recover()
	switch v {
	case nil:
		return
	case http.ErrAbortHandler:
		panic(v)
	}
	a.logger.Error("admin handler panicked", "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
	if rec.status != 0 {
		panic(http.ErrAbortHandler)
	}
	a.fail(rec, problem(http.StatusInternalServerError, codeInternal, "Internal error",
		"the node failed on this request; this is a bug, and its log has the details"))
}

// account counts and logs the request; changes are logged for everyone to see who did what.
func (a *API) account(r *http.Request, o operation, rec *recorder, by string, started time.Time) {
	a.count(o.id, rec.status)
	level := slog.LevelDebug
	if o.changes() && by != "" {
		level = slog.LevelInfo
	}
	a.logger.Log(r.Context(), level, "admin request", "operation", o.id, "path", r.URL.Path, "by", by,
		"remote", r.RemoteAddr, "status", rec.status, "duration", a.now().Sub(started))
}

func (a *API) count(operation string, status int) {
	a.metrics.requests.WithLabelValues(operation, strconv.Itoa(status)).Inc()
}

func (a *API) fail(w http.ResponseWriter, p *Problem) {
	for _, h := range p.headers {
		w.Header().Set(h[0], h[1])
	}
	a.answer(w, p.Status, "application/problem+json", p)
}

func (a *API) answer(w http.ResponseWriter, status int, media string, v any) {
	body, err := encode(v)
	if err != nil { // a number that JSON does not have, such as NaN
		a.logger.Error("admin answer can not be encoded", "error", err)
		status, media = http.StatusInternalServerError, "application/problem+json"
		body, _ = encode(problem(status, codeInternal, "Internal error", "the answer can not be written as JSON: "+err.Error()))
	}
	w.Header().Set("Content-Type", media)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil && !errors.Is(err, http.ErrBodyNotAllowed) {
		a.logger.Debug("admin answer not delivered", "error", err)
	}
}

// recorder remembers the status that was written.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
