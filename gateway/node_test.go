package gateway

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"landfall/configs"
	"landfall/gateway/admin"
)

// The smallest file that runs: one node, no mesh, no DNS.
func TestSmallestConfig(t *testing.T) {
	u := origin(t, pathf("hello"))
	file := write(t, filepath.Join(t.TempDir(), "fleet.yaml"), `
listen: {http: ["127.0.0.1:0"]}
services: {web: {hosts: ["*"], pools: {any: {origins: ["`+u+`"]}}}}
`)
	p := start(t, Options{ConfigFile: file})
	c := browser(t, p.listen["http"], nil)
	for i, want := range []string{"stored", "hit"} {
		resp, body := get(t, c, "GET", "http://anything.test/cached")
		if resp.StatusCode != 200 || body != "hello" || !strings.Contains(resp.Header.Get("Cache-Status"), want) {
			t.Errorf("request %d: %d %q %v", i, resp.StatusCode, body, resp.Header)
		}
	}
	ctx := t.Context()
	st, err := p.admin.Status(ctx)
	if err != nil || !st.Ready || st.State != "serving" || st.Region != "local" || len(st.Regions) != 1 || st.Regions[0].NodesLive != 1 {
		t.Errorf("%+v %v", st, err)
	}
	if err := errors.Join(p.admin.Ready(ctx), p.admin.Health(ctx)); err != nil {
		t.Error(err)
	}
	m, err := p.admin.Metrics(ctx)
	for _, want := range []string{`landfall_requests_total{code="2xx",route="/*",service="web"} 2`, `landfall_cache_requests_total{result="hit"} 1`, `landfall_config_hash_info{hash="` + st.ConfigHash} {
		if !strings.Contains(string(m), want) {
			t.Errorf("metrics lack %s (%v)", want, err)
		}
	}
	purged, err := p.n.purge(ctx, admin.PurgeRequest{Service: "web", URLs: []string{"http://anything.test/cached"}}, admin.WaitAll, "test")
	if err != nil || purged.Removed != 1 || len(purged.Applied) != 1 {
		t.Errorf("%+v %v", purged, err)
	}
	e, err := p.admin.Explain(ctx, "http://anything.test/cached", netip.MustParseAddr("192.0.2.1"))
	if err != nil || e.Service != "web" || e.Answer != nil || e.Route == nil || e.Pool == nil || len(e.Pool.Origins) != 1 {
		t.Errorf("%+v %v", e, err)
	}
	p.leave()
	if err := p.wait(); err != nil {
		t.Error(err)
	}
}

// whole is a config with every kind of listener, all on one address.
func whole(s *site, host string, port []string, extra string) string {
	return fmt.Sprintf(`
fleet: test
listen: {http: ["%[1]s:%[2]s"], https: ["%[1]s:%[3]s"], dns: ["%[1]s:%[4]s"], mesh: "%[1]s:%[5]s", peer: "%[1]s:%[6]s", admin: "%[1]s:%[7]s"}
mesh: {key: "%[8]s", tls: {ca: ca.pem, cert: "${NODE}.pem", key: "${NODE}.key"}}
dns: {zones: {shop.test: {ttl: 1s}}, geoip: places.mmdb}
tls: {certificates: [{cert: web.pem, key: web.key}]}
services: {web: {hosts: [shop.test], pools: {any: {origins: ["http://127.0.0.1:1"]}}}}
%[9]s`, host, port[0], port[1], port[2], port[3], port[4], port[5], s.key, extra)
}

