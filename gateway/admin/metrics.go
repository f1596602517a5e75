package admin

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the admin API's own. Create them once per process.
type Metrics struct {
	requests *prometheus.CounterVec
	denied   *prometheus.CounterVec
	streams  prometheus.Gauge
}

// NewMetrics registers the metrics with reg; a nil reg keeps them unregistered.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "landfall_admin_requests_total",
			Help: "Requests to the admin API by operation (its OpenAPI operationId, or none) and status code.",
		}, []string{"operation", "code"}),
		denied: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "landfall_admin_denied_total",
			Help: "Requests to the admin API that were denied before their operation began, by the kind of the problem.",
		}, []string{"reason"}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "landfall_admin_event_streams",
			Help: "Open event streams of the admin API.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.denied, m.streams)
	}
	return m
}
