package main

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"landfall/gateway/admin"
	"landfall/gateway/certs"
)

// The fleet of the test below.
const (
	thirtyRegions = 10
	thirtyEach    = 3
	thirtyAll     = thirtyRegions * thirtyEach
)

// thirty is a fleet of real processes, each on a loopback address of its own.
type thirty struct {
	t      *testing.T
	binary string
	dir    string
	ports  []string // http, mesh, peer, admin: the same on every address
	nodes  [thirtyAll]*program
	api    [thirtyAll]*admin.Client
}

func thirtyName(i int) string   { return fmt.Sprintf("r%d-%d", i/thirtyEach, i%thirtyEach+1) }
func thirtyRegion(i int) string { return fmt.Sprint("r", i/thirtyEach) }
func thirtyAddr(i int) string   { return fmt.Sprintf("127.0.86.%d", i+1) }

func newThirty(t *testing.T) *thirty {
	t.Helper()
	f := &thirty{t: t, dir: t.TempDir()}
	f.binary = filepath.Join(f.dir, "landfall")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", f.binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	for len(f.ports) < 4 {
		f.ports = append(f.ports, f.freePort())
	}
	ca, err := certs.NewCA("thirty", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	f.write("ca.pem", ca.CertPEM())
	for i := range thirtyAll {
		cert, key, err := ca.Issue([]string{thirtyName(i)}, nil, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		f.write(thirtyName(i)+".pem", cert)
		f.write(thirtyName(i)+".key", key)
		f.api[i] = admin.NewClient(net.JoinHostPort(thirtyAddr(i), f.ports[3]), "", nil)
		t.Cleanup(f.api[i].Close)
	}
	origin := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(origin.Close)
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	var regions []string
	for r := range thirtyRegions {
		regions = append(regions, fmt.Sprintf("r%d: {}", r))
	}
	f.write("fleet.yaml", fmt.Appendf(nil, `
fleet: thirty
regions: {%s}
listen: {http: [":%s"], mesh: ":%s", peer: ":%s"}
mesh: {join: [%s, %s], key: "%s", tls: {ca: ca.pem, cert: "${NODE}.pem", key: "${NODE}.key"}}
shutdown: {dns_wait: 0s, grace: 1s}
services: {web: {hosts: [web.test], pools: {any: {origins: [%q]}}}}
`, strings.Join(regions, ", "), f.ports[0], f.ports[1], f.ports[2], thirtyAddr(0), thirtyAddr(thirtyEach), base64.StdEncoding.EncodeToString(key), origin.URL))
	return f
}

func (f *thirty) write(name string, data []byte) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), data, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// freePort is a port that is free on every address, for TCP and UDP, and not yet taken by this test.
func (f *thirty) freePort() string {
	f.t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", thirtyAddr(0)+":0")
		if err != nil {
			f.t.Skipf("this system has no loopback address %s: %v", thirtyAddr(0), err)
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		_ = l.Close()
		free := !slices.Contains(f.ports, port)
		for i := 0; i < thirtyAll && free; i++ {
			at := net.JoinHostPort(thirtyAddr(i), port)
			if l, err := net.Listen("tcp", at); err != nil {
				free = false
			} else {
				_ = l.Close()
			}
			if u, err := net.ListenPacket("udp", at); err != nil {
				free = false
			} else {
				_ = u.Close()
			}
		}
		if free {
			return port
		}
	}
	f.t.Fatal("no port is free on every address")
	return ""
}

// launch starts a node on the data that it left.
func (f *thirty) launch(i int) {
	f.t.Helper()
	p := &program{ended: make(chan struct{}), Cmd: exec.Command(f.binary, "run", "--config", filepath.Join(f.dir, "fleet.yaml"), "--node", thirtyName(i),
		"--region", thirtyRegion(i), "--bind", thirtyAddr(i), "--data", filepath.Join(f.dir, "data-"+thirtyName(i)),
		"--admin", net.JoinHostPort(thirtyAddr(i), f.ports[3]))}
	p.Stdout, p.Stderr = &p.out, &p.err
	p.Env = append(os.Environ(), "GOMAXPROCS=2")
	if err := p.Start(); err != nil {
		f.t.Fatal(err)
	}
	go func() { _ = p.Wait(); close(p.ended) }()
	f.t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.ended
		if f.t.Failed() && i%thirtyEach == 0 {
			said := p.err.String()
			f.t.Logf("the last words of %s:\n%s", thirtyName(i), said[max(len(said)-2000, 0):])
		}
	})
	f.nodes[i] = p
}

