package proxy

import (
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"time"

	"landfall/configs"
)

// responseWriter watches a response for the account, and adds Server-Timing where the service asks for it.
type responseWriter struct {
	http.ResponseWriter
	x *exchange

	mu     sync.Mutex // between the handler and a fetch's informational responses
	begun  bool       // the final head is being made: no informational response comes any more
	done   bool
	wrote  bool
	status int
	bytes  int64
	altSvc string // of the final head; empty: none
}

// Unwrap lets http.ResponseController reach the server's own writer.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Header is asked for by whoever makes the final head.
func (w *responseWriter) Header() http.Header {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begun = true
	return w.ResponseWriter.Header()
}

func (w *responseWriter) WriteHeader(status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wrote {
		return
	}
	if status >= 200 {
		w.wrote, w.status = true, status
		w.x.timing()
		if w.altSvc != "" {
			w.ResponseWriter.Header().Set("Alt-Svc", w.altSvc)
		}
		w.x.shapeResponse(w.ResponseWriter.Header())
		w.x.rememberWrite(w.ResponseWriter.Header())
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *responseWriter) Write(p []byte) (int, error) {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// Flush sends what is buffered to the client now.
func (w *responseWriter) Flush() {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	_ = http.NewResponseController(w.ResponseWriter).Flush() // a gone client shows at the next write
}

func (w *responseWriter) hints() hintForwarder { return hintForwarder{w} }

// timing adds Server-Timing: the time to the response's head, and which part of the way answered.
func (x *exchange) timing() {
	if x.match.service == nil || !x.match.service.config.Debug || x.head.hop > 0 {
		return
	}
	phase := "cache"
	if tr := x.trail.Load(); tr != nil && tr.Region != "" {
		phase = "pool"
		if tr.Region != x.p.o.Region {
			phase = "region"
		}
	}
	ms := float64(x.p.o.Now().Sub(x.started)) / float64(time.Millisecond)
	x.w.ResponseWriter.Header().Add("Server-Timing", phase+";dur="+strconv.FormatFloat(ms, 'f', 1, 64))
}

// writePurged answers a PURGE: nothing found looks different from done.
func writePurged(w http.ResponseWriter, removed int, missing []string) {
	status := http.StatusOK
	switch {
	case len(missing) > 0:
		status = http.StatusAccepted
	case removed == 0:
		status = http.StatusNotFound
	}
	body, _ := json.Marshal(map[string]any{"removed": removed, "missing": append([]string{}, missing...)})
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}

func std(d *configs.Duration) *time.Duration {
	if d == nil {
		return nil
	}
	v := d.D()
	return &v
}
