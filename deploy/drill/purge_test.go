package drill

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"landfall/cache/history"
	"landfall/deploy/lab"
	"landfall/gateway/admin"
)

// versions stands for a fleet of one node, its origin and its admin API: what the writers and readers of the purge drill
// talk to.
type versions struct {
	mu      sync.Mutex
	origin  map[string]string
	cached  map[string]string
	forgets bool // each third purge is confirmed and not applied
	purges  atomic.Int64
	reads   atomic.Int64
}

func (v *versions) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	object := strings.TrimPrefix(r.URL.Path, "/versions/")
	switch {
	case r.URL.Path == "/v1/purge":
		var req admin.PurgeRequest
		_ = json.NewDecoder(r.Body).Decode(&req)
		for _, target := range append(req.Keys, req.URLs...) {
			if n := v.purges.Add(1); !v.forgets || n%3 > 0 {
				delete(v.cached, target[strings.LastIndexAny(target, "-/")+1:])
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(admin.PurgeResult{ID: "x", Applied: []admin.PurgeApplied{{Node: "n", Region: "east", Removed: 1}}})
	case r.Method == http.MethodPut:
		v.origin[object] = r.URL.Query().Get("v")
	default:
		if v.cached[object] == "" {
			v.cached[object] = v.origin[object]
		}
		v.reads.Add(1)
		_, _ = io.WriteString(w, v.cached[object])
	}
}

// TestPurgeDrillFindsPlantedBugs: the drill's own writers, readers and judge find a node that confirms purges which it does not
// apply, and nothing at one that applies them.
func TestPurgeDrillFindsPlantedBugs(t *testing.T) {
	for _, forgets := range []bool{false, true} {
		t.Run(fmt.Sprint("forgets ", forgets), func(t *testing.T) {
			v := &versions{origin: map[string]string{}, cached: map[string]string{}, forgets: forgets}
			srv := httptest.NewServer(v)
			defer srv.Close()
			way := &http.Transport{MaxIdleConnsPerHost: 16, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, srv.Listener.Addr().String())
			}}
			defer way.CloseIdleConnections()
			node := lab.Node{Name: "n", Addr: netip.MustParseAddr("127.0.0.1")}
			s := &session{o: Options{Out: io.Discard}, now: time.Now, history: history.New(), report: &Report{}, fleet: lab.Fleet{
				Host: "shop.test", Regions: []lab.Region{{Name: "east", Nodes: []lab.Node{node}, Origins: []string{"http://origin.test"}}},
			}}
			out := &PurgeReport{}
			client := &http.Client{Transport: way}
			w := &purgeWriters{s: s, client: client, admin: client, version: make([]int, drillObjects), report: out}
			for object := range drillObjects {
				w.write(t.Context(), object)
			}
			stop := make(chan struct{})
			var running sync.WaitGroup
			for i := range 3 {
				running.Go(func() { w.run(t.Context(), stop, rand.New(rand.NewPCG(1, uint64(i))), i) })
			}
			for i := range readers {
				running.Go(func() { s.readVersions(t.Context(), stop, client, node, rand.New(rand.NewPCG(2, uint64(i)))) })
			}
			deadline := time.After(30 * time.Second)
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for v.purges.Load() < 40 || v.reads.Load() < 300 {
				select {
				case <-tick.C:
				case <-deadline:
					t.Fatalf("%d purges, %d reads", v.purges.Load(), v.reads.Load())
				}
			}
			close(stop)
			running.Wait()
			s.judgePurges(out)
			if found := len(out.Violations) > 0 && len(s.report.Broken) > 0; found != forgets || out.Failed > 0 {
				t.Errorf("%+v, broken: %v", out, s.report.Broken)
			}
		})
	}
}