// all waits until each of the nodes tells what is wanted, asking them side by side.
func (f *thirty) all(what string, nodes []int, ok func(api *admin.Client) bool) time.Duration {
	f.t.Helper()
	begun := time.Now()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var late []string
	for _, i := range nodes {
		wg.Go(func() {
			poll := time.NewTicker(50 * time.Millisecond)
			defer poll.Stop()
			for !ok(f.api[i]) {
				if time.Since(begun) > time.Minute || f.t.Context().Err() != nil {
					mu.Lock()
					late = append(late, thirtyName(i))
					mu.Unlock()
					return
				}
				<-poll.C
			}
		})
	}
	wg.Wait()
	if len(late) > 0 {
		f.t.Fatalf("%s: not within a minute on %v", what, late)
	}
	return time.Since(begun)
}

// serving counts the nodes that serve and are reached, as one node sees it.
func (f *thirty) serving(api *admin.Client, want int) bool {
	nodes, err := api.Nodes(f.t.Context())
	count := 0
	for _, n := range nodes {
		if n.State == "serving" && (n.Reachable || n.Self) {
			count++
		}
	}
	return err == nil && count == want
}

// Thirty real processes in ten regions: they find each other, a write reaches all, a region that is killed is known to be
// dead everywhere, and comes back with what it missed.
func TestThirtyProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("thirty processes take half a minute; not with -short")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("there is no go command to build the program with")
	}
	f := newThirty(t)
	var everybody, dead, rest []int
	for i := range thirtyAll {
		everybody = append(everybody, i)
		if thirtyRegion(i) == "r5" {
			dead = append(dead, i)
		} else {
			rest = append(rest, i)
		}
		f.launch(i)
	}
	took := f.all("every node sees thirty that serve", everybody, func(api *admin.Client) bool { return f.serving(api, thirtyAll) })
	t.Logf("whole after %s", took.Round(time.Millisecond))

	target := admin.DrainTarget{Kind: admin.DrainRegion, Name: "r9"}
	begun := time.Now()
	res, err := f.api[7].Drain(t.Context(), target, admin.DrainSpec{Reason: "works", Force: true}, 30*time.Second)
	if err != nil || len(res.Applied) != thirtyAll || len(res.Missing) != 0 {
		t.Fatalf("a drain came to %d nodes, missing %v: %v", len(res.Applied), res.Missing, err)
	}
	t.Logf("a write was on every disk after %s", time.Since(begun).Round(time.Millisecond))
	f.all("every node holds it", everybody, func(api *admin.Client) bool {
		drains, err := api.Drains(t.Context())
		return err == nil && len(drains) == 1
	})

	// A node that meets others before its links to them are there may find a region down, and then waits its return out.
	took = f.all("no region is down", everybody, func(api *admin.Client) bool {
		verdicts, _, err := api.Verdicts(t.Context())
		return err == nil && !slices.ContainsFunc(verdicts, func(v admin.Verdict) bool { return v.Service == "" && v.State == "down" })
	})
	t.Logf("no region was down after another %s", took.Round(time.Millisecond))
	for _, i := range dead {
		f.nodes[i].signal(syscall.SIGKILL)
	}
	took = f.all("every other node finds the region down", rest, func(api *admin.Client) bool {
		st, err := api.Status(t.Context())
		return err == nil && slices.ContainsFunc(st.Regions, func(r admin.RegionSummary) bool { return r.Name == "r5" && r.State == "down" })
	})
	t.Logf("a killed region was known to all after %s", took.Round(time.Millisecond))
	for _, i := range rest {
		verdicts, _, err := f.api[i].Verdicts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range verdicts { // on regions as such: a machine that stands still fails the checks of origins, too
			if v.Region != "r5" && v.Service == "" && v.State == "down" {
				t.Errorf("%s finds %s down too: %s", thirtyName(i), v.Region, v.Evidence)
			}
		}
	}
	if res, err = f.api[22].Undrain(t.Context(), target, 30*time.Second); err != nil || len(res.Applied) != len(rest) {
		t.Errorf("while the region is dead a write came to %d of %d nodes, missing %v: %v", len(res.Applied), len(rest), res.Missing, err)
	}

	for _, i := range dead {
		<-f.nodes[i].ended
		f.launch(i)
	}
	took = f.all("the fleet is whole again", everybody, func(api *admin.Client) bool {
		drains, err := api.Drains(t.Context())
		return err == nil && len(drains) == 0 && f.serving(api, thirtyAll)
	})
	t.Logf("whole again after %s", took.Round(time.Millisecond))
	for _, p := range f.nodes {
		p.signal(syscall.SIGTERM)
	}
	for i, p := range f.nodes {
		if code := p.exit(t); code != 0 {
			t.Errorf("%s ended with %d", thirtyName(i), code)
		}
	}
}
