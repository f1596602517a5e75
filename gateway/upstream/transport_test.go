package upstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	_ "landfall/gateway/server/xconnect" // test origins take WebSockets over HTTP/2
)

// proto answers with the protocol that the request came by.
func proto(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }

// h2cServer speaks HTTP/1.1 and, without TLS, HTTP/2.
func h2cServer(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

func TestProtocols(t *testing.T) {
	plain, secure, old := h2cServer(t, proto), newTLSServer(t, proto), httptest.NewUnstartedServer(http.HandlerFunc(proto))
	old.StartTLS() // HTTP/1.1 only
	t.Cleanup(old.Close)
	for _, tt := range []struct{ http, origin, want string }{
		{"auto", plain, "HTTP/1.1"}, {"auto", secure.URL, "HTTP/2.0"}, {"1.1", secure.URL, "HTTP/1.1"}, {"1.1", plain, "HTTP/1.1"},
		{"2", secure.URL, "HTTP/2.0"}, {"h2c", plain, "HTTP/2.0"}, {"h2c", secure.URL, "HTTP/2.0"}, {"2", old.URL, ""},
	} {
		config := trust(secure)
		config.RootCAs.AddCert(old.Certificate())
		p := newTestPool(t, PoolOptions{Origins: []string{tt.origin}, HTTP: tt.http, TLS: config})
		got, _, _, err := do(p, request(t, "GET", nil), policy())
		if got != tt.want {
			t.Errorf("http: %s to %s: %q %v, want %q", tt.http, tt.origin, got, err, tt.want)
		}
		if tt.want == "" {
			wantError(t, err, CauseConnect, "TLS: ")
		}
	}
}

// opening is a WebSocket's opening request.
func opening(t testing.TB) *http.Request {
	r := request(t, "GET", nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	return r
}

// TestSocketOverHTTP2: where origins are spoken to in HTTP/2, a WebSocket is a stream (RFC 8441), which outlasts the total
// timeout as a connection would.
func TestSocketOverHTTP2(t *testing.T) {
	seen := make(chan *http.Request, 64)
	echo := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		seen <- r
		w.WriteHeader(http.StatusOK)
		rc := http.NewResponseController(w)
		_ = rc.Flush()
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			if err != nil {
				return
			}
			_, _ = w.Write(buf[:n])
			_ = rc.Flush()
		}
	}
	secure := newTLSServer(t, echo)
	for version, origin := range map[string]string{"h2c": h2cServer(t, echo), "2": secure.URL} {
		p := newTestPool(t, PoolOptions{HTTP: version, Origins: []string{origin}, TLS: trust(secure)})
		pol := policy()
		pol.Total = 100 * time.Millisecond
		resp, _, err := p.RoundTrip(opening(t), pol)
		for ; err != nil; resp, _, err = p.RoundTrip(opening(t), pol) {
			if pol.Total *= 2; pol.Total > long { // a slow machine takes its time to make a connection
				t.Fatal(err)
			}
		}
		rwc, ok := resp.Body.(io.ReadWriteCloser)
		if !ok || resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || resp.Header.Get("Upgrade") != "websocket" {
			t.Fatalf("%s: %d %v", version, resp.StatusCode, resp.Header)
		}
		if r := <-seen; r.Method != "CONNECT" || r.Header[":protocol"][0] != "websocket" || r.Header["Sec-Websocket-Key"] != nil || r.ProtoMajor != 2 {
			t.Errorf("%s: the origin saw %s %v", version, r.Method, r.Header)
		}
		wait(pol.Total * 3 / 2) // the total timeout is of requests, not of connections
		for _, text := range []string{"hello", "again"} {
			if _, err := io.WriteString(rwc, text); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(text))
			if _, err := io.ReadFull(rwc, got); err != nil || string(got) != text {
				t.Errorf("%s: %q %v", version, got, err)
			}
		}
		_ = rwc.Close()
		r := opening(t)
		r.URL.Path = "/no"
		if got, code, _, err := do(p, r, policy()); code != 403 || got != "no\n" {
			t.Errorf("%s: %d %q %v", version, code, got, err)
		}
		wantIdle(t, p)
	}
}

// TestSocketNotOffered: an origin that does not offer extended CONNECT is asked over HTTP/1.1, whatever else it speaks.
func TestSocketNotOffered(t *testing.T) {
	var preludes atomic.Int64
	p := newTestPool(t, PoolOptions{HTTP: "h2c", Origins: []string{hostile(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		if start, _ := in.Peek(3); string(start) == "PRI" {
			preludes.Add(1)
			_ = http2.NewFramer(c, nil).WriteSettings()
			_, _ = io.Copy(io.Discard, in)
			return
		}
		if r, err := http.ReadRequest(in); err == nil {
			_, _ = io.WriteString(c, r.Proto+" 200 OK\r\nContent-Length: 8\r\n\r\n"+r.Proto)
		}
	})}})
	for range 3 {
		if got, _, _, err := do(p, opening(t), policy()); got != "HTTP/1.1" {
			t.Error(got, err)
		}
	}
	if n := preludes.Load(); n != 1 {
		t.Errorf("asked over HTTP/2 %d times", n)
	}
}

