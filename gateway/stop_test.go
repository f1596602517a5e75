package gateway

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"landfall/gateway/admin"
	"landfall/routing/mesh"
)

// wire is a raw HTTP/1.1 connection to a node.
type wire struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func dialWire(t *testing.T, addr string) *wire {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(long))
	t.Cleanup(func() { _ = conn.Close() })
	return &wire{t, conn, bufio.NewReader(conn)}
}

func (w *wire) get(path string) *http.Response {
	w.t.Helper()
	_, _ = fmt.Fprintf(w.conn, "GET %s HTTP/1.1\r\nHost: shop.test\r\n\r\n", path)
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp
}

// A stop goes in stages: the connections are told to go, what is in flight finishes, and the node ends without an error.
func TestStopInStages(t *testing.T) {
	u, begun, release := blocking(t)
	s := newSite(t, "node-1")
	file := write(t, s.file("fleet.yaml"), fmt.Sprintf(`
listen: {http: ["127.0.0.1:0"], https: ["127.0.0.1:0"], http_redirect: false}
tls: {certificates: [{cert: web.pem, key: web.key}]}
shutdown: {dns_wait: 500ms, grace: 10s}
services: {web: {hosts: [shop.test], pools: {any: {origins: [%q]}}}}
`, u))
	p := start(t, Options{ConfigFile: file})
	idle, busy := dialWire(t, p.listen["http"]), dialWire(t, p.listen["http"])
	if resp := idle.get("/"); resp.Close {
		t.Error("a serving node closes connections")
	} else {
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	goaway := make(chan error, 1)
	go func() { goaway <- awaitGoAway(p.listen["https"], s) }()
	slow := busy.get("/slow")
	receive(t, "the long request", begun)

	p.leave()
	eventually(t, "the node says that it leaves", func() bool { return p.n.state.Load() == mesh.Leaving })
	if err := p.admin.Ready(t.Context()); err == nil {
		t.Error("a leaving node is ready")
	}
	if err := p.admin.Health(t.Context()); err != nil {
		t.Errorf("a leaving node lives: %v", err)
	}
	resp := idle.get("/") // it still serves, and says goodbye
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 || !resp.Close {
		t.Errorf("while leaving: %d, Connection: close %v, %v", resp.StatusCode, resp.Close, err)
	}
	if err := receive(t, "GOAWAY on an idle HTTP/2 connection", goaway); err != nil {
		t.Error(err)
	}
	eventually(t, "new connections are refused", func() bool {
		c, err := net.Dial("tcp", p.listen["http"])
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	for _, stage := range []string{"stage 1 of 4", "stage 2 of 4"} {
		if !slices.ContainsFunc(p.events(), func(e string) bool { return strings.Contains(e, stage) }) {
			t.Errorf("no event tells of %s: %q", stage, p.events())
		}
	}
	close(release)
	if b, err := io.ReadAll(slow.Body); err != nil || string(b) != "first half, second half" {
		t.Errorf("the request in flight: %q %v", b, err)
	}
	if err := p.wait(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

// awaitGoAway reads an idle HTTP/2 connection to its GOAWAY.
func awaitGoAway(addr string, s *site) error {
	c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: s.trust, ServerName: "shop.test", NextProtos: []string{"h2"}})
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(long))
	_, _ = io.WriteString(c, http2.ClientPreface)
	f := http2.NewFramer(c, c)
	if err := f.WriteSettings(); err != nil {
		return err
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return fmt.Errorf("no GOAWAY came: %w", err)
		}
		if g, ok := frame.(*http2.GoAwayFrame); ok {
			if g.ErrCode != http2.ErrCodeNo {
				return fmt.Errorf("GOAWAY with %s", g.ErrCode)
			}
			return nil
		}
	}
}

func slowNode(t *testing.T, shutdown string) (*process, *http.Response) {
	t.Helper()
	u, begun, _ := blocking(t)
	file := write(t, filepath.Join(t.TempDir(), "fleet.yaml"), aloneWith(u, everything, "shutdown: "+shutdown))
	p := start(t, Options{ConfigFile: file})
	resp := dialWire(t, p.listen["http"]).get("/slow")
	receive(t, "the long request", begun)
	return p, resp
}

// What does not finish within the grace is cut, and named.
func TestStopCutsWhatHoldsItUp(t *testing.T) {
	p, resp := slowNode(t, "{dns_wait: 0s, grace: 200ms}")
	p.leave()
	if b, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("the request that was cut looks whole: %q", b)
	}
	if err := p.wait(); err != nil {
		t.Error(err)
	}
	var all []string
	for _, e := range p.n.events.List(0, 1000) {
		all = append(all, e.Detail)
	}
	if text := strings.Join(all, "\n"); !strings.Contains(text, "1 were cut: GET shop.test/slow") || !strings.Contains(text, "stage 4 of 4") {
		t.Errorf("%s", text)
	}
}

// A second signal skips the waits.
func TestSecondSignalCutsTheWaits(t *testing.T) {
	for _, shutdown := range []string{"{dns_wait: 1h, grace: 1h}", "{dns_wait: 0s, grace: 1h}"} {
		p, _ := slowNode(t, shutdown)
		p.leave()
		eventually(t, "the stop is under way", func() bool { return p.n.state.Load() == mesh.Leaving })
		if err := p.kill(); err != nil {
			t.Errorf("%s: %v", shutdown, err)
		}
	}
}

// A node that stops tells the fleet first: it is leaving and never dead, no DNS names it, and no request fails.
func TestLeavingNodeInAFleet(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 96)
	us := f.nodes["us"]
	failed := make(chan error, 1)
	stopped := make(chan struct{})
	go func() { // a client that resolves anew for each request, and takes the second address when the first refuses
		defer close(failed)
		for {
			select {
			case <-stopped:
				return
			default:
			}
			if err := f.visit("us"); err != nil {
				failed <- err
				return
			}
		}
	}()
	us.leave()
	eventually(t, "ap's DNS leaves us out", func() bool { return !f.named("us", "ap", "eu") })
	if err := us.wait(); err != nil {
		t.Error(err)
	}
	close(stopped)
	if err := <-failed; err != nil {
		t.Errorf("a request failed: %v", err)
	}
	for _, e := range f.nodes["eu"].events() {
		if strings.HasPrefix(e, "node.dead us-1") || strings.HasPrefix(e, "node.unreachable us-1") {
			t.Errorf("a node that left was called dead: %s", e)
		}
	}
	nodes, err := f.nodes["eu"].admin.Nodes(t.Context())
	if err != nil || slices.ContainsFunc(nodes, func(n admin.Node) bool { return n.Name == "us-1" && n.State == "serving" }) {
		t.Errorf("%+v %v", nodes, err)
	}
}

// visit makes one request as a client of a region does: resolve at another region's name server, try the addresses in
// their order.
func (f *testFleet) visit(region string) error {
	var last error
	for _, r := range strings.Fields(f.answers("eu", region)) {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: f.site.trust, ServerName: "shop.test"}}
		req, err := http.NewRequest("GET", "https://"+f.at(r, 1)+"/", nil)
		if err != nil {
			return err
		}
		req.Host = "shop.test"
		resp, err := (&http.Client{Transport: tr, Timeout: long}).Do(req)
		if last = err; err != nil {
			tr.CloseIdleConnections()
			continue
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		tr.CloseIdleConnections()
		if err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s (%v)", r, resp.Status, err)
		}
		return nil
	}
	return last
}
