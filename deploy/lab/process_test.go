package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// freeNet is a net that no lab of this machine uses.
func freeNet(t *testing.T) int {
	t.Helper()
	for range 50 {
		n := 10 + rand.IntN(MaxNet-10)
		probe, err := net.Listen("tcp", ControlAddr(n))
		if err == nil {
			_ = probe.Close()
			return n
		}
		if errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Skip("this system has no loopback addresses but 127.0.0.1")
		}
	}
	t.Fatal("no net is free")
	return 0
}

// notes is a writer that can be read while others write.
type notes struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (n *notes) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.Write(p)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.String()
}

// inUse tells which of the lab's own addresses are still in use.
func inUse(f Fleet, n int) string {
	addrs := []string{ControlAddr(n), AdminAddr(n)}
	for _, r := range f.Regions {
		for _, o := range r.Origins {
			addrs = append(addrs, strings.TrimPrefix(o, "http://"))
		}
		for _, node := range r.Nodes {
			for _, port := range []int{HTTPPort, HTTPSPort, DNSPort, meshPort, peerPort, adminPort} {
				addrs = append(addrs, net.JoinHostPort(node.Addr.String(), strconv.Itoa(port)))
			}
		}
	}
	var used []string
	for _, a := range addrs {
		l, err := net.Listen("tcp", a)
		if err != nil {
			used = append(used, a)
			continue
		}
		_ = l.Close()
		_, port, _ := net.SplitHostPort(a)
		if port == strconv.Itoa(DNSPort) || port == strconv.Itoa(meshPort) {
			p, err := net.ListenPacket("udp", a)
			if err != nil {
				used = append(used, a+"/udp")
				continue
			}
			_ = p.Close()
		}
	}
	if len(used) == 0 {
		return ""
	}
	return "these addresses are still in use: " + strings.Join(used, " ")
}

func TestChildrenEndWithTheirParent(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "TEST_PARENT="+t.TempDir())
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var pids []int
			for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "ready"; {
				pid, err := strconv.Atoi(lines.Text())
				if err != nil {
					t.Fatalf("the parent says %q", lines.Text())
				}
				pids = append(pids, pid)
			}
			if len(pids) != 2 || gone(pids[0]) || gone(pids[1]) {
				t.Fatalf("the children %v do not run", pids)
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			eventually(t, func() string { return allGone(pids) })
		})
	}
}

func TestWatchParentOutsideALab(t *testing.T) {
	for _, v := range []string{"", "x", "-1", "2"} {
		t.Setenv(ParentPipeEnv, v)
		WatchParent(func(int) { t.Errorf("%q: the process would end", v) })
	}
}

// A start that fails leaves nothing behind.
func TestStartCleansUpAfterAFailure(t *testing.T) {
	for _, c := range []struct {
		child string
		err   []string
	}{
		{"die", []string{"ended before the lab was up (exit status 3)", "boom: this child can't live"}},
		{"hang", []string{"the start of the lab was interrupted"}},
		{"missing", []string{"start eu-west-origins", "no such file"}},
	} {
		t.Run(c.child, func(t *testing.T) {
			n, pids := freeNet(t), t.TempDir()
			tmp := t.TempDir()
			t.Setenv("TMPDIR", tmp)
			t.Setenv("TEST_CHILD", c.child)
			t.Setenv("TEST_PIDS", pids)
			o := Options{Net: n, Regions: 2, Nodes: 1, Executable: os.Args[0], Out: t.Output()}
			if c.child == "missing" {
				o.Executable = filepath.Join(tmp, "nothing")
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if c.child == "hang" {
				var watching sync.WaitGroup
				defer watching.Wait()
				watching.Go(func() { // interrupted once all four children are there
					tick := time.NewTicker(5 * time.Millisecond)
					defer tick.Stop()
					for ctx.Err() == nil && len(pidsIn(t, pids)) < 4 {
						<-tick.C
					}
					cancel()
				})
			}
			l, err := Start(ctx, o)
			if err == nil {
				l.Stop()
				t.Fatal("the lab started")
			}
			for _, text := range c.err {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("no %q in the error: %v", text, err)
				}
			}
			if c.child == "hang" && !errors.Is(err, context.Canceled) {
				t.Errorf("an interrupt is told as %v", err)
			}
			if left := allGone(pidsIn(t, pids)); left != "" {
				t.Error(left)
			}
			if left := inUse(plan(n, 2, 1, Latency{}.between), n); left != "" {
				t.Error(left)
			}
			if left, _ := os.ReadDir(tmp); len(left) > 0 {
				t.Errorf("the folder was left behind: %v", left)
			}
		})
	}
}

func TestStartTellsOfPortsInUse(t *testing.T) {
	n := freeNet(t)
	f := plan(n, 2, 1, Latency{}.between)
	for addr, text := range map[string]string{
		ControlAddr(n): "perhaps a lab runs already (stop it with Ctrl-C, or give this one another --net)",
		AdminAddr(n):   "where the CLI looks for a node",
		net.JoinHostPort(f.Regions[1].Nodes[0].Addr.String(), strconv.Itoa(HTTPSPort)): "which something else uses",
		strings.TrimPrefix(f.Regions[1].Origins[1], "http://"):                         "which something else uses",
	} {
		taken, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		l, err := Start(t.Context(), Options{Net: n, Regions: 2, Nodes: 1, Executable: os.Args[0]})
		if err == nil {
			l.Stop()
		}
		if err == nil || !strings.Contains(err.Error(), text) || !strings.Contains(err.Error(), addr) {
			t.Errorf("%s in use: %v", addr, err)
		}
		_ = taken.Close()
		if left := inUse(f, n); left != "" {
			t.Error(left)
		}
	}
}

func TestStartInAFolderThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Options{Net: freeNet(t), Regions: 1, Nodes: 1, Dir: filepath.Join(file, "lab"), Executable: os.Args[0]}); err == nil || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("a folder below a file: %v", err)
	}
}

// The environment of whoever starts the lab does not reach into its nodes' flags.
func TestChildEnv(t *testing.T) {
	got := childEnv([]string{"PATH=/bin", "LANDFALL_REGION=mars", "LANDFALL_JOIN=10.0.0.1", "HOME=/root"})
	if fmt.Sprint(got) != "[PATH=/bin HOME=/root]" {
		t.Errorf("%q", got)
	}
}

func TestLastLines(t *testing.T) {
	l := &Lab{fleet: Fleet{Dir: t.TempDir()}}
	long := strings.Repeat("an old line\n", 10_000) + "one\ntwo\nthree\n"
	for name, c := range map[string]struct{ log, want string }{
		"short": {"one\n", "\tone"}, "long": {long, "\ttwo\n\tthree"}, "empty": {"", "\t(its log is empty)"},
	} {
		if err := os.WriteFile(l.logFile(name), []byte(c.log), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := l.lastLines(name, 2); got != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := l.lastLines("missing", 2); got != "\t(no log)" {
		t.Errorf("%q", got)
	}
}
