package gateway

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"landfall/cache"
	"landfall/gateway/admin"
	"landfall/gateway/certs"
	"landfall/gateway/compress"
	"landfall/gateway/feeds"
	"landfall/gateway/homes"
	"landfall/gateway/proxy"
	"landfall/gateway/server"
	"landfall/gateway/upstream"
	"landfall/healthcheck"
	"landfall/routing"
	"landfall/routing/dns"
	"landfall/routing/dns/push"
	"landfall/routing/mesh"
)

// metricSets are the metrics of all parts. They are made once a process and survive reloads.
type metricSets struct {
	admin    *admin.Metrics
	cache    *cache.Metrics
	certs    *certs.Metrics
	compress *compress.Metrics
	feeds    *feeds.Metrics
	dns      *dns.Metrics
	push     *push.Metrics
	health   *healthcheck.Metrics
	homes    *homes.Metrics
	doors    *healthcheck.DoorMetrics
	mesh     *mesh.Metrics
	proxy    *proxy.Metrics
	server   *server.Metrics
	upstream *upstream.Metrics
	node     *nodeMetrics
	controls *controlMetrics
}

func newMetrics(reg prometheus.Registerer) metricSets {
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return metricSets{
		admin: admin.NewMetrics(reg), cache: cache.NewMetrics(reg), certs: certs.NewMetrics(reg), compress: compress.NewMetrics(reg),
		push: push.NewMetrics(reg), feeds: feeds.NewMetrics(reg),
		dns: dns.NewMetrics(reg), health: healthcheck.NewMetrics(reg), doors: healthcheck.NewDoorMetrics(reg), homes: homes.NewMetrics(reg), mesh: mesh.NewMetrics(reg), proxy: proxy.NewMetrics(reg),
		server: server.NewMetrics(reg), upstream: upstream.NewMetrics(reg), node: newNodeMetrics(reg), controls: newControlMetrics(reg),
	}
}

// nodeMetrics are those of the node as a whole.
type nodeMetrics struct {
	healthy *prometheus.GaugeVec
	drained *prometheus.GaugeVec
	hash    *prometheus.GaugeVec
	purges  prometheus.Histogram

	clientRTT         *prometheus.HistogramVec
	rttRows           prometheus.Gauge
	purged, purgeGaps prometheus.Counter
	groupsKept        prometheus.Counter
	cutOff            prometheus.Gauge

	load     *prometheus.GaugeVec
	spilling *prometheus.GaugeVec
	stretch  *prometheus.GaugeVec
	spilled  *prometheus.CounterVec

	shown []Drain // owned by observe: drains that the gauge shows
}

func newNodeMetrics(reg prometheus.Registerer) *nodeMetrics {
	m := &nodeMetrics{
		healthy: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "landfall_region_healthy",
			Help: "1 when the region has a live node and is not dead as this observer's region sees it, else 0."}, []string{"region", "observer"}),
		drained: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "landfall_drain_state",
			Help: "1 while a drain of a region or node is in force."}, []string{"kind", "name"}),
		hash: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "landfall_config_hash_info",
			Help: "Always 1; the label is the hash of the config in force."}, []string{"hash"}),
		purges: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "landfall_purge_applied_seconds",
			Help:    "Time from a purge's acceptance at this node until every live node had applied it.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}),
	}
	m.clientRTT = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "landfall_client_rtt_seconds",
		Help:    "Smallest round trip of each client connection, as the kernel measured it.",
		Buckets: []float64{.001, .002, .005, .01, .02, .03, .05, .075, .1, .15, .2, .3, .5, 1}}, []string{"region"})
	m.rttRows = prometheus.NewGauge(prometheus.GaugeOpts{Name: "landfall_client_rtt_prefixes",
		Help: "Prefixes of clients, wider networks included, whose round trips are remembered."})
	m.purged = prometheus.NewCounter(prometheus.CounterOpts{Name: "landfall_purges_total",
		Help: "Purges that this node has applied; one with very many targets counts as several."})
	m.purgeGaps = prometheus.NewCounter(prometheus.CounterOpts{Name: "landfall_purge_gaps_total",
		Help: "Times that this node had missed purges for good and dropped all it had cached."})
	m.cutOff = prometheus.NewGauge(prometheus.GaugeOpts{Name: "landfall_cache_isolated",
		Help: "1 while the node is cut off from the mesh and confirms each cached object with its origin."})
	m.groupsKept = prometheus.NewCounter(prometheus.CounterOpts{Name: "landfall_cache_groups_local_total",
		Help: "Cache groups that were invalidated by Cache-Group-Invalidation at this node alone, since there were too many to tell the fleet."})
	reg.MustRegister(m.purged, m.purgeGaps, m.groupsKept, m.cutOff)
	m.load = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "landfall_region_load_ratio",
		Help: "Clients' requests a second of a region's nodes, as a share of its capacity; absent without a capacity."}, []string{"region"})
	m.spilling = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "landfall_spill_share",
		Help: "Share of a service's clients that this node's region sends on, since it is full."}, []string{"service", "region"})
	m.stretch = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "landfall_origin_latency_ratio",
		Help: "Latency of a service's origins in this node's region as a multiple of its own baseline; 0: too few answers to say."}, []string{"service", "region"})
	m.spilled = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "landfall_spill_total",
		Help: "DNS answers that led past a full region, by the region that was nearest and the one that was answered."}, []string{"from", "to"})
	reg.MustRegister(m.healthy, m.drained, m.hash, m.purges, m.load, m.spilling, m.stretch, m.spilled, m.clientRTT, m.rttRows)
	return m
}

func (m *nodeMetrics) config(hash string) {
	m.hash.Reset()
	m.hash.WithLabelValues(hash).Set(1)
}

// observe shows a snapshot. One call at a time.
func (m *nodeMetrics) observe(observer string, s *routing.Snapshot, drains []Drain) {
	for _, r := range s.Regions {
		up := 1.0
		if r.Dead {
			up = 0
		}
		m.healthy.WithLabelValues(r.Name, observer).Set(up)
		if r.Capacity > 0 {
			m.load.WithLabelValues(r.Name).Set(r.Load / r.Capacity)
		}
	}
	for _, d := range missingFrom(m.shown, drains) {
		m.drained.DeleteLabelValues(d.Kind, d.Name)
	}
	for _, d := range drains {
		m.drained.WithLabelValues(d.Kind, d.Name).Set(1)
	}
	m.shown = drains
}

// rate is a counter of requests with their rate, smoothed over some seconds.
type rate struct {
	count     atomic.Uint64
	perSecond atomic.Uint64 // thousandths

	// Owned by the goroutine that calls tick.
	last     uint64
	lastTick time.Time
}

// tick folds what was counted since the last tick into the rate. Half of the rate is at most 2 seconds old.
func (r *rate) tick(now time.Time) {
	if r.lastTick.IsZero() {
		r.lastTick = now
		return
	}
	d := now.Sub(r.lastTick).Seconds()
	if d <= 0 {
		return
	}
	count := r.count.Load()
	current := float64(count-r.last) / d
	weight := min(1, d/2)
	smoothed := float64(r.perSecond.Load())/1000*(1-weight) + current*weight
	r.perSecond.Store(uint64(smoothed*1000 + 0.5))
	r.last, r.lastTick = count, now
}

func (r *rate) value() float64 { return float64(r.perSecond.Load()) / 1000 }
