package homes

import "github.com/prometheus/client_golang/prometheus"

// Metrics are made once a process and survive reloads.
type Metrics struct {
	share   *prometheus.GaugeVec
	pins    *prometheus.GaugeVec
	lookups *prometheus.CounterVec
}

// NewMetrics registers the metrics; nil registers them nowhere.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		share: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "landfall_migration_share",
			Help: "Share of the users that change homes in a migration who have moved, 0 to 1."}, []string{"service"}),
		pins: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "landfall_home_pins",
			Help: "Users that operators keep in a region."}, []string{"service"}),
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "landfall_home_lookups_total",
			Help: "Homes asked of the lookup service or its memory: fresh, stale (kept while it is asked again, or fails), asked, unknown (it knows no home) or failed."},
			[]string{"service", "result"}),
	}
	if reg != nil {
		reg.MustRegister(m.share, m.pins, m.lookups)
	}
	return m
}

func (m *Metrics) show(service string, share float64, pins int) {
	m.share.WithLabelValues(service).Set(share)
	m.pins.WithLabelValues(service).Set(float64(pins))
}

func (m *Metrics) forget(service string) {
	m.share.DeleteLabelValues(service)
	m.pins.DeleteLabelValues(service)
}
