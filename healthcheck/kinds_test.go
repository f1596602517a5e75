package healthcheck

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"landfall/configs"
)

func outcomeOf(t *testing.T, k probeKey) outcome {
	t.Helper()
	k.check = normalCheck(k.check)
	k.check.Timeout = configs.Duration(10 * time.Second)
	rt := newTransportFor(k)
	defer rt.CloseIdleConnections()
	return probe(context.Background(), rt, k.origin, k.check, time.Now)
}

func TestContent(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Ready", "yes")
		_, _ = io.WriteString(w, `{"ready":true}`)
	}))
	defer s.Close()
	for _, tt := range []struct {
		check          configs.Check
		result, detail string
	}{
		{configs.Check{Body: `"ready":true`, Header: "X-Ready: yes"}, resultOK, "answered 200"},
		{configs.Check{Header: "x-ready"}, resultOK, "answered 200"},
		{configs.Check{Header: "X-Ready: no"}, resultContent, `without the header field "X-Ready: no"`},
		{configs.Check{Header: "X-Other"}, resultContent, "without the header field"},
		{configs.Check{Body: `"ready":false`}, resultContent, "without the expected text"},
		{configs.Check{Type: "tcp"}, resultOK, "accepts connections"},
	} {
		if o := outcomeOf(t, probeKey{origin: s.URL, check: tt.check}); o.result != tt.result || !strings.Contains(o.detail, tt.detail) {
			t.Errorf("%+v: %s %s", tt.check, o.result, o.detail)
		}
	}
	s.Close()
	if o := outcomeOf(t, probeKey{origin: s.URL, check: configs.Check{Type: "tcp"}}); o.result != resultConnect {
		t.Errorf("nobody listens: %+v", o)
	}
}

// TestPinned: probes trust what the pool trusts, and nothing else.
func TestPinned(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	if o := outcomeOf(t, probeKey{origin: s.URL, tls: &tls.Config{RootCAs: roots}}); o.result != resultOK {
		t.Errorf("%+v", o)
	}
	if o := outcomeOf(t, probeKey{origin: s.URL, tls: &tls.Config{RootCAs: x509.NewCertPool()}}); o.result != resultConnect {
		t.Errorf("%+v", o)
	}
}

func TestGRPCHealth(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, h := grpc.NewServer(), health.NewServer()
	grpc_health_v1.RegisterHealthServer(s, h)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	defer func() { s.Stop(); <-done }()
	h.SetServingStatus("shop", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	origin := "http://" + l.Addr().String()
	for service, want := range map[string][2]string{
		"": {resultOK, "SERVING"}, "shop": {resultContent, "NOT_SERVING"}, "other": {resultStatus, `gRPC status "5"`},
	} {
		o := outcomeOf(t, probeKey{origin: origin, check: configs.Check{Type: "grpc", Service: service}})
		if o.result != want[0] || !strings.Contains(o.detail, want[1]) {
			t.Errorf("%q: %s %s", service, o.result, o.detail)
		}
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	if o := outcomeOf(t, probeKey{origin: plain.URL, check: configs.Check{Type: "grpc"}}); o.result == resultOK {
		t.Errorf("a server that is no gRPC server: %+v", o)
	}
}

func FuzzParseHealth(f *testing.F) {
	for _, seed := range []string{"\x00\x00\x00\x00\x02\x08\x01", "\x00\x00\x00\x00\x00", "\x01\x00\x00\x00\x00", "\x00\x00\x00\x00\x04\x12\x00\x08\x02", "\x00\x00\x00\x00\x02\x12\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		status, err := parseHealth(body)
		if err != nil {
			if status != 0 {
				t.Errorf("refused with the status %d", status)
			}
			return
		}
		if len(body) < 5 || body[0] != 0 {
			t.Error("accepted without a frame")
		}
		if status == 1 && !strings.Contains(string(body[5:]), "\x01") && !strings.Contains(string(body[5:]), "\x81") {
			t.Errorf("SERVING out of %x", body)
		}
	})
}
