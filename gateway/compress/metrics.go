package compress

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what compression did. Create it once per process: it survives reloads.
type Metrics struct {
	saved     *prometheus.CounterVec
	responses *prometheus.CounterVec
	refused   *prometheus.CounterVec
}

// NewMetrics registers the metrics of compression with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		saved: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "landfall_compression_saved_bytes_total",
			Help: "Bytes that compression took off response bodies that were compressed here to their end.",
		}, []string{"coding"}),
		responses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "landfall_compression_responses_total",
			Help: "Responses whose body was compressed here.",
		}, []string{"coding"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "landfall_compression_refused_total",
			Help: "Responses that were left uncompressed because a bound was reached.",
		}, []string{"reason"}),
	}
	reg.MustRegister(m.saved, m.responses, m.refused)
	return m
}
