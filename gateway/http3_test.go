package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/miekg/dns"
	dto "github.com/prometheus/client_model/go"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// http3Node runs a node with HTTP/3 and returns a browser that speaks nothing else to it.
func http3Node(t *testing.T, o http.HandlerFunc) (*process, *site, *http.Client) {
	t.Helper()
	s := newSite(t, "node-1")
	file := write(t, s.file("fleet.yaml"), fmt.Sprintf(`
listen: {http: ["127.0.0.1:0"], https: ["127.0.0.1:0"], http3: true, dns: ["127.0.0.1:0"]}
dns: {zones: {shop.test: {https: true}}}
tls: {certificates: [{cert: web.pem, key: web.key}]}
services: {web: {hosts: [shop.test], pools: {any: {origins: [%q]}}, routes: [{match: {path: /*}, cache: {}}]}}
`, origin(t, o)))
	p := start(t, Options{ConfigFile: file})
	tr := &http3.Transport{
		TLSClientConfig: &tls.Config{RootCAs: s.trust},
		Dial: func(ctx context.Context, _ string, cfg *tls.Config, conf *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, p.listen["http3"], cfg, conf)
		},
		DisableCompression: true,
	}
	t.Cleanup(func() { _ = tr.Close() })
	return p, s, &http.Client{Transport: tr, Timeout: long}
}

// HTTP/3 goes the way of the other protocols: to origins, through the cache, with refusals; it is told of, and measured.
func TestHTTP3(t *testing.T) {
	p, s, c := http3Node(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" && (r.ContentLength != 0 || len(r.TransferEncoding) > 0) {
			t.Errorf("the origin was sent a body with a GET: %d %v", r.ContentLength, r.TransferEncoding)
		}
		w.Header().Set("Cache-Control", "max-age=600")
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s %s %d trailer %s from %s", r.Method, r.URL, n, r.Trailer.Get("X-Sum"), r.Header.Get("X-Forwarded-For"))
	})
	for range 2 {
		resp, body := get(t, c, "GET", "https://shop.test/a")
		if resp.StatusCode != 200 || resp.ProtoMajor != 3 || body != "GET /a 0 trailer  from 127.0.0.1" {
			t.Errorf("%s %d %q", resp.Proto, resp.StatusCode, body)
		}
	}
	if resp, _ := get(t, c, "GET", "https://shop.test/a"); !strings.Contains(resp.Header.Get("Cache-Status"), "hit") {
		t.Errorf("Cache-Status: %q", resp.Header.Get("Cache-Status"))
	}
	req, _ := http.NewRequestWithContext(t.Context(), "POST", "https://shop.test/b", io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20))))
	req.Trailer = http.Header{"X-Sum": {"7"}}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(body) != "POST /b 1048576 trailer 7 from 127.0.0.1" {
		t.Errorf("POST: %d %q", resp.StatusCode, body)
	}
	req, _ = http.NewRequestWithContext(t.Context(), "GET", "https://shop.test/", nil)
	req.Host = "unknown.test"
	byTCP, _ := get(t, browser(t, p.listen["https"], s.trust), "GET", "https://shop.test/a")
	if resp, err = c.Do(req); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode < 400 || resp.StatusCode > 499 {
		t.Errorf("an unknown host: %d", resp.StatusCode)
	}
	if got := byTCP.Header.Get("Alt-Svc"); !strings.HasPrefix(got, `h3=":`) {
		t.Errorf("Alt-Svc by HTTP/2: %q", got)
	}
	m := new(dns.Msg)
	m.SetQuestion("shop.test.", dns.TypeHTTPS)
	in, _, err := (&dns.Client{Net: "tcp"}).Exchange(m, p.listen["dns"])
	if err != nil || len(in.Answer) == 0 || !strings.Contains(in.Answer[0].String(), `alpn="h3,h2"`) {
		t.Errorf("HTTPS record: %v %v", in, err)
	}
	c.CloseIdleConnections()
	_ = c.Transport.(*http3.Transport).Close()
	// The connection by TCP is open still, so this one is QUIC's. The table leaves loopback addresses out.
	eventually(t, "the round trip is told", func() bool {
		return sum(t, p, "landfall_client_rtt_seconds", func(m *dto.Metric) float64 { return float64(m.GetHistogram().GetSampleCount()) }) == 1
	})
}

// A client that goes away amid its request is the client's doing, not the origin's.
func TestHTTP3ClientGone(t *testing.T) {
	entered := make(chan struct{})
	p, _, c := http3Node(t, func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "GET", "https://shop.test/slow", nil)
	go func() {
		<-entered
		cancel()
	}()
	if resp, err := c.Do(req); err == nil {
		resp.Body.Close()
		t.Fatal("answered")
	}
	eventually(t, "the request has ended", func() bool { return len(p.n.server.InFlight()) == 0 })
	eventually(t, "it counts as the client's", func() bool {
		return sum(t, p, "landfall_refusals_total", func(m *dto.Metric) float64 {
			for _, l := range m.Label {
				if l.GetValue() == "client_gone" {
					return m.GetCounter().GetValue()
				}
			}
			return 0
		}) == 1
	})
}

// sum adds up what a metric says under all its labels.
func sum(t *testing.T, p *process, name string, of func(*dto.Metric) float64) (total float64) {
	t.Helper()
	all, err := p.n.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			for _, m := range f.Metric {
				total += of(m)
			}
		}
	}
	return total
}
