package healthcheck

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"

	"landfall/configs"
)

// newTransportFor is the transport of a prober whose pool asks for its own TLS or protocol.
func newTransportFor(k probeKey) *http.Transport {
	t := newTransport()
	if k.tls != nil {
		t.TLSClientConfig = k.tls.Clone()
	}
	switch {
	case k.check.Type == "grpc", k.http == "h2c":
		t.Protocols.SetHTTP1(k.check.Type != "grpc" && k.http != "h2c")
		t.Protocols.SetUnencryptedHTTP2(true)
	case k.http == "2":
		t.Protocols.SetHTTP1(false)
	case k.http == "1.1":
		t.Protocols.SetHTTP2(false)
	}
	return t
}

// connect probes by a connection alone.
func connect(ctx context.Context, origin string, check configs.Check) (result, detail string) {
	u, err := url.Parse(origin)
	if err != nil {
		return resultConnect, fmt.Sprintf("origin %q is not a URL", origin)
	}
	addr := u.Host
	if u.Port() == "" {
		addr = net.JoinHostPort(u.Hostname(), map[string]string{"https": "443"}[u.Scheme]+map[string]string{"http": "80"}[u.Scheme])
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	switch {
	case err == nil:
		_ = c.Close()
		return resultOK, "accepts connections"
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return resultTimeout, fmt.Sprintf("no connection within %s", check.Timeout.D())
	}
	return resultConnect, fmt.Sprintf("can't connect: %v", err)
}

const healthMethod = "/grpc.health.v1.Health/Check"

// askGRPC asks gRPC's health service (GRPC Health Checking Protocol).
func askGRPC(ctx context.Context, rt http.RoundTripper, origin string, check configs.Check) (result, detail string, reused bool) {
	u, err := probeURL(origin, healthMethod)
	if err != nil {
		return resultConnect, err.Error(), false
	}
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}
	r, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), http.MethodPost, u, bytes.NewReader(healthRequest(check.Service)))
	if err != nil {
		return resultConnect, fmt.Sprintf("the probe's URL %s can't be used: %v", u, err), false
	}
	r.Header.Set("User-Agent", probeUserAgent)
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("Te", "trailers")
	check.Path = healthMethod
	resp, err := rt.RoundTrip(r)
	if err != nil {
		result, detail = explain(ctx, check, err)
		return result, detail, reused
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProbeBody))
	if err != nil {
		result, detail = explain(ctx, check, err)
		return result, detail, reused
	}
	code, message := resp.Header.Get("Grpc-Status"), resp.Header.Get("Grpc-Message")
	if code == "" {
		code, message = resp.Trailer.Get("Grpc-Status"), resp.Trailer.Get("Grpc-Message")
	}
	if resp.StatusCode != http.StatusOK || code != "0" {
		return resultStatus, fmt.Sprintf("%s answered %d with gRPC status %q %s", healthMethod, resp.StatusCode, code, message), reused
	}
	serving, err := parseHealth(body)
	switch {
	case err != nil:
		return resultContent, fmt.Sprintf("%s answered with what is no health: %v", healthMethod, err), reused
	case serving != 1:
		return resultContent, fmt.Sprintf("%s says %s", healthMethod, servingName(serving)), reused
	}
	return resultOK, healthMethod + " says SERVING", reused
}

// healthRequest is a HealthCheckRequest in its gRPC frame: field 1 is the service.
func healthRequest(service string) []byte {
	var message []byte
	if service != "" {
		message = binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(service)))
		message = append(message, service...)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// servingName is a ServingStatus in words.
func servingName(n uint64) string {
	if n < 4 {
		return [...]string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}[n]
	}
	return fmt.Sprintf("status %d", n)
}

var errHealth = errors.New("not one uncompressed HealthCheckResponse")

// parseHealth reads a HealthCheckResponse out of its gRPC frame: field 1 is the status, others are skipped.
func parseHealth(body []byte) (status uint64, err error) {
	if len(body) < 5 || body[0] != 0 || uint64(binary.BigEndian.Uint32(body[1:])) != uint64(len(body)-5) {
		return 0, errHealth
	}
	for m := body[5:]; len(m) > 0; {
		tag, n := binary.Uvarint(m)
		if n <= 0 {
			return 0, errHealth
		}
		m = m[n:]
		skip := uint64(0)
		switch tag & 7 {
		case 0:
			value, n := binary.Uvarint(m)
			if n <= 0 {
				return 0, errHealth
			}
			if tag>>3 == 1 {
				status = value
			}
			skip = uint64(n)
		case 1:
			skip = 8
		case 2:
			length, n := binary.Uvarint(m)
			if n <= 0 || length > uint64(len(m)) {
				return 0, errHealth
			}
			skip = uint64(n) + length
		case 5:
			skip = 4
		default:
			return 0, errHealth
		}
		if skip > uint64(len(m)) {
			return 0, errHealth
		}
		m = m[skip:]
	}
	return status, nil
}
