package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"landfall/gateway/admin"
)

// TestFaultIsNotStored: a fault that an answer met on its way through another node's cache is told of that answer, and not of
// those that this node's cache makes of it.
func TestFaultIsNotStored(t *testing.T) {
	site := origin(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Cache-Control", "max-age=600") })
	nodes := sharedFleet(t, 35, 1, 2, site, "chaos: {enabled: true, faults: {drill: {delay: 1ms}}}")
	c := clientsOf(t, nodes)[1]
	for round := range 2 {
		told, hits := 0, 0
		for path := range 20 { // half of them belong to the other node
			for range 12 { // so that they are hot, and are stored here too the next time
				resp, _ := get(t, c, "GET", fmt.Sprint("http://shop.test/", path))
				fault, status := resp.Header.Get("X-Landfall-Fault"), resp.Header.Get("Cache-Status")
				if fault == "drill" {
					told++
				}
				if strings.Contains(status, "landfall; hit") {
					if hits++; fault != "" {
						t.Fatalf("a hit (%s) is said to have met the fault %s", status, fault)
					}
				}
			}
		}
		if told != 20 || hits == 0 {
			t.Errorf("round %d: of 20 misses %d were told, and there were %d hits", round, told, hits)
		}
		if _, err := nodes[0].admin.Purge(t.Context(), admin.PurgeRequest{Service: "web", All: true}, admin.WaitAll, 5*time.Second); err != nil {
			t.Fatal(err)
		}
	}
}
