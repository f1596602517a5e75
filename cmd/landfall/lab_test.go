package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"landfall/deploy/lab"
)

// labIn starts `landfall lab` with files below tmp and returns it once it is up.
func labIn(t *testing.T, tmp string, n int, args ...string) (*program, lab.Fleet) {
	t.Helper()
	p := start(t, []string{"TMPDIR=" + tmp}, append([]string{"lab", "--net", strconv.Itoa(n), "--regions", "2"}, args...)...)
	p.says(t, &p.out, "Ctrl-C stops everything.")
	control := lab.Control{Addr: lab.ControlAddr(n), Client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
	f, err := control.Fleet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p, f
}

// freeNet is a net that no lab of this machine uses.
func freeNet(t *testing.T) int {
	t.Helper()
	for range 50 {
		n := 10 + rand.IntN(lab.MaxNet-10)
		probe, err := net.Listen("tcp", lab.ControlAddr(n))
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

// leftOf tells what is left of a lab: processes, and listeners on its addresses.
func leftOf(f lab.Fleet, n int) string {
	var left []string
	for _, r := range f.Regions {
		for _, node := range r.Nodes {
			if !gone(node.PID) {
				left = append(left, fmt.Sprintf("process %d", node.PID))
			}
		}
	}
	for _, addr := range listening(f, n) {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			left = append(left, addr)
			continue
		}
		_ = l.Close()
	}
	if len(left) == 0 {
		return ""
	}
	return "left behind: " + strings.Join(left, " ")
}

func listening(f lab.Fleet, n int) []string {
	addrs := []string{lab.ControlAddr(n), lab.AdminAddr(n)}
	for _, r := range f.Regions {
		for _, o := range r.Origins {
			addrs = append(addrs, strings.TrimPrefix(o, "http://"))
		}
		for _, node := range r.Nodes {
			addrs = append(addrs, strings.TrimPrefix(node.Admin(), "http://"))
			for _, port := range []int{lab.HTTPPort, lab.HTTPSPort, lab.DNSPort} {
				addrs = append(addrs, net.JoinHostPort(node.Addr.String(), strconv.Itoa(port)))
			}
		}
	}
	return addrs
}

// Ctrl-C in a terminal reaches the whole process group. The lab ends quietly and leaves nothing behind; what the banner
// promises works while it runs.
func TestLabUntilCtrlC(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a fleet of real processes")
	}
	n, tmp := freeNet(t), t.TempDir()
	p, f := labIn(t, tmp, n)
	for _, args := range [][]string{
		{"status", "--admin", f.Admin}, {"drains", "--admin", f.Admin}, {"events", "--admin", f.Admin},
		{"explain", "https://" + f.Host + "/", "--client", f.Regions[1].Client.String(), "--admin", f.Admin},
		{"drain", "region", f.Regions[1].Name, "--reason", "trying it out", "--admin", f.Admin}, {"undrain", "region", f.Regions[1].Name, "--admin", f.Admin},
		{"purge", "--service", "shop", "--url", "http://" + f.Host + "/assets/app.css", "--admin", f.Admin},
	} {
		code, out, errs := command(t, args...)
		if code != 0 || out == "" || errs != "" {
			t.Errorf("%v: exit %d\n%s%s", args, code, out, errs)
		}
		code, out, _ = command(t, append(args, "-o", "json")...)
		if dec := json.NewDecoder(strings.NewReader(out)); code != 0 || dec.Decode(new(any)) != nil {
			t.Errorf("%v -o json: exit %d\n%s", args, code, out)
		}
	}
	if code, _, errs := command(t, "drill", "kill-region", "--net", strconv.Itoa(n), "--region", "mars"); code != 1 || !strings.Contains(errs, `the lab has no region "mars"`) {
		t.Errorf("a drill on this lab: exit %d, %s", code, errs)
	}
	second := start(t, nil, "lab", "--net", strconv.Itoa(n))
	if code := second.exit(t); code != 1 || !strings.Contains(second.err.String(), "perhaps a lab runs already") {
		t.Errorf("a second lab: exit %d", code)
	}
	p.interrupt()
	if code := p.exit(t); code != 0 || p.err.String() != "" {
		t.Errorf("exit %d, it says %q", code, p.err.String())
	}
	if left := leftOf(f, n); left != "" {
		t.Error(left)
	}
	if left, _ := os.ReadDir(tmp); len(left) > 0 {
		t.Errorf("the folder was left behind: %v", left)
	}
}

// A lab that is killed takes its processes along. Its folder is for the next lab to remove.
func TestLabThatIsKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a fleet of real processes")
	}
	n, tmp := freeNet(t), t.TempDir()
	p, f := labIn(t, tmp, n, "--traffic", "0")
	p.signal(syscall.SIGKILL)
	<-p.ended
	eventually(t, func() string { return leftOf(f, n) })
	if _, err := os.Stat(filepath.Join(f.Dir, "fleet.yaml")); err != nil {
		t.Errorf("the folder of a crashed lab tells nothing any more: %v", err)
	}
	keep := filepath.Join(tmp, "landfall-lab-notes")
	if err := os.Mkdir(keep, 0o700); err != nil {
		t.Fatal(err)
	}
	next := start(t, []string{"TMPDIR=" + tmp}, "lab", "--net", strconv.Itoa(n), "--regions", "1", "--for", "1ms")
	if code := next.exit(t); code != 0 || next.err.String() != "" {
		t.Errorf("the next lab: exit %d, it says %q", code, next.err.String())
	}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) != 1 || left[0].Name() != filepath.Base(keep) {
		t.Errorf("left in the temporary folder: %v (%v)", left, err)
	}
}

func TestLabInterruptedWhileItStarts(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a fleet of real processes")
	}
	n, dir := freeNet(t), filepath.Join(t.TempDir(), "mine")
	p := start(t, nil, "lab", "--net", strconv.Itoa(n), "--dir", dir)
	p.until(t, func() string {
		if _, err := os.Stat(filepath.Join(dir, "eu-west-1.log")); err != nil {
			return "no node is started"
		}
		return ""
	})
	p.interrupt()
	if code := p.exit(t); code != 0 || p.err.String() != "" {
		t.Errorf("exit %d, it says %q", code, p.err.String())
	}
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("a folder that a person named was removed: %v", err)
	}
	l, err := net.Listen("tcp", lab.ControlAddr(n))
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

// eventually polls until a function lacks nothing.
func eventually(t *testing.T, lacks func() string) {
	t.Helper()
	tick, late := time.NewTicker(10*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for missing := lacks(); missing != ""; missing = lacks() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal(missing)
		}
	}
}
