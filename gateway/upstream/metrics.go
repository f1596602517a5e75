package upstream

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are what pools measure. Made once in a process by NewMetrics and given to every pool, across reloads. What
// describes the present (breakers, requests in flight, panic) is read from the living pools when it is collected, so that
// nothing is left of a pool that was closed. Safe for concurrent use.
type Metrics struct {
	requests  *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	retries   *prometheus.CounterVec
	exhausted *prometheus.CounterVec
	refused   *prometheus.CounterVec
	panicked  *prometheus.CounterVec
	ejections *prometheus.CounterVec
	hedges    *prometheus.CounterVec
	shed      *prometheus.CounterVec

	breaker  *prometheus.Desc
	whole    *prometheus.Desc
	inFlight *prometheus.Desc
	limit    *prometheus.Desc
	panicNow *prometheus.Desc

	mu    sync.Mutex
	pools map[*Pool]uint64 // the number tells which of two is newer
	made  uint64
}

// NewMetrics makes the metrics and registers them with reg; nil registers them nowhere.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &Metrics{
		requests: counter("landfall_origin_requests_total",
			"Attempts made on origins, by class of the response's status; error: there was no response.", "service", "region", "code"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "landfall_origin_duration_seconds",
			Help:    "Time from the start of an attempt to the origin's response headers, connecting included.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},

			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"service"}),
		retries: counter("landfall_retries_total", "Attempts that were retries, by what the attempt before failed of.", "service", "cause"),
		exhausted: counter("landfall_retry_budget_exhausted_total",
			"Retries that were due and not made because the pool's budget was spent.", "service"),
		refused: counter("landfall_pool_refused_total", "Requests that no origin of the pool could take, by cause.", "service", "cause"),
		panicked: counter("landfall_pool_panic_requests_total",
			"Attempts made while the pool used all of its origins because too many looked down.", "service", "region"),
		ejections: counter("landfall_ejections_total", "Origins that were left out of their pool for a while, by reason.", "service", "reason"),
		hedges: counter("landfall_hedges_total",
			"Second attempts beside a slow first one: won and lost by which answered, refused when the budget was spent.", "service", "result"),
		shed: counter("landfall_shed_total", "Requests refused because the origins are at the limit of what they can work on, by priority.",
			"service", "priority"),
		breaker: prometheus.NewDesc("landfall_breaker_state", "Circuit breaker of an origin: 0 closed, 1 half-open, 2 open.",
			[]string{"service", "origin"}, nil),
		whole: prometheus.NewDesc("landfall_pool_breaker_state", "Circuit breaker of a whole pool: 0 closed, 1 half-open, 2 open.",
			[]string{"service", "region"}, nil),
		inFlight: prometheus.NewDesc("landfall_origin_requests_in_flight", "Requests that origins are serving.", []string{"service"}, nil),
		limit: prometheus.NewDesc("landfall_concurrency_limit",
			"Requests that an origin may have in flight, given or learned; absent where pool.concurrency is off.", []string{"service", "origin"}, nil),
		panicNow: prometheus.NewDesc("landfall_pool_panic",
			"1 while the pool uses all of its origins because too many look down, else 0.", []string{"service", "region"}, nil),
		pools: map[*Pool]uint64{},
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.duration, m.retries, m.exhausted, m.refused, m.panicked, m.ejections, m.hedges, m.shed, (*live)(m))
	}
	return m
}

func (m *Metrics) add(p *Pool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.made++
	m.pools[p] = m.made
}

func (m *Metrics) remove(p *Pool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pools, p)
}

// live collects what describes the present. During a reload two pools of a service and region live at once: requests in
// flight add up, of the rest the newer pool's holds.
type live Metrics

func (l *live) Describe(ch chan<- *prometheus.Desc) {
	ch <- l.breaker
	ch <- l.whole
	ch <- l.inFlight
	ch <- l.limit
	ch <- l.panicNow
}

