package healthcheck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"time"

	"landfall/configs"
)

// The limits of a probe.
const (
	maxProbeBody   = 64 << 10 // bytes read of a probe's response, so that its connection can serve again; more is cut
	maxProbeHeader = 64 << 10 // bytes; a larger response header fails the probe
	probeUserAgent = "landfall-healthcheck"
)

// The results of a probe: a closed list, as metrics see it.
const (
	resultOK      = "ok"
	resultStatus  = "status"  // a response with another status than expected
	resultContent = "content" // a response without the header field or text expected, or not serving by gRPC's word
	resultConnect = "connect" // no connection, TLS included
	resultTimeout = "timeout" // no response within the check's timeout
	resultReset   = "reset"   // the connection broke, or what came was no HTTP
)

// outcome is what one probe found.
type outcome struct {
	result string
	detail string // a sentence for people
	at     time.Time
	took   time.Duration
}

// probe makes one request. Redirects are not followed: a 3xx is a status like any other. When a connection that was kept
// from an earlier probe turns out to be broken, the request is made once more on a fresh one: that an origin closed an idle
// connection, or said GOAWAY, is no failure.
func probe(ctx context.Context, rt http.RoundTripper, origin string, check configs.Check, now func() time.Time) outcome {
	start := now()
	ctx, cancel := context.WithTimeout(ctx, check.Timeout.D())
	defer cancel()
	result, detail, reused := request(ctx, rt, origin, check)
	if result == resultReset && reused {
		result, detail, _ = request(ctx, rt, origin, check)
	}
	end := now()
	return outcome{result, detail, end, end.Sub(start)}
}

func request(ctx context.Context, rt http.RoundTripper, origin string, check configs.Check) (result, detail string, reused bool) {
	switch check.Type {
	case "tcp":
		result, detail = connect(ctx, origin, check)
		return result, detail, false
	case "grpc":
		return askGRPC(ctx, rt, origin, check)
	}
	u, err := probeURL(origin, check.Path)
	if err != nil {
		return resultConnect, err.Error(), false
	}
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}
	r, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), http.MethodGet, u, nil)
	if err != nil {
		return resultConnect, fmt.Sprintf("the probe's URL %s can't be used: %v", u, err), false
	}
	r.Host = check.Host // empty: the origin's own
	r.Header.Set("User-Agent", probeUserAgent)
	resp, err := rt.RoundTrip(r)
	if err == nil && ctx.Err() != nil { // too late is too late, whatever the transport thinks
		_ = resp.Body.Close()
		err = ctx.Err()
	}
	if err != nil {
		result, detail = explain(ctx, check, err)
		return result, detail, reused
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProbeBody))
	_ = resp.Body.Close()
	if check.Expect.Contains(resp.StatusCode) {
		if detail := unexpected(check, resp.Header, body, err); detail != "" {
			return resultContent, detail, reused
		}
		return resultOK, fmt.Sprintf("GET %s answered %d", check.Path, resp.StatusCode), reused
	}
	return resultStatus, fmt.Sprintf("GET %s answered %d, expected %s", check.Path, resp.StatusCode, span(check.Expect)), reused
}

// unexpected tells what of a check's header and body a response lacks; empty: nothing.
func unexpected(check configs.Check, h http.Header, body []byte, err error) string {
	if check.Header != "" {
		name, value, exact := strings.Cut(check.Header, ":")
		got := h.Values(name)
		if len(got) == 0 || exact && !slices.Contains(got, strings.TrimSpace(value)) {
			return fmt.Sprintf("GET %s answered without the header field %q", check.Path, check.Header)
		}
	}
	if check.Body != "" && !bytes.Contains(body, []byte(check.Body)) {
		if err != nil {
			return fmt.Sprintf("GET %s broke off before its body held the expected text: %v", check.Path, err)
		}
		return fmt.Sprintf("GET %s answered without the expected text in its body", check.Path)
	}
	return ""
}

func probeURL(origin, path string) (string, error) {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return "", fmt.Errorf("origin %q is not of the form http://host:port or https://host:port", origin)
	}
	return u.Scheme + "://" + u.Host + path, nil
}

// explain turns a failed round trip into a result and a sentence.
func explain(ctx context.Context, check configs.Check, err error) (result, detail string) {
	var op *net.OpError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return resultTimeout, fmt.Sprintf("GET %s had no answer within %s", check.Path, check.Timeout.D())
	case errors.As(err, &op) && op.Op == "dial", strings.Contains(err.Error(), "tls: "):
		return resultConnect, fmt.Sprintf("can't connect: %v", err)
	}
	return resultReset, fmt.Sprintf("GET %s failed: %v", check.Path, err)
}

func span(r configs.StatusRange) string {
	if r.From == r.To {
		return fmt.Sprint(r.From)
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

// newTransport is the transport of all probes: no proxy, connections kept between probes, HTTP/2 connections tested by
// pings so that a dead one fails a probe and not the next five. net/http opens a new one after a GOAWAY.
func newTransport() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: time.Minute, KeepAlive: 15 * time.Second}).DialContext,
		Protocols:              protocols,
		DisableCompression:     true,
		TLSHandshakeTimeout:    time.Minute, // the probe's own timeout is shorter
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: maxProbeHeader,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout:  15 * time.Second,
			PingTimeout:      5 * time.Second,
			WriteByteTimeout: 5 * time.Second,
		},
	}
}

// normalCheck fills in the defaults of the config language for what is zero.
func normalCheck(c configs.Check) configs.Check {
	if c.Path == "" {
		c.Path = "/"
	}
	if c.Expect == (configs.StatusRange{}) {
		c.Expect = configs.StatusRange{From: 200, To: 299}
	}
	if c.Interval <= 0 {
		c.Interval = configs.Duration(2 * time.Second)
	}
	if c.Timeout <= 0 {
		c.Timeout = configs.Duration(time.Second)
	}
	c.Rise, c.Fall = max(c.Rise, 0), max(c.Fall, 0)
	if c.Rise == 0 {
		c.Rise = 2
	}
	if c.Fall == 0 {
		c.Fall = 3
	}
	return c
}
