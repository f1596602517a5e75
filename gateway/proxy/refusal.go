package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"landfall/gateway/upstream"
)

// reason is why a request was refused here: the closed list of every phase's "no". The same name stands in the log, the
// metric's labels and the error page.
type reason string

const (
	malformed        reason = "malformed"
	unknownHost      reason = "unknown_host"
	loop             reason = "loop"
	noRoute          reason = "no_route"
	methodNotAllowed reason = "method_not_allowed"
	forbidden        reason = "forbidden"
	hopLimit         reason = "hop_limit"
	noRegion         reason = "no_region"
	badGateway       reason = "bad_gateway"
	clientGone       reason = "client_gone"
	bodyTooLarge     reason = "body_too_large"
	residency        reason = "residency"
	rateLimited      reason = "rate_limited"
	unauthorised     reason = "unauthorised"
	homeAway         reason = "home_away"
	homeUnknown      reason = "home_unknown"
	behind           reason = "behind"
	overloaded       reason = "overloaded"
	authUnavailable  reason = "auth_unavailable"
)

// refusal is a "no" of a phase.
type refusal struct {
	reason reason
	text   string   // for the client: no addresses in it
	cause  error    // for the log
	allow  []string // methods, for a 405

	retryAfter time.Duration // for a 429
	challenge  string        // WWW-Authenticate, for a 401

	relay *relayed // another server's answer, in place of an error page

	noPool bool // nothing reached an origin: another node may try
}

// Error makes a refusal an error, so that the phases below the cache can return it through the cache.
func (no *refusal) Error() string {
	if no.cause != nil {
		return string(no.reason) + ": " + no.cause.Error()
	}
	return string(no.reason) + ": " + no.text
}

func refused(r reason, text string) *refusal { return &refusal{reason: r, text: text} }

// answer is how a refusal looks to a client: a status, and the error type of Proxy-Status (RFC 9209 section 2.3).
type answer struct {
	status      int
	proxyStatus string
}

var answers = map[reason]answer{
	malformed:        {http.StatusBadRequest, "http_request_error"},
	unknownHost:      {http.StatusNotFound, "destination_not_found"},
	loop:             {http.StatusLoopDetected, "proxy_loop_detected"},
	noRoute:          {http.StatusNotFound, "destination_not_found"},
	methodNotAllowed: {http.StatusMethodNotAllowed, "http_request_denied"},
	forbidden:        {http.StatusForbidden, "http_request_denied"},
	hopLimit:         {http.StatusLoopDetected, "proxy_loop_detected"},
	noRegion:         {http.StatusServiceUnavailable, "destination_unavailable"},
	residency:        {http.StatusServiceUnavailable, "http_request_denied"},
	homeAway:         {http.StatusServiceUnavailable, "destination_unavailable"},
	homeUnknown:      {http.StatusServiceUnavailable, "destination_unavailable"},
	badGateway:       {http.StatusBadGateway, "proxy_internal_response"},
	clientGone:       {499, "http_request_error"}, // nginx's number for the log; no client sees it
	bodyTooLarge:     {http.StatusRequestEntityTooLarge, "http_request_denied"},

	rateLimited:     {http.StatusTooManyRequests, "http_request_denied"},
	unauthorised:    {http.StatusUnauthorized, "http_request_denied"},
	behind:          {http.StatusServiceUnavailable, "destination_unavailable"}, // only nodes see it
	authUnavailable: {http.StatusServiceUnavailable, "destination_unavailable"},
	overloaded:      {http.StatusServiceUnavailable, "connection_limit_reached"},

	// The causes of gateway/upstream.
	"all_ejected":  {http.StatusServiceUnavailable, "destination_unavailable"},
	"breaker_open": {http.StatusServiceUnavailable, "destination_unavailable"},
	"at_bound":     {http.StatusServiceUnavailable, "connection_limit_reached"},
	"shed":         {http.StatusServiceUnavailable, "connection_limit_reached"},
	"connect":      {http.StatusBadGateway, "connection_refused"},
	"reset":        {http.StatusBadGateway, "connection_terminated"},
	"timeout":      {http.StatusGatewayTimeout, "http_response_timeout"},
	"budget":       {http.StatusBadGateway, "destination_unavailable"},
}

