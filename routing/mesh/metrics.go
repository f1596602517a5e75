package mesh

import "github.com/prometheus/client_golang/prometheus"

// Metrics is what a mesh counts. Created once in a process; it survives meshes that come and go.
type Metrics struct {
	members   *prometheus.GaugeVec
	messages  *prometheus.CounterVec
	refused   *prometheus.CounterVec
	rtt       *prometheus.GaugeVec
	registers prometheus.Gauge
	bytes     *prometheus.CounterVec
	links     prometheus.Gauge
	skew      prometheus.Gauge
	placing   prometheus.Gauge

	// Resolved once: each of hundreds of messages a second counts.
	pulses, traffic struct{ in, out prometheus.Counter }
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
			Help: "Mesh messages by kind (gossip: packet, stream; peer channel: beat, soft, need, held, push, taken, sums, page, bye, pulse) and direction (in, out).",
		}, []string{"kind", "direction"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "landfall_mesh_refused_total",
			Help: "What the mesh refused, by reason: malformed, kind, version, fleet, key, identity, duplicate, self, full, meta, report, overflow.",
		}, []string{"reason"}),
		rtt: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "landfall_region_rtt_seconds",
			Help: "Smoothed round trip of heartbeats between regions: this node's to its nearest peer there, and what nodes of other regions tell of theirs.",
		}, []string{"from", "to"}),
		registers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "landfall_mesh_registers",
			Help: "Registers held, deleted ones included until they expire.",
		}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "landfall_mesh_bytes_total",
			Help: "Bytes of mesh messages on the peer channel, before TLS, by direction (in, out).",
		}, []string{"direction"}),
		links: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "landfall_mesh_links",
			Help: "Open links with other nodes on the peer channel.",
		}),
		skew: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "landfall_mesh_clock_skew_seconds",
			Help: "What this node adds to its clock to get the fleet's: 0 while most peers agree with it within five seconds.",
		}),
	}
	m.placing = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "landfall_mesh_coordinate_error",
		Help: "How far this node's network coordinate misses the round trips that it measures, as a share: 1.5 at the start, up to 0.5 good enough for estimates.",
	})
	m.pulses.in, m.pulses.out = m.messages.WithLabelValues(kindPulse.String(), "in"), m.messages.WithLabelValues(kindPulse.String(), "out")
	m.traffic.in, m.traffic.out = m.bytes.WithLabelValues("in"), m.bytes.WithLabelValues("out")
	reg.MustRegister(m.placing, m.members, m.messages, m.refused, m.rtt, m.registers, m.bytes, m.links, m.skew)
	return m
}

func (m *Metrics) sent(kind string)     { m.messages.WithLabelValues(kind, "out").Inc() }
func (m *Metrics) received(kind string) { m.messages.WithLabelValues(kind, "in").Inc() }

func (m *Metrics) sentMessage(k kind) {
	if k == kindPulse {
		m.pulses.out.Inc()
		return
	}
	m.sent(k.String())
}

func (m *Metrics) receivedMessage(k kind) {
	if k == kindPulse {
		m.pulses.in.Inc()
		return
	}
	m.received(k.String())
}
