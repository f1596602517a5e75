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
// purge takes, and many at once, which is how many a second there may be. Between the regions is a delay of 20 ms one way.
// applied-p99-ms is the time until the last node has applied a purge, which is to be that delay and at most 10 ms; p50-ms and
// p99-ms until the one who asked has heard so, which takes the way back, too.
func BenchmarkPurgeFleet(b *testing.B) {
	const delay = 20 * time.Millisecond
	fleet := threeNodes(b, "http://127.0.0.1:1", map[string]time.Duration{"r1": delay, "r2": delay, "r3": delay})
	purge := func(i int) (applied time.Duration) {
		req := admin.PurgeRequest{Service: "web", Keys: []string{fmt.Sprint("key-", i)}}
		n := fleet[0].n
		records, err := n.purgeRecords(req, "bench", time.Now())
		if err != nil {
			b.Fatal(err)
		}
		job := newPurgeJob(records, n.purgeScope(admin.WaitAll))
		begun := time.Now()
		n.purgeWriter.submit(job)
		for _, p := range fleet {
			p.n.purges.wait(b.Context(), []string{records[0].key()})
		}
		applied = time.Since(begun)
		if err := job.wait(b.Context()); err != nil || len(job.result(req, records[0]).Applied) != len(fleet) {
			b.Errorf("%+v %v", job.result(req, records[0]), err)
		}
		return applied
	}
	for _, at := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("%d-at-once", at), func(b *testing.B) {
			var mu sync.Mutex
			var took, applied []time.Duration
			var purging sync.WaitGroup
			next := make(chan int)
			for range at {
				purging.Go(func() {
					for i := range next {
						begun := time.Now()
						there := purge(i)
						mu.Lock()
						applied = append(applied, there)
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
			slices.Sort(applied)
			b.ReportMetric(float64(applied[len(applied)*99/100].Microseconds())/1000, "applied-p99-ms")
			b.ReportMetric(float64(len(took))/time.Since(begun).Seconds(), "purges/s")
			b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Milliseconds()), "p99-ms")
		})
	}
}