var causeTexts = map[reason]string{
	noRegion:       "no region can serve this request now",
	homeAway:       "the region that takes these writes can't be reached now",
	homeUnknown:    "where this user's data is isn't known now",
	hopLimit:       "the request was forwarded too often between regions",
	bodyTooLarge:   "the request's body is larger than this service takes",
	malformed:      "the request's body is malformed",
	"all_ejected":  "none of the origins is healthy",
	"breaker_open": "the origins failed too often and are given a rest",
	"at_bound":     "the origins have as many requests as they may take",
	"shed":         "the origins work on as much as they can; less important requests are refused for now",
	"connect":      "no connection to an origin could be made",
	"reset":        "the origin broke the connection off",
	"timeout":      "the origin did not answer in time",
}

// refusalFor is what an error of the region and pool phases means to the client.
func (p *Proxy) refusalFor(err error) *refusal {
	var no *refusal
	if errors.As(err, &no) {
		return no
	}
	r, sent := badGateway, true
	var up *upstream.Error
	if errors.As(err, &up) {
		r, sent = reason(up.Cause), up.Sent
	}
	var tooLarge *http.MaxBytesError
	switch {
	case r == upstream.CauseTooLarge, errors.As(err, &tooLarge):
		r = bodyTooLarge
	case p.o.BadBody != nil && errors.Is(err, p.o.BadBody):
		r = malformed
	case r == "canceled", errors.Is(err, context.Canceled):
		r = clientGone
	}
	if _, known := answers[r]; !known {
		r = badGateway
	}
	return &refusal{reason: r, text: textOf(r), cause: err, noPool: !sent}
}

// textOf is what a client is told of a cause.
func textOf(r reason) string {
	if text := causeTexts[r]; text != "" {
		return text
	}
	return "the request could not be served"
}

// refuse writes the error page of a refusal, by the client's Accept, if nothing was written yet.
func (x *exchange) refuse(no *refusal) {
	x.refusal = no
	if x.w.wrote {
		return
	}
	if no.relay != nil && !strings.HasPrefix(x.in.Header.Get("Content-Type"), "application/grpc") {
		x.relay(no.relay)
		return
	}
	a := answers[no.reason]
	if no.reason == unknownHost && x.conn.TLS {
		a.status = http.StatusMisdirectedRequest // RFC 9110 section 15.5.20: the connection was made for another host
	}
	h := x.w.Header()
	h.Del("Content-Encoding")
	h.Del("Etag")
	h.Set("Proxy-Status", "landfall; error="+a.proxyStatus)
	h.Set("Cache-Control", "no-store")
	if len(no.allow) > 0 {
		h.Set("Allow", strings.Join(no.allow, ", "))
	}
	if a.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	if no.retryAfter > 0 {
		h.Set("Retry-After", retryAfter(no.retryAfter))
	}
	if no.challenge != "" {
		h.Set("Www-Authenticate", no.challenge)
	}
	if no.noPool && x.head.hop > 0 {
		h.Set(headerNoPool, string(no.reason))
	}
	id := x.head.id
	if id == "" {
		id = x.conn.RequestID
	}
	if strings.HasPrefix(x.in.Header.Get("Content-Type"), "application/grpc") && x.head.hop == 0 {
		// gRPC over HTTP/2, Responses: a status without a message is sent in the headers of a 200.
		h.Set("Content-Type", "application/grpc")
		h.Set("Grpc-Status", grpcStatus(a.status))
		h.Set("Grpc-Message", url.PathEscape(no.text))
		x.w.WriteHeader(http.StatusOK)
		return
	}
	body, kind := errorPage(x.in.Header.Get("Accept"), a.status, no, id)
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.w.WriteHeader(a.status)
	if x.in.Method != http.MethodHead {
		_, _ = x.w.Write(body) // the client may be gone; the account says so
	}
}

func errorPage(accept string, status int, no *refusal, id string) (body []byte, contentType string) {
	if strings.Contains(accept, "text/html") {
		title := fmt.Sprintf("%d %s", status, http.StatusText(status))
		return fmt.Appendf(nil, "<!doctype html><html lang=en><meta charset=utf-8><title>%[1]s</title><h1>%[1]s</h1><p>%s.</p><p><small>Request %s</small></p></html>\n",
			html.EscapeString(title), html.EscapeString(no.text), html.EscapeString(id)), "text/html; charset=utf-8"
	}
	body, _ = json.Marshal(struct { // strings and numbers always marshal
		Status    int    `json:"status"`
		Error     reason `json:"error"`
		Detail    string `json:"detail"`
		RequestID string `json:"request_id"`
	}{status, no.reason, no.text, id})
	return append(body, '\n'), "application/json"
}
