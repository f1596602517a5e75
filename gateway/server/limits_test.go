package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"landfall/configs"
)

func TestConnectionBounds(t *testing.T) {
	for reason, adjust := range map[string]func(*configs.Limits){
		"total":      func(l *configs.Limits) { l.Connections = 2 },
		"per_client": func(l *configs.Limits) { l.ConnectionsPerClient = 2 },
	} {
		t.Run(reason, func(t *testing.T) {
			h := start(t, func(o *Options) { adjust(&o.Limits) })
			addr := h.http(ok)
			for range 2 {
				nc := dial(t, addr)
				send(t, nc, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
				readResponse(t, bufio.NewReader(nc))
				defer nc.Close()
			}
			nc := dial(t, addr)
			if _, err := nc.Read(make([]byte, 1)); err == nil {
				t.Error("a third connection was served")
			}
			if counter(h.m.refusedConns, reason) != 1 || counter(h.m.accepted, "http") != 3 {
				t.Error("not counted")
			}
			if n := value(h.m.connections.WithLabelValues("http", "h1")); n != 2 {
				t.Errorf("landfall_connections is %v, want 2", n)
			}
		})
	}
}

func TestClients(t *testing.T) {
	now := time.Unix(1000, 0)
	table := &clients{byKey: map[clientKey]*client{}}
	l := testLimits()
	l.ConnectionRate = 2
	a, b := keyOf(netip.MustParseAddr("2001:db8::1")), keyOf(netip.MustParseAddr("2001:db8::ffff:2"))
	if a != b {
		t.Error("addresses of one /64 count as two clients")
	}
	if keyOf(netip.MustParseAddr("::ffff:192.0.2.1")) != keyOf(netip.MustParseAddr("192.0.2.1")) {
		t.Error("a mapped IPv4 address counts as another client")
	}
	for i := range minBurst {
		if reason, ok := table.admit(a, &l, now); !ok {
			t.Fatalf("connection %d: %s", i, reason)
		}
		table.leave(a, false)
	}
	if reason, ok := table.admit(a, &l, now); ok || reason != "rate" {
		t.Errorf("over the burst: %v %q", ok, reason)
	}
	now = now.Add(500 * time.Millisecond)
	if _, ok := table.admit(a, &l, now); !ok {
		t.Error("half a second on, at 2/s, none is let in")
	}
	table.leave(a, false)
	if table.total != 0 || table.idle != 1 {
		t.Errorf("total %d, idle %d", table.total, table.idle)
	}
	table.sweep(now.Add(time.Minute))
	if len(table.byKey) != 0 || table.idle != 0 {
		t.Error("the client was not forgotten")
	}
}

func TestClientsAreBounded(t *testing.T) {
	table := &clients{byKey: map[clientKey]*client{}}
	l := testLimits()
	l.ConnectionRate = 1
	var ip [4]byte
	for i := range maxIdleClients + 1000 {
		ip[0], ip[1], ip[2] = byte(i>>16), byte(i>>8), byte(i)
		k := keyOf(netip.AddrFrom4(ip))
		if _, ok := table.admit(k, &l, time.Unix(1000, 0)); !ok {
			t.Fatal("refused")
		}
		table.leave(k, false)
	}
	if len(table.byKey) > maxIdleClients || len(table.byKey) != table.idle {
		t.Errorf("%d clients remembered, %d counted", len(table.byKey), table.idle)
	}
}

func TestHandshakeFailures(t *testing.T) {
	h := start(t, func(o *Options) { o.Limits.HeaderTimeout = configs.Duration(100 * time.Millisecond) })
	addr := h.https(ok)
	failures := func(reason string) float64 { return counter(h.m.handshakeFailures, reason) }

	nc := dial(t, addr)
	send(t, nc, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	if res, body := readResponse(t, bufio.NewReader(nc)); res.StatusCode != 400 || !strings.Contains(body, "https://") {
		t.Errorf("plain HTTP to HTTPS: %d %q", res.StatusCode, body)
	}
	eventually(t, "not_tls is counted", func() bool { return failures("not_tls") == 1 })
	_, _ = io.ReadAll(dial(t, addr)) // says nothing
	eventually(t, "timeout is counted", func() bool { return failures("timeout") == 1 })
	dial(t, addr).Close()
	eventually(t, "closed is counted", func() bool { return failures("closed") == 1 })
	if _, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: x509.NewCertPool()}); err == nil {
		t.Error("the test trusts anybody")
	}
	eventually(t, "protocol is counted", func() bool { return failures("protocol") == 1 })
}