func (l *live) Collect(ch chan<- prometheus.Metric) {
	type reading struct {
		of    uint64
		value float64
	}
	inFlight := map[string]float64{}
	breakers, whole, panics, limits := map[[2]string]reading{}, map[[2]string]reading{}, map[[2]string]reading{}, map[[2]string]reading{}
	put := func(m map[[2]string]reading, a, b string, r reading) {
		if old := m[[2]string{a, b}]; old.of <= r.of {
			m[[2]string{a, b}] = r
		}
	}
	for p, made := range l.snapshot() {
		service, panicking := p.o.Service, 0.0
		if p.panicking.Load() {
			panicking = 1
		}
		put(panics, service, p.o.Region, reading{made, panicking})
		put(whole, service, p.o.Region, reading{made, float64(p.breaker.state())})
		inFlight[service] += 0
		for _, o := range p.members.Load().list {
			if limit := o.limiter.current(); limit > 0 {
				put(limits, service, o.name, reading{made, limit})
			}
			inFlight[service] += float64(o.inFlight.Load())
			put(breakers, service, o.name, reading{made, float64(o.breaker.state())})
		}
	}
	for service, n := range inFlight {
		ch <- prometheus.MustNewConstMetric(l.inFlight, prometheus.GaugeValue, n, service)
	}
	for k, r := range breakers {
		ch <- prometheus.MustNewConstMetric(l.breaker, prometheus.GaugeValue, r.value, k[0], k[1])
	}
	for k, r := range whole {
		ch <- prometheus.MustNewConstMetric(l.whole, prometheus.GaugeValue, r.value, k[0], k[1])
	}
	for k, r := range limits {
		ch <- prometheus.MustNewConstMetric(l.limit, prometheus.GaugeValue, r.value, k[0], k[1])
	}
	for k, r := range panics {
		ch <- prometheus.MustNewConstMetric(l.panicNow, prometheus.GaugeValue, r.value, k[0], k[1])
	}
}

func (l *live) snapshot() map[*Pool]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	pools := make(map[*Pool]uint64, len(l.pools))
	for p, made := range l.pools {
		pools[p] = made
	}
	return pools
}

// poolMetrics are the series of one pool, looked up once.
type poolMetrics struct {
	byClass   [6]prometheus.Counter // by the first digit of the status; 0 is "error"
	duration  prometheus.Observer
	retries   map[string]prometheus.Counter
	refused   map[string]prometheus.Counter
	exhausted prometheus.Counter
	panicked  prometheus.Counter
	ejections map[string]prometheus.Counter
	hedges    map[string]prometheus.Counter
	shed      [priorities]prometheus.Counter
}

func (m *Metrics) of(service, region string) *poolMetrics {
	pm := &poolMetrics{
		duration:  m.duration.WithLabelValues(service),
		exhausted: m.exhausted.WithLabelValues(service),
		panicked:  m.panicked.WithLabelValues(service, region),
		retries:   map[string]prometheus.Counter{},
		refused:   map[string]prometheus.Counter{},
		ejections: map[string]prometheus.Counter{},
		hedges:    map[string]prometheus.Counter{},
	}
	for _, reason := range []string{ejectConsecutive, ejectRate, ejectLatency} {
		pm.ejections[reason] = m.ejections.WithLabelValues(service, reason)
	}
	for _, result := range []string{hedgeWon, hedgeLost, hedgeRefused} {
		pm.hedges[result] = m.hedges.WithLabelValues(service, result)
	}
	for i, priority := range [priorities]string{"critical", "normal", "background"} {
		pm.shed[i] = m.shed.WithLabelValues(service, priority)
	}
	for i, class := range [...]string{"error", "1xx", "2xx", "3xx", "4xx", "5xx"} {
		pm.byClass[i] = m.requests.WithLabelValues(service, region, class)
	}
	for _, cause := range []string{CauseConnect, CauseReset, CauseTimeout, CauseStatus} {
		pm.retries[cause] = m.retries.WithLabelValues(service, cause)
	}
	for _, cause := range []string{CauseAllEjected, CauseBreakerOpen, CauseAtBound, CauseShed} {
		pm.refused[cause] = m.refused.WithLabelValues(service, cause)
	}
	return pm
}

// code counts an attempt's status. Statuses out of 100 to 599 are counted as errors.
func (pm *poolMetrics) code(status int) {
	class := status / 100
	if class < 0 || class >= len(pm.byClass) {
		class = 0
	}
	pm.byClass[class].Inc()
}
