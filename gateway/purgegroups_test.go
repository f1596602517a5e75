package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestGroupsGoEverywhere: what an unsafe request invalidates by cache group goes on all nodes; past the bound it goes on the
// node that saw it alone, and that is counted.
func TestGroupsGoEverywhere(t *testing.T) {
	var version atomic.Int64
	u := origin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.Header().Set("Cache-Group-Invalidation", `"scripts"`)
			version.Add(1)
			return
		}
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("Cache-Groups", `"scripts"`)
		fmt.Fprint(w, version.Load())
	})
	fleet := threeNodes(t, u, nil)
	clients := clientsOf(t, fleet)
	warm := func() {
		for _, c := range clients {
			eventually(t, "it is stored", func() bool {
				resp, _ := get(t, c, "GET", "http://shop.test/a")
				return strings.Contains(resp.Header.Get("Cache-Status"), "hit")
			})
		}
	}
	warm()
	get(t, clients[0], "POST", "http://shop.test/form")
	if _, body := get(t, clients[0], "GET", "http://shop.test/a"); body != "1" {
		t.Errorf("where it was changed is %s", body)
	}
	for _, c := range clients {
		eventually(t, "it is gone everywhere", func() bool {
			_, body := get(t, c, "GET", "http://shop.test/a")
			return body == "1"
		})
	}
	warm()
	n := fleet[0].n
	n.groupPurges.limit.SetBurst(0)
	get(t, clients[0], "POST", "http://shop.test/form")
	if _, body := get(t, clients[0], "GET", "http://shop.test/a"); body != "2" || testutil.ToFloat64(n.metrics.node.groupsKept) != 1 {
		t.Errorf("past the bound, where it was changed is %s", body)
	}

	// Many of them share registers: a ring that turns fast is lost to nodes that were away for a moment.
	n.groupPurges.limit.SetBurst(groupPurgesAtOnce)
	issued := func() uint64 {
		n.purgeWriter.mu.Lock()
		defer n.purgeWriter.mu.Unlock()
		return n.purgeWriter.seq
	}
	before, began := issued(), time.Now()
	for range 60 {
		get(t, clients[0], "POST", "http://shop.test/form")
	}
	if most := 2 + uint64(time.Since(began)/groupPace); issued()-before > most {
		t.Errorf("60 requests made %d registers in %s, more than %d", issued()-before, time.Since(began), most)
	}
}

// A purge of groups is written, and read again, as it was.
func TestGroupRecord(t *testing.T) {
	c := purgeCutter{base: purgeRecord{ID: "x", Service: "s", Origin: "https://shop.test", By: "me", Issued: time.Unix(1000, 0)}}
	for i := range 400 {
		c.add(fmt.Sprintf("group %d %s", i, strings.Repeat("g", 30)), func(r *purgeRecord) *[]string { return &r.Groups })
	}
	total := 0
	for _, r := range c.records {
		total += r.targets()
		if n := len(encodePurge(r)); n > purgeBatchBytes {
			t.Errorf("a record of %d bytes", n)
		}
	}
	if total != 400 || len(c.records) < 2 {
		t.Errorf("%d groups in %d records", total, len(c.records))
	}
}
