package gateway

import (
	"strings"
	"testing"
	"time"

	"landfall/gateway/admin"
)

// What a node has on disk answers after its restart, unless it was purged while the node was away; and a purge that the
// node had applied doesn't take what it fetched afterwards.
func TestPurgesHoldOnDisk(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 97)
	dir := t.TempDir()
	for _, r := range f.regions {
		_ = f.nodes[r].kill()
	}
	write(t, f.file, f.config("cache: {disk: {path: "+dir+", size: 16MiB}}\n"))
	for _, r := range f.regions {
		f.launch(r)
	}
	for _, r := range f.regions {
		f.nodes[r].awaitReady()
	}
	f.settle()
	purge := func(at, path string) {
		t.Helper()
		if _, err := f.nodes[at].admin.Purge(t.Context(), admin.PurgeRequest{Service: "web", URLs: []string{"https://shop.test" + path}}, "", 5*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	status := func(path string) string {
		resp, _ := f.get("us", path)
		return resp.Header.Get("Cache-Status")
	}
	status("/cached?kept")
	status("/cached?gone")
	status("/cached?again")
	purge("ap", "/cached?again")
	status("/cached?again") // came after the purge
	if err := f.nodes["us"].kill(); err != nil && !strings.Contains(err.Error(), "canceled") {
		t.Fatal(err)
	}
	purge("eu", "/cached?gone")
	f.launch("us")
	f.nodes["us"].awaitReady()
	for path, want := range map[string]string{"/cached?kept": "disk", "/cached?again": "disk", "/cached?gone": "uri-miss"} {
		if got := status(path); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if !f.nodes["us"].hasEvent("cache.recalled us-1") {
		t.Error("no event tells of what is on disk")
	}
	stats, err := f.nodes["us"].admin.Cache(t.Context())
	if err != nil || stats.Disk == nil || stats.Disk.Objects == 0 || stats.Disk.Down {
		t.Errorf("%+v %v", stats, err)
	}
}