func TestPeers(t *testing.T) {
	h := start(t, func(o *Options) { o.Limits.ConnectionsPerClient = 1 })
	infos := make(chan ConnInfo, 3)
	a, err := h.s.AddPeer("127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{h.ca.issue(t, "localhost")},
		ClientCAs: h.ca.pool, ClientAuth: tls.RequireAndVerifyClientCert},
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			info, _ := Info(r.Context())
			infos <- info
		}))
	if err != nil {
		t.Fatal(err)
	}
	mine := h.ca.issue(t, "eu-west-1")
	for range 2 { // per-client bounds don't hold
		tr := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: h.ca.pool,
			ServerName: "localhost", Certificates: []tls.Certificate{mine}}}
		defer tr.CloseIdleConnections()
		get(t, tr, "https://"+a.String()+"/")
		info := <-infos
		if info.PeerName != "eu-west-1" || info.Listener != ListenerPeer || !info.TLS || len(info.ID) != 32 ||
			info.LocalAddr.String() != a.String() || !info.RemoteAddr.Addr().IsLoopback() {
			t.Errorf("info %+v", info)
		}
	}
	if c, err := tls.Dial("tcp", a.String(), &tls.Config{RootCAs: h.ca.pool, ServerName: "localhost",
		Certificates: []tls.Certificate{mine}}); err == nil { // no ALPN
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a peer without HTTP/2 was served")
		}
		c.Close()
	}
	eventually(t, "protocol is counted", func() bool { return counter(h.m.refusedConns, "protocol") == 1 })
	if c, err := tls.Dial("tcp", a.String(), &tls.Config{RootCAs: h.ca.pool, ServerName: "localhost",
		NextProtos: []string{"h2"}}); err == nil { // no certificate; TLS 1.3 tells late
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a peer without a certificate was served")
		}
		c.Close()
	}
	eventually(t, "the failed handshake is counted", func() bool { return counter(h.m.handshakeFailures, "protocol") == 1 })
}

func TestTLSHTTP1(t *testing.T) {
	h := start(t, nil)
	infos := make(chan ConnInfo, 1)
	addr := h.https(func(w http.ResponseWriter, r *http.Request) {
		info, _ := Info(r.Context())
		if r.TLS == nil {
			t.Error("no TLS state")
		}
		infos <- info
	})
	c := h.dialTLS(addr, "http/1.1")
	send(t, c, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	br := bufio.NewReader(c)
	readResponse(t, br)
	if info := <-infos; info.Listener != ListenerHTTPS || !info.TLS || info.PeerName != "" {
		t.Errorf("info %+v", info)
	}
	send(t, c, "GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n")
	if res, _ := readResponse(t, br); res.StatusCode != 400 {
		t.Errorf("got %d, want 400", res.StatusCode)
	}
	if _, err := br.ReadByte(); err != io.EOF { // by close_notify
		t.Errorf("got %v, want the end", err)
	}
}

func TestInfoElsewhere(t *testing.T) {
	if info, ok := Info(context.Background()); ok || info != (ConnInfo{}) {
		t.Errorf("got %+v, %v", info, ok)
	}
}

func TestPanic(t *testing.T) {
	h := start(t, nil)
	handler := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/late" {
			_, _ = w.Write([]byte("x"))
			_ = http.NewResponseController(w).Flush()
		}
		panic("a test")
	}
	plain, secure := h.http(handler), h.https(handler)
	for _, c := range []struct {
		rt  http.RoundTripper
		url string
	}{{&http.Transport{}, "http://" + plain}, {h.h2(), "https://" + secure}} {
		if res, _ := get(t, c.rt, c.url+"/"); res.StatusCode != 500 {
			t.Errorf("got %d, want 500", res.StatusCode)
		}
		req, _ := http.NewRequest("GET", c.url+"/late", nil)
		if res, err := c.rt.RoundTrip(req); err == nil {
			if _, err := io.ReadAll(res.Body); err == nil {
				t.Error("a response that was cut short ended well")
			}
			res.Body.Close()
		}
	}
	eventually(t, "the panics are over", func() bool { return value(h.m.inFlight) == 0 })
	if value(h.m.panics) != 4 {
		t.Errorf("%v panics counted, want 4", value(h.m.panics))
	}
	wantContains(t, h.logs.String(), "a request's handler panicked", `panic="a test"`, "request_id=")
}

func TestSetLimitsReachesRequests(t *testing.T) {
	h := start(t, nil)
	nc := dial(t, h.http(ok))
	br := bufio.NewReader(nc)
	const post = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc"
	send(t, nc, post)
	if res, _ := readResponse(t, br); res.StatusCode != 200 {
		t.Errorf("got %d", res.StatusCode)
	}
	l := testLimits()
	l.Body = 2
	h.s.SetLimits(l)
	send(t, nc, post)
	if res, _ := readResponse(t, br); res.StatusCode != 413 {
		t.Errorf("got %d, want 413 by the new limit", res.StatusCode)
	}
}

func TestRequestIDs(t *testing.T) {
	ids := make(chan string, 1)
	h := start(t, func(o *Options) { o.Rand = bytes.NewReader(bytes.Repeat([]byte{0xab}, 16)) })
	addr := h.http(func(w http.ResponseWriter, r *http.Request) {
		info, _ := Info(r.Context())
		ids <- info.ID
	})
	nc := dial(t, addr)
	send(t, nc, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	if id := <-ids; id != strings.Repeat("ab", 16) {
		t.Errorf("id %q", id)
	}
}

func TestDefaults(t *testing.T) {
	s := New(Options{})
	if l := s.limits(); l.Body != 64<<20 || l.HeaderBytes != 32<<10 || l.IdleTimeout.D() != 75*time.Second {
		t.Errorf("limits %+v", l)
	}
	s.Stop(context.Background(), 0)
}

func TestMetricsRegister(t *testing.T) {
	reg := prometheus.NewRegistry()
	NewMetrics(reg)
	defer func() {
		if recover() == nil {
			t.Error("registered twice")
		}
	}()
	NewMetrics(reg)
}

var _ net.Listener = (*feed)(nil)
