package cache

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"landfall/cache/disk"
)

// Metrics are the cache's metrics. One Metrics serves all caches of a process, one after the other or at a time: gauges
// move by differences, and a closed cache takes its share out.
type Metrics struct {
	requests      map[string]prometheus.Counter
	peers         map[string]prometheus.Counter
	bytes         prometheus.Gauge
	objects       prometheus.Gauge
	evictions     prometheus.Counter
	reclaimed     prometheus.Counter
	diskBytes     prometheus.Gauge
	diskObjects   prometheus.Gauge
	diskDown      prometheus.Gauge
	diskHits      prometheus.Counter
	diskWrites    map[string]prometheus.Counter
	diskErrors    map[string]prometheus.Counter
	leaders       prometheus.Counter
	followers     prometheus.Counter
	revalidations map[string]prometheus.Counter
}

// Results of a request, the values of Outcome.Result.
const (
	Hit         = "hit"         // from the store, fresh
	Miss        = "miss"        // fetched, stored or not
	Stale       = "stale"       // from the store, stale-while-revalidate or stale-if-error
	Revalidated = "revalidated" // from the store, after the origin confirmed it
	Pass        = "pass"        // not for the cache to answer
	Collapsed   = "collapsed"   // shared the fetch of another request
	Failed      = "error"       // nothing to answer with
)

// How a revalidation ended.
const (
	confirmed = "not_modified"
	changed   = "changed"
	failed    = "error"
)

// NewMetrics registers the metrics; with nil they count but are not registered. Call it once a process.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	auto := promauto.With(reg)
	requests := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "landfall_cache_requests_total",
		Help: "Requests that came to the cache, by how they were answered.",
	}, []string{"result"})
	peers := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "landfall_cache_peer_served_total",
		Help: "Requests of other nodes' caches, by how they were answered; they are not in landfall_cache_requests_total.",
	}, []string{"result"})
	collapsed := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "landfall_cache_collapsed_total",
		Help: "Requests that shared a fetch: leaders whose fetch was shared, and followers who were answered by it.",
	}, []string{"role"})
	revalidations := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "landfall_cache_revalidations_total",
		Help: "Revalidations of stale objects, in the background too, by how they ended.",
	}, []string{"result"})
	bytes := auto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "landfall_cache_bytes",
		Help: "Bytes of cached objects and of those being fetched, overhead included.",
	}, []string{"tier"})
	m := &Metrics{
		requests:      make(map[string]prometheus.Counter),
		peers:         make(map[string]prometheus.Counter),
		revalidations: make(map[string]prometheus.Counter),
		bytes:         bytes.WithLabelValues("memory"),
		leaders:       collapsed.WithLabelValues("leader"),
		followers:     collapsed.WithLabelValues("follower"),
		objects: auto.NewGauge(prometheus.GaugeOpts{
			Name: "landfall_cache_objects",
			Help: "Objects in the cache, each variant for itself.",
		}),
		evictions: auto.NewCounter(prometheus.CounterOpts{
			Name: "landfall_cache_evictions_total",
			Help: "Objects evicted to make room; replaced and purged ones are not among them.",
		}),
	}
	m.reclaimed = auto.NewCounter(prometheus.CounterOpts{
		Name: "landfall_cache_reclaimed_total",
		Help: "Objects that the sweep behind purges gave back; those that a purge of their URL removed at once are not among them.",
	})
	m.disk(auto, bytes)
	for _, result := range []string{Hit, Miss, Stale, Revalidated, Pass, Collapsed, Failed} {
		m.requests[result] = requests.WithLabelValues(result)
		m.peers[result] = peers.WithLabelValues(result)
	}
	for _, result := range []string{confirmed, changed, failed} {
		m.revalidations[result] = revalidations.WithLabelValues(result)
	}
	return m
}

// Results of writes and of reads that went wrong.
const (
	written = "written"
	dropped = "dropped"
	corrupt = "corrupt"
)

func (m *Metrics) disk(auto promauto.Factory, bytes *prometheus.GaugeVec) {
	m.diskBytes = bytes.WithLabelValues("disk")
	m.diskObjects = auto.NewGauge(prometheus.GaugeOpts{
		Name: "landfall_cache_disk_objects",
		Help: "Objects in the cache on disk, each variant for itself.",
	})
	m.diskDown = auto.NewGauge(prometheus.GaugeOpts{
		Name: "landfall_cache_disk_down",
		Help: "1 while the disk of the cache can't be written, and new objects are kept in memory alone.",
	})
	m.diskHits = auto.NewCounter(prometheus.CounterOpts{
		Name: "landfall_cache_disk_loads_total",
		Help: "Objects that were brought back from disk to memory for a request.",
	})
	writes := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "landfall_cache_disk_writes_total",
		Help: "Objects for the cache on disk: written, or dropped because the disk was too slow, full or failing.",
	}, []string{"result"})
	errs := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "landfall_cache_disk_errors_total",
		Help: "Reads of the cache on disk that brought nothing: corrupt by checksum, or in error otherwise or too slow. Each was a miss.",
	}, []string{"result"})
	m.diskWrites, m.diskErrors = map[string]prometheus.Counter{}, map[string]prometheus.Counter{}
	for _, result := range []string{written, dropped} {
		m.diskWrites[result] = writes.WithLabelValues(result)
	}
	for _, result := range []string{corrupt, failed} {
		m.diskErrors[result] = errs.WithLabelValues(result)
	}
}

// diskMoved tells what happened on disk between two looks.
func (m *Metrics) diskMoved(from, to disk.Stats) {
	m.diskBytes.Add(float64(to.Bytes - from.Bytes))
	m.diskObjects.Add(float64(to.Records - from.Records))
	m.diskWrites[written].Add(float64(to.Written - from.Written))
	m.diskWrites[dropped].Add(float64(to.Dropped - from.Dropped))
	m.diskErrors[corrupt].Add(float64(to.Corrupt - from.Corrupt))
	m.diskErrors[failed].Add(float64(to.Failed - from.Failed))
	down := map[bool]float64{true: 1}
	m.diskDown.Add(down[to.Down] - down[from.Down])
}
