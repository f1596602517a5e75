package proxy

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

// trafficMetrics are those of what shapes traffic: canaries, faults.
type trafficMetrics struct {
	canaries *prometheus.CounterVec
	faults   *prometheus.CounterVec
	auths    *prometheus.CounterVec
	jwks     *prometheus.CounterVec
}

func newTrafficMetrics(reg prometheus.Registerer) trafficMetrics {
	m := trafficMetrics{
		canaries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "landfall_canary_requests_total",
			Help: "Requests of routes with a canary that went to an origin, by side (stable, canary) and result (ok, failed)."}, []string{"service", "to", "side", "result"}),
		faults: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "landfall_faults_injected_total",
			Help: "Attempts that met a fault made on purpose, by what it did (delay, abort, reset, slow_body)."}, []string{"service", "kind"}),
	}
	m.auths = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "landfall_auth_requests_total",
		Help: "Requests that a check was asked about (jwt, forward): ok, refused, or error when it could not tell."}, []string{"service", "check", "result"})
	m.jwks = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "landfall_jwks_fetches_total",
		Help: "Fetches of issuers' keys: ok or failed."}, []string{"result"})
	reg.MustRegister(m.canaries, m.faults, m.auths, m.jwks)
	return m
}

// tellFault says on a response that a fault was made on purpose on its way.
func (x *exchange) tellFault(h http.Header) {
	if tr := x.trail.Load(); tr != nil && tr.Fault != "" {
		h.Set(headerFault, tr.Fault)
	}
}
