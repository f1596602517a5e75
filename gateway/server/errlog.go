package server

import (
	"bytes"
	"log"
	"log/slog"
	"time"

	"golang.org/x/time/rate"
)

// errorLogRate bounds the HTTP libraries' own lines, which clients can provoke, per second.
const errorLogRate = 5

// newErrorLog returns a logger for the HTTP libraries, which write lines: they go to debug, a few a second.
func newErrorLog(l *slog.Logger, now func() time.Time) *log.Logger {
	return log.New(&errorWriter{log: l, now: now, limiter: rate.NewLimiter(errorLogRate, 4*errorLogRate)}, "", 0)
}

type errorWriter struct {
	log     *slog.Logger
	now     func() time.Time
	limiter *rate.Limiter
}

// Write logs one line.
func (w *errorWriter) Write(p []byte) (int, error) {
	if w.limiter.AllowN(w.now(), 1) {
		w.log.Debug("the HTTP library says", "text", string(bytes.TrimSpace(p)))
	}
	return len(p), nil
}
