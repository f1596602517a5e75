package gateway

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"landfall/gateway/admin"
)

// BenchmarkPurgeFleet purges by key through one of three nodes and waits for all of them: alone, which is how long one
// purge takes, and many at once, which is how many a second there may be. Between the regions is a delay of 20 ms.
func BenchmarkPurgeFleet(b *testing.B) {
	const delay = 20 * time.Millisecond
	fleet := threeNodes(b, "http://127.0.0.1:1", map[string]time.Duration{"r1": delay, "r2": delay, "r3": delay})
	purge := func(i int) {
		req := admin.PurgeRequest{Service: "web", Keys: []string{fmt.Sprint("key-", i)}}
		res, err := fleet[0].n.purge(b.Context(), req, admin.WaitAll, "bench")
		if err != nil || len(res.Applied) != len(fleet) {
			b.Errorf("%+v %v", res, err)
		}
	}
	for _, at := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("%d-at-once", at), func(b *testing.B) {
			var mu sync.Mutex
			var took []time.Duration
			var purging sync.WaitGroup
			next := make(chan int)
			for range at {
				purging.Go(func() {
					for i := range next {
						begun := time.Now()
						purge(i)
						mu.Lock()
						took = append(took, time.Since(begun))
						mu.Unlock()
					}
				})
			}
			begun := time.Now()
			for i := 0; b.Loop(); i++ {
				next <- i
			}
			close(next)
			purging.Wait()
			slices.Sort(took)
			b.ReportMetric(float64(len(took))/time.Since(begun).Seconds(), "purges/s")
			b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Milliseconds()), "p99-ms")
		})
	}
}
