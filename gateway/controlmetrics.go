package gateway

import "github.com/prometheus/client_golang/prometheus"

// controlMetrics are those of what operators turn at run time.
type controlMetrics struct {
	flags, canaries *prometheus.GaugeVec
	rollbacks       *prometheus.CounterVec
	faults          prometheus.Gauge
	sharedKeys      prometheus.Gauge
	limitMessages   *prometheus.CounterVec
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
	m.sharedKeys = prometheus.NewGauge(prometheus.GaugeOpts{Name: "landfall_rate_limit_shared_keys",
		Help: "Keys of fleet-wide rate limits that come to other nodes too."})
	m.limitMessages = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "landfall_rate_limit_messages_total",
		Help: "Messages about the demand on fleet-wide rate limits: sent, failed (to be sent), heard, refused (as not understood)."}, []string{"result"})
	reg.MustRegister(m.sharedKeys, m.limitMessages)
	reg.MustRegister(m.faults, m.flags, m.canaries, m.rollbacks)
	return m
}
