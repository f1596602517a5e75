package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/pflag"

	"landfall/gateway/admin"
)

// node is a `landfall run` process with an origin behind it.
type node struct {
	*program
	config string // path of its file
	origin *httptest.Server
	hung   chan struct{} // receives when a request for /hang is at the origin
}

const nodeConfig = `
listen: {http: ["127.0.0.1:0"], admin: "127.0.0.1:0"}
shutdown: {dns_wait: %s, grace: %s}
services: {web: {hosts: [%s], pools: {any: {origins: [%s]}}}}
`

func startNode(t *testing.T, dnsWait, grace string, env []string, args ...string) *node {
	t.Helper()
	n := &node{config: filepath.Join(t.TempDir(), "fleet.yaml"), hung: make(chan struct{}, 16)}
	n.origin = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			n.hung <- struct{}{}
			<-r.Context().Done()
			return
		}
		fmt.Fprintln(w, "hello from the origin")
	}))
	t.Cleanup(func() { n.origin.CloseClientConnections(); n.origin.Close() })
	n.write(t, fmt.Sprintf(nodeConfig, dnsWait, grace, "a.example", n.origin.URL))
	n.program = start(t, env, append([]string{"run", "--config", n.config, "--node", "n1"}, args...)...)
	n.says(t, &n.out, "ready\n")
	return n
}

