package certs

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics tells how long certificates last and how ordering them goes. Create it once per process: it survives reloads.
type Metrics struct {
	notAfter *prometheus.GaugeVec
	orders   *prometheus.CounterVec

	mu    sync.Mutex
	owner map[string]*Store // which store published a name last
}

// NewMetrics registers the metrics of certificates with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		notAfter: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "landfall_cert_not_after_seconds",
			Help: "When the certificate for a name (its first) ends, as a Unix time. Of several for a name, the one that ends first. The names \"mesh node\" and \"mesh ca\" are the node's own certificate on the peer channel and the fleet's CA.",
		}, []string{"name"}),
		orders: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "landfall_cert_orders_total",
			Help: "Certificates ordered by ACME, by result.",
		}, []string{"result"}),
		owner: map[string]*Store{},
	}
	reg.MustRegister(m.notAfter, m.orders)
	for _, result := range []string{"obtained", "failed"} {
		m.orders.WithLabelValues(result)
	}
	return m
}

// Peer publishes when the certificate of a node on the peer channel ends, and its CA's. They stand beside those of hosts,
// which can't be called so.
func (m *Metrics) Peer(cert, ca time.Time) {
	m.notAfter.WithLabelValues("mesh node").Set(float64(cert.Unix()))
	m.notAfter.WithLabelValues("mesh ca").Set(float64(ca.Unix()))
}

// publish makes ends the names of store s. After a reload two stores live for a moment: the old one then takes away
// only what the new one did not publish.
func (m *Metrics) publish(s *Store, ends map[string]time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, owner := range m.owner {
		if _, still := ends[name]; owner == s && !still {
			m.notAfter.DeleteLabelValues(name)
			delete(m.owner, name)
		}
	}
	for name, end := range ends {
		m.notAfter.WithLabelValues(name).Set(float64(end.Unix()))
		m.owner[name] = s
	}
}
