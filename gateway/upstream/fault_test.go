package upstream

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestFaults: what a fault does looks as if the origin had done it, to the client and to the breaker.
func TestFaults(t *testing.T) {
	url := good(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 200)) })
	for _, tt := range []struct {
		name    string
		fault   Fault
		policy  RetryPolicy
		cause   string // of the error; empty: there is none
		status  int
		least   time.Duration
		failure bool
	}{
		{"a delay", Fault{Delay: 30 * time.Millisecond}, RetryPolicy{}, "", 200, 30 * time.Millisecond, false},
		{"a delay beyond what an origin may take", Fault{Delay: time.Hour}, RetryPolicy{FirstByte: 20 * time.Millisecond}, CauseTimeout, 0, 20 * time.Millisecond, true},
		{"a delay beyond the total", Fault{Delay: time.Hour}, RetryPolicy{Total: 20 * time.Millisecond}, CauseTimeout, 0, 20 * time.Millisecond, true},
		{"an abort", Fault{Abort: 503}, RetryPolicy{}, "", 503, 0, true},
		{"an abort that is no failure", Fault{Abort: 404}, RetryPolicy{}, "", 404, 0, false},
		{"a reset", Fault{Reset: true}, RetryPolicy{}, CauseReset, 0, 0, true},
		{"a slow body", Fault{SlowBody: 2000}, RetryPolicy{}, "", 200, 2 * slowStep, false},
	} {
		p := newTestPool(t, PoolOptions{Origins: []string{url}})
		tt.fault.ID = "drill"
		tt.policy.Fault = func(name string) *Fault {
			if name != url {
				t.Errorf("asked for %s", name)
			}
			return &tt.fault
		}
		began := time.Now()
		resp, info, err := p.RoundTrip(request(t, "GET", nil), tt.policy)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		if cause := causeOf(err); cause != tt.cause || err == nil && resp.StatusCode != tt.status || info.Fault != "drill" {
			t.Errorf("%s: %v %+v", tt.name, err, info)
		}
		if took := time.Since(began); took < tt.least {
			t.Errorf("%s took %s", tt.name, took)
		}
		if o := p.Status().Origins[0]; (o.Failures > 0) != tt.failure || o.InFlight != 0 {
			t.Errorf("%s: %d failures, %d in flight", tt.name, o.Failures, o.InFlight)
		}
		if pending := p.members.Load().list[0].pending.Load(); pending != 0 {
			t.Errorf("%s: %d still wait for a connection", tt.name, pending)
		}
	}
}

// TestFaultOnOneOrigin: retries lead past a fault that is on one origin only.
func TestFaultOnOneOrigin(t *testing.T) {
	a, b := good(t, hello), good(t, hello)
	p := newTestPool(t, PoolOptions{Origins: []string{a, b}})
	pol := RetryPolicy{Attempts: 2, On: On503 | OnReset, Budget: 1, Fault: func(name string) *Fault {
		if name == a {
			return &Fault{ID: "x", Abort: 503}
		}
		return nil
	}}
	for range 20 {
		resp, _, err := p.RoundTrip(request(t, "GET", nil), pol)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		_ = resp.Body.Close()
	}
}

// causeOf is the cause of an error; empty without one.
func causeOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Cause
	}
	return ""
}