func (n *node) write(t *testing.T, config string) {
	t.Helper()
	if err := os.WriteFile(n.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}

// listens is the address of a listener of a kind, as the node printed it.
func (n *node) listens(t *testing.T, kind string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^listening ` + kind + ` +(\S+)$`).FindStringSubmatch(n.out.String())
	if m == nil {
		t.Fatalf("no line for %s in\n%s", kind, n.out.String())
	}
	return m[1]
}

func (n *node) api(t *testing.T) *admin.Client {
	t.Helper()
	c := admin.NewClient(n.listens(t, "admin"), "", nil)
	t.Cleanup(c.Close)
	return c
}

// get asks the node for a path of a host.
func (n *node) get(ctx context.Context, t *testing.T, host, path string) (status int, body string, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.listens(t, "http")+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data), err
}

func (n *node) serves(t *testing.T, host string) bool {
	t.Helper()
	status, body, err := n.get(t.Context(), t, host, "/")
	return err == nil && status == http.StatusOK && strings.Contains(body, "hello from the origin")
}

func TestRunStopsInStages(t *testing.T) {
	n := startNode(t, "10ms", "10s", nil)
	if !n.serves(t, "a.example") {
		t.Error("it does not serve")
	}
	n.signal(syscall.SIGTERM)
	if code := n.exit(t); code != 0 {
		t.Errorf("exit %d", code)
	}
	log, from := n.err.String(), 0
	for _, stage := range []string{"stage 1 of 4", "stage 2 of 4", "stage 3 of 4", "stage 4 of 4"} {
		i := strings.Index(log[from:], stage)
		if i < 0 {
			t.Fatalf("no %q after the ones before, in\n%s", stage, log)
		}
		from += i
	}
}

// Ctrl-C is as good as SIGTERM, and a second one cuts what the first waits for.
func TestRunIsCutByASecondSignal(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			n := startNode(t, "1h", "1h", nil)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() { _, _, err := n.get(ctx, t, "a.example", "/hang"); ended <- err }()
			<-n.hung
			n.signal(sig)
			n.says(t, &n.err, "stage 1 of 4")
			if !n.serves(t, "a.example") {
				t.Error("it does not serve while it waits for DNS to forget it")
			}
			n.signal(sig)
			if code := n.exit(t); code != 0 {
				t.Errorf("exit %d", code)
			}
			if err := <-ended; err == nil {
				t.Error("the request that hung was answered")
			}
			if log := n.err.String(); !strings.Contains(log, "1 were cut") || !strings.Contains(log, "GET a.example/hang") {
				t.Error("the log does not name what was cut")
			}
		})
	}
}

func TestRunReloads(t *testing.T) {
	n := startNode(t, "10ms", "10s", nil)
	api := n.api(t)
	before, err := api.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n.serves(t, "b.example") {
		t.Fatal("it serves a host that it has not")
	}
	n.write(t, fmt.Sprintf(nodeConfig, "10ms", "10s", "a.example, b.example", n.origin.URL))
	n.signal(syscall.SIGHUP)
	n.until(t, func() string {
		if c, err := api.Config(t.Context()); err != nil || c.Hash == before.Hash || c.LastError != "" {
			return fmt.Sprintf("the config is not reloaded: %+v, %v", c, err)
		}
		return ""
	})
	if !n.serves(t, "b.example") || !n.serves(t, "a.example") {
		t.Error("the new config is not served")
	}

	// A bad file is refused with all its errors, a file that needs a restart with what does; the old one stays.
	good, err := api.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ config, says string }{
		{"flet: shop\nlisten: {htp: []}\n", "listen.htp: unknown key"},
		{strings.Replace(fmt.Sprintf(nodeConfig, "10ms", "10s", "a.example", n.origin.URL), `http: ["127.0.0.1:0"]`, `http: ["127.0.0.1:0", "127.0.0.2:0"]`, 1), "listen changed: that needs a restart of the node"},
	} {
		n.write(t, c.config)
		n.signal(syscall.SIGHUP)
		n.says(t, &n.err, c.says)
		n.until(t, func() string {
			if got, err := api.Config(t.Context()); err != nil || got.Hash != good.Hash || !strings.Contains(got.LastError, c.says) {
				return fmt.Sprintf("the refusal does not show: %+v, %v", got, err)
			}
			return ""
		})
	}
	if !strings.Contains(n.err.String(), "the config was not reloaded; the old one stays in force") || !strings.Contains(n.err.String(), "flet: unknown key") {
		t.Error("the refusal is not told")
	}
	if !n.serves(t, "b.example") {
		t.Error("the old config is not served any more")
	}
	n.signal(syscall.SIGTERM)
	if code := n.exit(t); code != 0 {
		t.Errorf("exit %d", code)
	}
}

func TestRunCannotStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const services = "services: {web: {hosts: [\"*\"], pools: {any: {origins: [\"http://127.0.0.1:1\"]}}}}\n"
	good := file("good.yaml", "listen: {http: [\"127.0.0.1:0\"], admin: \"127.0.0.1:0\"}\n"+services)
	for _, c := range []struct {
		name string
		args []string
		code int
		says []string
	}{
		{"a port in use", []string{"--config", file("port.yaml", fmt.Sprintf("listen: {http: [%q], admin: \"127.0.0.1:0\"}\n", taken.Addr())+services)}, 1, []string{taken.Addr().String(), "in use"}},
		{"the admin port in use", []string{"--config", good, "--admin", taken.Addr().String()}, 1, []string{taken.Addr().String(), "the admin API"}},
		{"an invalid config", []string{"--config", file("bad.yaml", "listen: {http: [1, 2}\n")}, 2, []string{"bad.yaml:1"}},
		{"many errors", []string{"--config", file("many.yaml", "fleet: 7x!\nlisten: {htp: []}\nservices: {web: {hosts: []}}\n")}, 2, []string{"listen.htp: unknown key", "many.yaml:2", "many.yaml:3"}},
		{"a data folder that can't be", []string{"--config", good, "--data", filepath.Join(good, "data")}, 1, []string{"--data"}},
		{"an unknown region", []string{"--config", good, "--region", "mars"}, 1, []string{"--region mars is not in the config; its regions are local"}},
		{"a bind address that is none", []string{"--config", good, "--bind", "home"}, 1, []string{`--bind "home" is not an IP address`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := start(t, nil, append([]string{"run", "--node", "n1"}, c.args...)...)
			if code := p.exit(t); code != c.code {
				t.Errorf("exit %d, want %d", code, c.code)
			}
			for _, want := range c.says {
				if !strings.Contains(p.err.String(), want) {
					t.Errorf("it does not say %q", want)
				}
			}
			if strings.Contains(p.out.String(), "ready") || strings.Contains(p.err.String(), "goroutine ") {
				t.Error("it was ready, or panicked")
			}
		})
	}
}

// Every flag of run can be given by the environment, and the flag wins.
func TestRunEnvironment(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	n := startNode(t, "10ms", "10s", []string{"LANDFALL_NODE=from-env", "LANDFALL_REGION=local", "LANDFALL_DATA=" + data, "LANDFALL_ADMIN=http://127.0.0.3:0/", "LANDFALL_CONFIG=/nonexistent", "LANDFALL_BIND=127.0.0.1"})
	s, err := n.api(t).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Node != "n1" || s.Region != "local" || !strings.HasPrefix(n.listens(t, "admin"), "127.0.0.3:") {
		t.Errorf("node %s of %s, its admin API on %s", s.Node, s.Region, n.listens(t, "admin"))
	}
	if info, err := os.Stat(data); err != nil || !info.IsDir() {
		t.Errorf("no data folder: %v", err)
	}
	p := start(t, []string{"LANDFALL_CONFIG=" + n.config, "LANDFALL_NODE=from-env"}, "run")
	p.says(t, &p.err, "node=from-env")
	p.signal(syscall.SIGTERM)
	if code := p.exit(t); code != 0 {
		t.Errorf("exit %d", code)
	}
	for _, name := range []string{"LANDFALL_ADVERTISE=home", "LANDFALL_LATENCY=far"} {
		p := start(t, []string{name}, "run", "--config", n.config)
		if code := p.exit(t); code != 2 || !strings.Contains(p.err.String(), "expected") {
			t.Errorf("%s: exit %d, %s", name, code, p.err.String())
		}
	}
}

// The twin of each flag is read, whatever flags come.
func TestEnvTwins(t *testing.T) {
	c := runCommand()
	flags := c.Flags()
	seen := 0
	for _, name := range []string{"config", "node", "region", "bind", "advertise", "join", "data", "admin", "latency", "network"} {
		f := flags.Lookup(name)
		if f == nil {
			t.Fatalf("run has no --%s", name)
		}
		t.Setenv("LANDFALL_"+strings.ToUpper(name), "x1,x2")
		seen++
	}
	t.Setenv("LANDFALL_CLOCK", "-30s")
	seen++
	if err := flags.Set("node", "given"); err != nil {
		t.Fatal(err)
	}
	if err := envTwins(flags); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"node": "given", "config": "x1,x2", "admin": "x1,x2", "join": "[x1,x2]", "latency": "[x1,x2]", "clock": "-30s"} {
		if got := flags.Lookup(name).Value.String(); got != want {
			t.Errorf("--%s is %q, want %q", name, got, want)
		}
	}
	all := 0
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" {
			all++
		}
	})
	if all != seen {
		t.Errorf("run has %d flags, this test knows %d", all, seen)
	}
}

func TestValidateTellsEverythingAtOnce(t *testing.T) {
	dir := t.TempDir() + string(filepath.Separator)
	for name, text := range map[string]string{
		"keys.yaml":   "flet: shop\nlisten:\n  http: [\":80\"]\n  htps: [\":443\"]\nservices:\n  web:\n    hosts: [\"a.example\"]\n    pools: {any: {orgins: [\"http://127.0.0.1:1\"]}}\n",
		"values.yaml": "cache: {memory: plenty}\nlisten: {http: [\"80\"]}\nservices:\n  web:\n    hosts: [\"a b\"]\n    pools: {mars: {origins: [\"ftp://127.0.0.1\"]}}\n    routes: [{match: {path: api}, timeout: {total: soon}}]\n",
		"env.yaml":    "mesh: {key: \"${NO_SUCH_KEY}\"}\nservices: {web: {hosts: [\"*\"], pools: {any: {origins: [\"http://127.0.0.1:1\"]}}}}\n",
		"syntax.yaml": "services:\n  web: {hosts: [\n",
		"empty.yaml":  "",
	} {
		if err := os.WriteFile(dir+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var all strings.Builder
	for _, name := range []string{"keys", "values", "env", "syntax", "empty"} {
		code, out, errs := command(t, "validate", dir+name+".yaml")
		if code != 2 || out != "" {
			t.Errorf("%s: exit %d, %s", name, code, out)
		}
		fmt.Fprintf(&all, "$ landfall validate %s.yaml\n%s\n", name, strings.ReplaceAll(errs, dir, ""))
	}
	golden(t, "validate.txt", all.String())
	if err := os.WriteFile(dir+"good.yaml", []byte("services: {web: {hosts: [\"*\"], pools: {any: {origins: [\"http://127.0.0.1:1\"]}}}}\nlisten: {http: [\":0\"]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := command(t, "validate", dir+"good.yaml"); code != 0 || errs != "" || !regexp.MustCompile(`^good.yaml is valid: 1 regions, 1 services \(hash [0-9a-f]{12}\)\n$`).MatchString(strings.TrimPrefix(out, dir)) {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}
