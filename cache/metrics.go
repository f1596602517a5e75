package cache

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
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
	for _, result := range []string{Hit, Miss, Stale, Revalidated, Pass, Collapsed, Failed} {
		m.requests[result] = requests.WithLabelValues(result)
		m.peers[result] = peers.WithLabelValues(result)
	}
	for _, result := range []string{confirmed, changed, failed} {
		m.revalidations[result] = revalidations.WithLabelValues(result)
	}
	return m
}
