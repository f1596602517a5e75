package server

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the server's metrics. One value serves a process for all its life; it is safe for concurrent use.
type Metrics struct {
	connections       *prometheus.GaugeVec
	accepted          *prometheus.CounterVec
	refusedConns      *prometheus.CounterVec
	handshakeFailures *prometheus.CounterVec
	inFlight          prometheus.Gauge
	refusedRequests   *prometheus.CounterVec
	stalled           *prometheus.CounterVec
	cut               prometheus.Counter
	panics            prometheus.Counter
	h2Errors          *prometheus.CounterVec
	udpBuffer         prometheus.Gauge
}

// NewMetrics creates the server's metrics and registers them with reg. It panics when they are registered already.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &Metrics{
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "landfall_connections",
			Help: "Open connections, by listener (http, https, peer) and protocol (h1, h2, h3)."}, []string{"listener", "proto"}),
		accepted: counter("landfall_connections_accepted_total",
			"Connections accepted, those closed at once included.", "listener"),
		refusedConns: counter("landfall_connections_refused_total",
			"Connections closed at once, by reason: total, per_client, rate, protocol.", "reason"),
		handshakeFailures: counter("landfall_tls_handshake_failures_total",
			"TLS handshakes that failed, by reason: timeout, closed, not_tls, certificate, protocol.", "reason"),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "landfall_requests_in_flight",
			Help: "Requests being handled, upgraded connections included."}),
		refusedRequests: counter("landfall_requests_refused_total",
			"Requests refused at the door, before routing, by reason.", "reason"),
		stalled: counter("landfall_stalled_total",
			"Clients cut because for the idle timeout they took (write) or sent (read) nothing that was due.", "direction"),
		cut: prometheus.NewCounter(prometheus.CounterOpts{Name: "landfall_requests_cut_total",
			Help: "Requests cut by a stop whose grace was over."}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{Name: "landfall_request_panics_total",
			Help: "Requests whose handler panicked."}),
		h2Errors: counter("landfall_http2_errors_total",
			"Protocol errors of HTTP/2 clients, by the kind that the HTTP/2 library names.", "kind"),
		udpBuffer: prometheus.NewGauge(prometheus.GaugeOpts{Name: "landfall_http3_receive_buffer_bytes",
			Help: "Receive buffer that the system gave the HTTP/3 socket; bursts are lost below 7340032. Linux only."}),
	}
	reg.MustRegister(m.connections, m.accepted, m.refusedConns, m.handshakeFailures, m.inFlight, m.refusedRequests,
		m.stalled, m.cut, m.panics, m.h2Errors, m.udpBuffer)
	return m
}