// TestHappyEyeballs: a name with addresses of both families is reached by the one that answers (RFC 8305).
func TestHappyEyeballs(t *testing.T) {
	var zone atomic.Pointer[[]string]
	zone.Store(&[]string{"both.test. 60 IN A 127.0.0.1", "both.test. 60 IN AAAA ::1"})
	server := nameServer(t, &zone)
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, server)
	}}
	_, port, _ := strings.Cut(strings.TrimPrefix(good(t, hello), "http://"), ":") // listens on 127.0.0.1 alone
	p := newTestPool(t, PoolOptions{Origins: []string{"http://both.test:" + port}, Dial: (&net.Dialer{Resolver: resolver}).DialContext})
	if got, _, a, err := do(p, request(t, "POST", strings.NewReader("x")), policy()); got != "hello" || a.Tries != 1 {
		t.Errorf("%q %+v %v", got, a, err)
	}
}

func TestMutualTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.TLS.ServerName, " ", len(r.TLS.PeerCertificates))
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	pinned := x509.NewCertPool()
	pinned.AddCert(s.Certificate())
	for name, tt := range map[string]struct {
		config *tls.Config
		want   string
	}{
		"as it should be":   {&tls.Config{RootCAs: pinned, ServerName: "example.com", Certificates: s.TLS.Certificates}, "example.com 1"},
		"no certificate":    {&tls.Config{RootCAs: pinned, ServerName: "example.com"}, ""},
		"another CA":        {&tls.Config{RootCAs: x509.NewCertPool(), ServerName: "example.com", Certificates: s.TLS.Certificates}, ""},
		"another's name":    {&tls.Config{RootCAs: pinned, ServerName: "other.test", Certificates: s.TLS.Certificates}, ""},
		"the system's only": {&tls.Config{Certificates: s.TLS.Certificates}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTestPool(t, PoolOptions{Origins: []string{s.URL}, TLS: tt.config})
			pol := policy()
			pol.Attempts = 1
			if got, _, _, err := do(p, request(t, "GET", nil), pol); got != tt.want {
				t.Errorf("%q %v", got, err)
			}
		})
	}
}

// TestProxyProtocolOut: the origin learns the client, and no connection serves two.
func TestProxyProtocolOut(t *testing.T) {
	client := netip.MustParseAddr("192.0.2.7")
	for version, want := range map[string]string{
		"v1": "PROXY TCP4 192.0.2.7 127.0.0.1 0 PORT\r\n",
		"v2": "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\x7f\x00\x00\x01\x00\x00",
	} {
		t.Run(version, func(t *testing.T) {
			got := make(chan string, 10)
			origin := hostile(t, func(c net.Conn) {
				r := bufio.NewReader(c)
				first := ""
				if version == "v1" {
					first, _ = r.ReadString('\n')
					_, port, _ := net.SplitHostPort(c.LocalAddr().String())
					first = strings.Replace(first, " "+port+"\r", " PORT\r", 1)
				} else {
					b := make([]byte, 28)
					_, _ = io.ReadFull(r, b)
					first = string(b[:26])
				}
				got <- first
				for {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				}
			})
			p := newTestPool(t, PoolOptions{Origins: []string{origin}, ProxyProtocol: version})
			pol := policy()
			pol.Client = client
			for range 3 {
				if text, _, _, err := do(p, request(t, "GET", nil), pol); text != "ok" {
					t.Fatal(err)
				}
				if h := <-got; h != want {
					t.Errorf("%q, want %q", h, want)
				}
			}
		})
	}
}

func TestProxyHeader(t *testing.T) {
	four, six := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 80}, &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 443}
	for _, tt := range []struct {
		client string
		origin net.Addr
		want   string
	}{
		{"192.0.2.7", four, "PROXY TCP4 192.0.2.7 10.0.0.1 0 80\r\n"},
		{"2001:db8::9", six, "PROXY TCP6 2001:db8::9 2001:db8::1 0 443\r\n"},
		{"192.0.2.7", six, "PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 0 443\r\n"},
		{"", four, "PROXY UNKNOWN\r\n"},
		{"192.0.2.7", &net.UnixAddr{}, "PROXY UNKNOWN\r\n"},
	} {
		client, _ := netip.ParseAddr(tt.client)
		if got := string(proxyHeader("v1", client, tt.origin)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.client, got, tt.want)
		}
		v2 := proxyHeader("v2", client, tt.origin)
		if int(v2[15])+16 != len(v2) || !bytes.HasPrefix(v2, []byte("\r\n\r\n\x00\r\nQUIT\n")) {
			t.Errorf("%s: %x", tt.client, v2)
		}
	}
}

// TestConnectionAge: old connections take nothing new, and what is on its way there is finished.
func TestConnectionAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPool(t, PoolOptions{Origins: names(1), ConnectionAge: time.Minute})
		o := p.members.Load().list[0]
		first := o.fresh(time.Now())
		pass(59 * time.Second)
		if o.fresh(time.Now()) != first {
			t.Error("replaced too early")
		}
		pass(time.Second)
		second := o.fresh(time.Now())
		if second == first || o.fresh(time.Now()) != second {
			t.Error("not replaced once")
		}
	})
}
