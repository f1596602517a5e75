package gateway

import "github.com/prometheus/client_golang/prometheus"

// controlMetrics are those of what operators turn at run time.
type controlMetrics struct {
	flags, canaries *prometheus.GaugeVec
	rollbacks       *prometheus.CounterVec
	faults          prometheus.Gauge
}

func newControlMetrics(reg prometheus.Registerer) *controlMetrics {
	m := &controlMetrics{
		flags: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "landfall_flag_weight_ratio",
			Help: "Share of the clients that a flag is on for."}, []string{"flag"}),
		canaries: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "landfall_canary_weight_ratio",
			Help: "Share of a service's clients that its canary serves; 0 when it was taken back."}, []string{"service", "to"}),
		rollbacks: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "landfall_canary_rollbacks_total",
			Help: "Canaries that were taken back since they were worse than the stable side, by whichever node."}, []string{"service", "to"}),
	}
	m.faults = prometheus.NewGauge(prometheus.GaugeOpts{Name: "landfall_faults_active",
		Help: "Faults that are made on purpose now."})
	reg.MustRegister(m.faults, m.flags, m.canaries, m.rollbacks)
	return m
}
