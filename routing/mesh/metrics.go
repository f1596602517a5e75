package mesh

import "github.com/prometheus/client_golang/prometheus"

// Metrics is what a mesh counts. Created once in a process; it survives meshes that come and go.
type Metrics struct {
	members   *prometheus.GaugeVec
	messages  *prometheus.CounterVec
	refused   *prometheus.CounterVec
	rtt       *prometheus.GaugeVec
	registers prometheus.Gauge
}

// NewMetrics registers the metrics. It panics where they are registered already (a programming error).
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		members: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "landfall_mesh_members",
			Help: "Members of the mesh as this node sees them, itself included, by state.",
		}, []string{"state"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "landfall_mesh_messages_total",
			Help: "Mesh messages by kind (packet, stream, beat, registers) and direction (in, out).",
		}, []string{"kind", "direction"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "landfall_mesh_refused_total",
			Help: "What the mesh refused, by reason: malformed, identity, fleet, meta, future, full, report, overflow.",
		}, []string{"reason"}),
		rtt: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "landfall_region_rtt_seconds",
			Help: "Smoothed round trip of heartbeats to the nearest reachable node of a region.",
		}, []string{"from", "to"}),
		registers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "landfall_mesh_registers",
			Help: "Registers held, deleted ones included until they expire.",
		}),
	}
	reg.MustRegister(m.members, m.messages, m.refused, m.rtt, m.registers)
	return m
}

func (m *Metrics) sent(kind string)     { m.messages.WithLabelValues(kind, "out").Inc() }
func (m *Metrics) received(kind string) { m.messages.WithLabelValues(kind, "in").Inc() }
