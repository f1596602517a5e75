package lab

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"landfall/gateway/admin"
)

// buildLandfall builds the program whose processes a real lab runs.
func buildLandfall(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "landfall")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "landfall/cmd/landfall").CombinedOutput()
	if err != nil {
		t.Fatalf("build landfall: %v\n%s", err, out)
	}
	return bin
}

// A whole lab with real nodes: it starts, loses and regains a region, tells of a node that dies by itself, and leaves
// nothing behind.
func TestLabOfRealNodes(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program and runs a fleet of real processes")
	}
	n, tmp := freeNet(t), t.TempDir()
	bin := buildLandfall(t)
	t.Setenv("TMPDIR", tmp)
	t.Setenv("LANDFALL_REGION", "mars") // whoever starts a lab may have this for another node
	var told notes
	l, err := Start(t.Context(), Options{Net: n, Regions: 2, Nodes: 1, Traffic: 20, Executable: bin, Out: &told})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Stop()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	control := Control{Addr: ControlAddr(n), Client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
	f, err := control.Fleet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	eachUp(t, f, true)
	if f.PID != os.Getpid() || filepath.Dir(f.Dir) != tmp {
		t.Errorf("the lab says it is process %d with its files in %s", f.PID, f.Dir)
	}
	checkBanner(t, l, f)
	pids := fleetPIDs(f)

	second, err := Start(t.Context(), Options{Net: n, Regions: 1, Nodes: 1, Executable: bin})
	if err == nil {
		second.Stop()
		t.Fatal("a second lab of the same net started")
	}
	if !strings.Contains(err.Error(), "perhaps a lab runs already") {
		t.Errorf("a second lab: %v", err)
	}

	// Its trickle of traffic is served.
	eventually(t, func() string {
		if got := l.Fleet().Traffic; got.Requests-got.Failed < 20 {
			return "the lab's traffic is not served"
		}
		return ""
	})
	if got := l.Fleet().Traffic; got.Failed > 0 {
		t.Errorf("the lab's traffic: %+v", got)
	}

	checkDistance(t, f)
	killAndRevive(t, l, control, n, &pids)
	if said := told.String(); said != "" {
		t.Errorf("a region that was killed on purpose was told as news: %s", said)
	}
	dieAlone(t, l, &told)

	f = l.Fleet()
	pids = append(pids, fleetPIDs(f)...)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	l.Stop()
	l.Stop() // more than once is fine
	if left := allGone(pids); left != "" {
		t.Error(left)
	}
	if left := inUse(f, n); left != "" {
		t.Error(left)
	}
	if left, _ := os.ReadDir(tmp); len(left) > 0 {
		t.Errorf("the folder was left behind: %v", left)
	}
}

func fleetPIDs(f Fleet) []int {
	var pids []int
	for _, r := range f.Regions {
		for _, n := range r.Nodes {
			if n.PID != 0 {
				pids = append(pids, n.PID)
			}
		}
	}
	return pids
}

func eachUp(t *testing.T, f Fleet, up bool) {
	t.Helper()
	for _, r := range f.Regions {
		if r.Up != up || (r.Nodes[0].PID != 0) != up {
			t.Errorf("region %s is up: %t, its node's process is %d", r.Name, r.Up, r.Nodes[0].PID)
		}
	}
}

func checkBanner(t *testing.T, l *Lab, f Fleet) {
	t.Helper()
	var b strings.Builder
	l.Banner(&b)
	for _, want := range []string{"2 regions, 2 nodes", f.Dir, f.CA, f.Regions[1].Client.String(), "export LANDFALL_ADMIN=" + f.Admin, "drill kill-region --net", "20 requests/s"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in the banner:\n%s", want, b.String())
		}
	}
}

// checkDistance checks that nodes are as far from each other as the plan says: what a node measures is the round trip.
func checkDistance(t *testing.T, f Fleet) {
	t.Helper()
	for i, r := range f.Regions {
		far := f.Regions[1-i].Name
		api := admin.NewClient(r.Nodes[0].Admin(), "", &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}})
		eventually(t, func() string {
			nodes, err := api.Nodes(t.Context())
			if err != nil {
				return err.Error()
			}
			for _, n := range nodes {
				if n.Region == far && n.RTT > 0 {
					if n.RTT < float64(r.RTT[far]) {
						t.Errorf("%s measures %g ms to %s, which is %d ms away", r.Name, n.RTT, far, r.RTT[far])
					}
					return ""
				}
			}
			return "no round trip is measured"
		})
	}
}

// killAndRevive kills the first region, reaches the other through the CLI's way in, and brings the first back.
func killAndRevive(t *testing.T, l *Lab, control Control, net int, pids *[]int) {
	t.Helper()
	home := l.Fleet().Regions[0]
	if err := control.KillRegion(t.Context(), home.Name); err != nil {
		t.Fatal(err)
	}
	f := l.Fleet()
	eachUp(t, Fleet{Regions: f.Regions[:1]}, false)
	eachUp(t, Fleet{Regions: f.Regions[1:]}, true)
	if left := allGone([]int{home.Nodes[0].PID}); left != "" {
		t.Error(left)
	}
	api := admin.NewClient(AdminAddr(net), "", &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}})
	s, err := api.Status(t.Context())
	if err != nil || s.Region != f.Regions[1].Name {
		t.Errorf("the CLI's way in leads to %q (%v)", s.Region, err)
	}
	var starting sync.WaitGroup
	for range 3 { // each process starts once, however often it is asked for
		starting.Go(func() {
			if err := control.StartRegion(t.Context(), home.Name); err != nil {
				t.Error(err)
			}
		})
	}
	starting.Wait()
	eachUp(t, l.Fleet(), true)
	*pids = append(*pids, fleetPIDs(l.Fleet())...)
	eventually(t, func() string {
		if err := l.missing(t.Context(), admin.NewClient(f.Regions[1].Nodes[0].Admin(), "", l.client)); err != nil {
			return err.Error()
		}
		return ""
	})
}

// dieAlone ends a node behind the lab's back: that is told once, with the end of its log, and the lab goes on.
func dieAlone(t *testing.T, l *Lab, told *notes) {
	t.Helper()
	node := l.Fleet().Regions[1].Nodes[0]
	if err := syscall.Kill(node.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if told.String() == "" {
			return "nobody tells that the node died"
		}
		return ""
	})
	said := told.String()
	for _, want := range []string{node.Name + " (process", "ended by itself: signal: killed", "The lab goes on", node.Name + ".log", "node=" + node.Name} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in:\n%s", want, said)
		}
	}
	f := l.Fleet()
	if f.Regions[1].Up || f.Regions[1].Nodes[0].PID != 0 || !f.Regions[0].Up {
		t.Errorf("after its death: %+v", f.Regions)
	}
	if err := l.StartRegion(f.Regions[1].Name); err != nil {
		t.Error(err)
	}
	eachUp(t, l.Fleet(), true)
	if strings.Count(told.String(), "ended by itself") != 1 {
		t.Errorf("told more than once:\n%s", told.String())
	}
}
