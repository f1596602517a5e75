package healthcheck

import (
	"github.com/prometheus/client_golang/prometheus"

	"landfall/routing"
)

// Metrics are what a Checker measures. Made once in a process by NewMetrics; they survive reloads.
type Metrics struct {
	probes  *prometheus.CounterVec
	healthy *prometheus.GaugeVec
}

// NewMetrics makes the metrics and registers them with reg; nil registers them nowhere.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		probes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "landfall_healthcheck_probes_total",
			Help: "Probes of origins by result: ok, status (not one of those expected), connect, timeout or reset. A probe that services share counts for each.",
		}, []string{"service", "result"}),
		healthy: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "landfall_origin_healthy",
			Help: "Whether this node's health check finds an origin up (1) or down (0); absent while it is unknown.",
		}, []string{"service", "region", "origin"}),
	}
	if reg != nil {
		reg.MustRegister(m.probes, m.healthy)
	}
	return m
}

func (m *Metrics) set(t Target, s routing.State) {
	switch s {
	case routing.Up:
		m.healthy.WithLabelValues(t.Service, t.Region, t.Origin).Set(1)
	case routing.Down:
		m.healthy.WithLabelValues(t.Service, t.Region, t.Origin).Set(0)
	default:
		m.healthy.DeleteLabelValues(t.Service, t.Region, t.Origin)
	}
}

// DoorMetrics are what a Doors measures. Made once in a process.
type DoorMetrics struct {
	probes *prometheus.CounterVec
	up     *prometheus.GaugeVec
}

// NewDoorMetrics makes the metrics and registers them with reg; nil registers them nowhere.
func NewDoorMetrics(reg prometheus.Registerer) *DoorMetrics {
	m := &DoorMetrics{
		probes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "landfall_front_door_probes_total",
			Help: "Askings of other regions' front doors by result: up, unknown or down as the pool behind it is, or connect, timeout, answer (not of this fleet).",
		}, []string{"region", "result"}),
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "landfall_front_door_up",
			Help: "Whether this node finds a region's front door answering for a service (1) or not (0); absent while unknown, and on nodes that leave it to others of their region.",
		}, []string{"region", "service"}),
	}
	if reg != nil {
		reg.MustRegister(m.probes, m.up)
	}
	return m
}

func (m *DoorMetrics) set(d Door, s routing.State) {
	switch s {
	case routing.Up:
		m.up.WithLabelValues(d.Region, d.Service).Set(1)
	case routing.Down:
		m.up.WithLabelValues(d.Region, d.Service).Set(0)
	default:
		m.forget(d)
	}
}

func (m *DoorMetrics) forget(d Door) { m.up.DeleteLabelValues(d.Region, d.Service) }