// A start that fails says what to do, and closes what it had opened: the same ports serve the next start.
func TestNewFailsCleanly(t *testing.T) {
	const host = "127.0.0.1"
	s := newSite(t, "node-1")
	s.places(t, map[string][2]float64{"192.0.2.0/24": {53, -6}})
	port := ports(t, 6, host)
	good := whole(s, host, port, "")
	occupy := func(port string) func(*testing.T, *Options) string {
		return func(t *testing.T, _ *Options) string {
			l, err := net.Listen("tcp", net.JoinHostPort(host, port))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			return good
		}
	}
	for _, c := range []struct {
		name  string
		spoil func(*testing.T, *Options) string // returns the config
		want  []string                          // in the error
	}{
		{"http port in use", occupy(port[0]), []string{host + ":" + port[0]}},
		{"https port in use", occupy(port[1]), []string{host + ":" + port[1]}},
		{"dns port in use", occupy(port[2]), []string{host + ":" + port[2]}},
		{"mesh port in use", occupy(port[3]), []string{port[3]}},
		{"peer port in use", occupy(port[4]), []string{host + ":" + port[4]}},
		{"admin port in use", occupy(port[5]), []string{host + ":" + port[5], "admin"}},
		{"no such region", func(_ *testing.T, o *Options) string { o.Region = "mars"; return good }, []string{"--region mars", "local"}},
		{"no region said", func(*testing.T, *Options) string { return good + "regions: {eu: {}, us: {}}\n" }, []string{"--region", "eu, us"}},
		{"bind is no address", func(_ *testing.T, o *Options) string { o.Bind = "localhost"; return good }, []string{"--bind", "localhost"}},
		{"data folder is a file", func(t *testing.T, o *Options) string {
			o.DataDir = write(t, filepath.Join(t.TempDir(), "file"), "")
			return good
		}, []string{"--data"}},
		{"data folder below a file", func(t *testing.T, o *Options) string {
			o.DataDir = filepath.Join(write(t, filepath.Join(t.TempDir(), "file"), ""), "data")
			return good
		}, []string{"--data"}},
		{"data folder read-only", func(t *testing.T, o *Options) string {
			if os.Getuid() == 0 {
				o.DataDir = "/proc/self" // nobody may write there
			} else {
				o.DataDir = t.TempDir()
				_ = os.Chmod(o.DataDir, 0o500)
			}
			return good
		}, []string{"--data"}},
		{"no geoip file", func(*testing.T, *Options) string { return strings.Replace(good, "places.mmdb", "absent.mmdb", 1) }, []string{"dns.geoip", "absent.mmdb"}},
		{"geoip file of another kind", func(*testing.T, *Options) string { return strings.Replace(good, "places.mmdb", "web.pem", 1) }, []string{"dns.geoip", "web.pem"}},
		{"no certificate", func(*testing.T, *Options) string {
			return strings.Replace(good, "cert: web.pem", "cert: absent.pem", 1)
		}, []string{"tls.certificates[0]", "absent.pem"}},
		{"another's certificate", func(_ *testing.T, o *Options) string { o.Name = "node-2"; return good }, []string{"mesh.tls", "node-2.pem"}},
		{"access log in no folder", func(*testing.T, *Options) string { return good + "observe: {access_log: {path: absent/log}}\n" }, []string{"observe.access_log.path", "absent"}},
		{"invalid config", func(*testing.T, *Options) string { return good + "nonsense: 1\n" }, []string{"nonsense"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := withDefaults(Options{DataDir: t.TempDir(), Admin: net.JoinHostPort(host, port[5])})
			o.ConfigFile = write(t, s.file("fleet.yaml"), c.spoil(t, &o))
			n, err := New(o)
			if err == nil {
				n.close()
				t.Fatal("New succeeded")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q: %v", want, err)
				}
			}
		})
		// The obstacle is gone now: whatever the failed start had opened must be, too.
		o := withDefaults(Options{DataDir: t.TempDir(), Admin: net.JoinHostPort(host, port[5]), ConfigFile: write(t, s.file("fleet.yaml"), good)})
		n, err := New(o)
		if err != nil {
			t.Fatalf("after %q: %v", c.name, err)
		}
		n.close()
	}
}

// The options that say who a node is.
func TestIdentify(t *testing.T) {
	c, err := configs.Parse("x", []byte(`
regions: {eu: {}}
services: {web: {hosts: ["*"], pools: {any: {origins: ["http://127.0.0.1:1"]}}}}`), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := identify(Options{Bind: "127.0.0.9"}, c)
	if err != nil || id.region != "eu" || id.name == "" || len(id.addrs) != 1 || id.addrs[0].String() != "127.0.0.9" {
		t.Errorf("%+v %v", id, err)
	}
	id, err = identify(Options{Name: "n", Bind: "0.0.0.0", Advertise: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, c)
	if err != nil || id.addrs[0].String() != "192.0.2.1" || id.on(":80") != "0.0.0.0:80" || id.on("127.0.0.1:80") != "127.0.0.1:80" {
		t.Errorf("%+v %v", id, err)
	}
	if at, err := id.reachable("127.0.0.1:7443"); err != nil || at.String() != "192.0.2.1:7443" {
		t.Errorf("%v %v", at, err)
	}
	if id, err = identify(Options{Name: "n"}, c); err != nil || len(id.addrs) == 0 {
		t.Errorf("without --bind and --advertise: %+v %v", id, err)
	}
}

// A part that fails by itself ends the node, with its error, rather than leaving half of one.
func TestRunEndsWithAPart(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "fleet.yaml"), `
listen: {http: ["127.0.0.1:0"]}
services: {web: {hosts: ["*"], pools: {any: {origins: ["http://127.0.0.1:1"]}}}}
`)
	p := start(t, Options{ConfigFile: file})
	_ = p.n.adminListener.Close()
	if err := p.wait(); err == nil || !strings.Contains(err.Error(), "admin API") {
		t.Errorf("%v", err)
	}
}

