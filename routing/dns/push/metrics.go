package push

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics counts what pushers do. Made once a process; it survives reloads.
type Metrics struct {
	updates *prometheus.CounterVec
	elected *prometheus.GaugeVec
	pending *prometheus.GaugeVec
}

// NewMetrics registers the metrics with reg; nil registers them nowhere.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	return &Metrics{
		updates: f.NewCounterVec(prometheus.CounterOpts{
			Name: "landfall_dns_push_updates_total",
			Help: "Updates sent to another DNS provider, by target and result (done or failed).",
		}, []string{"target", "result"}),
		elected: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "landfall_dns_push_elected",
			Help: "1 where this node is the one that pushes to the target.",
		}, []string{"target"}),
		pending: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "landfall_dns_push_pending",
			Help: "Names whose addresses the target's provider has not been told of by this node.",
		}, []string{"target"}),
	}
}

// forget drops the series of a target that is pushed to no longer.
func (m *Metrics) forget(target string) {
	l := prometheus.Labels{"target": target}
	m.updates.DeletePartialMatch(l)
	m.elected.DeletePartialMatch(l)
	m.pending.DeletePartialMatch(l)
}