// A node that stops goes on answering DNS with its own address while it has nobody else: a name that is not found is
// remembered by resolvers for longer than the node is away.
func TestLoneNodeIsNeverWithdrawn(t *testing.T) {
	u := origin(t, pathf("hello"))
	file := write(t, filepath.Join(t.TempDir(), "fleet.yaml"), `
listen: {http: ["127.0.0.1:0"], dns: ["127.0.0.1:0"]}
dns: {zones: {shop.test: {ttl: 1s}}}
shutdown: {dns_wait: 1h}
services: {web: {hosts: [shop.test], pools: {any: {origins: ["`+u+`"]}}}}
`)
	p := start(t, Options{ConfigFile: file, Advertise: []netip.Addr{netip.MustParseAddr("192.0.2.1")}})
	if got := ask(t, p.listen["dns"], "shop.test", ""); len(got) != 1 || got[0] != "192.0.2.1" {
		t.Errorf("serving: %v", got)
	}
	p.leave()
	eventually(t, "the node leaves", func() bool { st, err := p.admin.Status(t.Context()); return err == nil && st.State == "leaving" })
	if got := ask(t, p.listen["dns"], "shop.test", ""); len(got) != 1 || got[0] != "192.0.2.1" {
		t.Errorf("leaving: %v", got)
	}
	if err := p.admin.Ready(t.Context()); err == nil {
		t.Error("a leaving node is ready")
	}
}

// ask asks a node's name server for the A records of a name, as a resolver on behalf of client, over UDP.
func ask(t testing.TB, server, name, client string) []string {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), dns.TypeA)
	if client != "" {
		a := netip.MustParseAddr(client)
		o := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		o.SetUDPSize(1232)
		subnet := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: a.AsSlice()}
		if a.Is6() {
			subnet.Family, subnet.SourceNetmask = 2, 56
		}
		o.Option = append(o.Option, subnet)
		m.Extra = append(m.Extra, o)
	}
	for range 3 { // UDP may lose a packet
		in, _, err := (&dns.Client{Timeout: 2 * time.Second}).Exchange(m, server)
		if err != nil {
			continue
		}
		var out []string
		for _, rr := range in.Answer {
			if a, ok := rr.(*dns.A); ok {
				out = append(out, a.A.String())
			}
		}
		return out
	}
	t.Fatalf("%s does not answer", server)
	return nil
}

// Bad requests at the real door are refused with the node's pages, and never reach an origin.
func TestDoorAndChain(t *testing.T) {
	reached := make(chan string, 16)
	u := origin(t, func(w http.ResponseWriter, r *http.Request) { reached <- r.RequestURI })
	file := write(t, filepath.Join(t.TempDir(), "fleet.yaml"), `
listen: {http: ["127.0.0.1:0"]}
limits: {body: 1KiB}
services: {web: {hosts: [shop.test], pools: {any: {origins: ["`+u+`"]}}}}
`)
	p := start(t, Options{ConfigFile: file})
	for _, c := range []struct{ raw, status string }{
		{"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n", "404"},
		{"GET / HTTP/1.1\r\n\r\n", "400"},
		{"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400"},
		{"GET / HTTP/1.1\r\nHost: shop.test\r\nHost: shop.test\r\n\r\n", "400"},
		{"GET / HTTP/1.1\r\nHost: shop..test\r\n\r\n", "400"},
		{"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
		{"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2000\r\n\r\n", "413"},
		{"POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n800\r\n" + strings.Repeat("x", 2048) + "\r\n0\r\n\r\n", "413"},
		{"POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "400"},
		{"CONNECT shop.test:443 HTTP/1.1\r\nHost: shop.test:443\r\n\r\n", "40"},
		{"GET /../../x HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n", "200"},
	} {
		conn, err := net.Dial("tcp", p.listen["http"])
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(long))
		_, _ = io.WriteString(conn, c.raw)
		line, err := bufio.NewReader(conn).ReadString('\n')
		if !strings.HasPrefix(line, "HTTP/1.1 "+c.status) {
			t.Errorf("%.60q: %q %v, want %s", c.raw, line, err, c.status)
		}
		_ = conn.Close()
	}
	for got := ""; got != "/x"; { // the head of a body that then breaks may have been sent on before
		if got = receive(t, "the last request", reached); got != "/" && got != "/x" {
			t.Errorf("reached the origin: %s", got)
		}
	}
}
