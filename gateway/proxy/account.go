package proxy

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"landfall/gateway/upstream"
)

// Metrics of the requests. One set a process, whatever reloads come.
type Metrics struct {
	requests  *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	bytes     *prometheus.CounterVec
	forwarded *prometheus.CounterVec
	refusals  *prometheus.CounterVec
	mirrored  *prometheus.CounterVec
	directed  *prometheus.CounterVec
	oldReads  *prometheus.CounterVec
	waited    *prometheus.CounterVec
	steered   *prometheus.CounterVec
	shared    *prometheus.CounterVec
	trafficMetrics

	in, out [len(hops)]prometheus.Counter // of bytes
}

var hops = [...]string{"client", "peer"}

// NewMetrics registers the metrics of the requests.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "landfall_requests_total",
			Help: "Requests by service, route (its path pattern) and class of the status code."}, []string{"service", "route", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "landfall_request_duration_seconds",
			Help:    "Time from a request's head to the end of its response.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}, NativeHistogramBucketFactor: 1.1},
			[]string{"service"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "landfall_bytes_total",
			Help: "Body bytes by direction (in, out) and hop (client, peer)."}, []string{"direction", "hop"}),
		forwarded: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "landfall_forwarded_total",
			Help: "Requests that were sent on to another region's node."}, []string{"from", "to"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "landfall_refusals_total",
			Help: "Requests that a phase refused, by its reason."}, []string{"reason"}),
	}
	m.mirrored = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "landfall_mirrored_total",
		Help: "Copies of requests for another service: sent, failed, or skipped because too many were under way or it has no pool here."}, []string{"service", "result"})
	m.directed = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "landfall_directed_requests_total",
		Help: "Requests that were sent where their data is, by the region that served (empty: wherever steering led) and why: primary, own_write, ring, moved, pinned, lookup, away (their place could not be reached) or unknown (the lookup failed)."}, []string{"service", "to", "why"})
	m.oldReads = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "landfall_migration_old_reads_total",
		Help: "Reads of users who moved that the new home did not have and the old one was asked for: found there, missing there too, or failed."}, []string{"service", "result"})
	m.waited = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "landfall_migration_waits_total",
		Help: "Writes that waited for their user's move to be over."}, []string{"service"})
	reg.MustRegister(m.directed, m.oldReads, m.waited)
	m.steered = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "landfall_steered_total",
		Help: "Requests of clients that DNS sent too far and that were told of a better region, by a redirect or by Alt-Svc."}, []string{"from", "to", "by"})
	m.shared = newShared()
	reg.MustRegister(m.steered, m.requests, m.duration, m.bytes, m.forwarded, m.refusals, m.mirrored, m.shared)
	m.trafficMetrics = newTrafficMetrics(reg)
	for i, hop := range hops {
		m.in[i], m.out[i] = m.bytes.WithLabelValues("in", hop), m.bytes.WithLabelValues("out", hop)
	}
	return m
}

func (m *Metrics) placed(service, to, why string) {
	m.directed.WithLabelValues(service, to, why).Inc()
}

// meter is a route's request counters, made when they are first counted, so that the hot path need not look them up
// behind a lock that all cores share.
type meter struct {
	codes [len(classes)]atomic.Pointer[prometheus.Counter]
}

func (t *meter) count(m *Metrics, service, route string, class int) {
	c := t.codes[class].Load()
	if c == nil {
		made := m.requests.WithLabelValues(service, route, classes[class])
		c = &made
		t.codes[class].Store(c) // a race stores the same counter twice
	}
	(*c).Inc()
}

// classes are the labels of status codes: the class, or "aborted" when no response was finished.
var classes = [...]string{"aborted", "1xx", "2xx", "3xx", "4xx", "5xx"}

// account closes the exchange: metrics and the access log. It runs on every path, an aborting panic too.
func (x *exchange) account() {
	m := x.p.o.Metrics
	service, route := "none", "none"
	if x.match.service != nil {
		service = x.match.service.name
	}
	if x.match.route != nil {
		route = x.match.route.Match.Path
	}
	status := x.w.status
	if x.refusal != nil && x.refusal.reason == clientGone {
		status = answers[clientGone].status
	}
	class := 0
	if c := status / 100; c > 0 && c < len(classes) && !x.outcome.Aborted {
		class = c
	}
	took := x.p.o.Now().Sub(x.started)
	if x.match.meter != nil {
		x.match.meter.count(m, service, route, class)
	} else {
		m.requests.WithLabelValues(service, route, classes[class]).Inc()
	}
	m.duration.WithLabelValues(service).Observe(took.Seconds())
	hop := 0
	if x.head.hop > 0 {
		hop = 1
	}
	m.out[hop].Add(float64(x.w.bytes))
	if x.received > 0 {
		m.in[hop].Add(float64(x.received))
	}
	if x.refusal != nil {
		m.refusals.WithLabelValues(string(x.refusal.reason)).Inc()
	}
	if x.p.o.Access.wants(status, x.outcome.Aborted) && !x.oneOfMany() {
		x.logAccess(service, route, status, took.Seconds())
	}
}

// oneOfMany tells of a request that was shed after enough others were logged.
func (x *exchange) oneOfMany() bool {
	if x.refusal == nil || x.refusal.reason != upstream.CauseShed && x.refusal.reason != upstream.CauseAtBound {
		return false
	}
	return !x.p.o.Access.sheds.take(x.p.o.Now(), shedsLogged)
}

func (x *exchange) logAccess(service, route string, status int, seconds float64) {
	attrs := []slog.Attr{
		slog.String("id", x.head.id), slog.String("client", x.head.client.String()), slog.String("method", x.in.Method),
		slog.String("host", x.head.host), slog.String("path", x.head.path), slog.Int("status", status),
		slog.Int64("bytes", x.w.bytes), slog.Float64("seconds", seconds), slog.String("service", service),
		slog.String("route", route), slog.String("cache", x.outcome.Result),
	}
	if x.steeredTo != "" {
		attrs = append(attrs, slog.String("steered_to", x.steeredTo))
	}
	if tr := x.trail.Load(); tr != nil {
		attrs = append(attrs, slog.String("region", tr.Region), slog.String("node", tr.Node), slog.String("origin", tr.Origin), slog.Int("tries", tr.Tries))
	}
	if x.refusal != nil {
		attrs = append(attrs, slog.String("refusal", string(x.refusal.reason)))
		if x.refusal.cause != nil {
			attrs = append(attrs, slog.String("cause", x.refusal.cause.Error()))
		}
	}
	if tr := x.trail.Load(); tr != nil && tr.Fault != "" {
		attrs = append(attrs, slog.String("fault", tr.Fault))
	}
	if x.outcome.Aborted {
		attrs = append(attrs, slog.Bool("aborted", true))
	}
	x.p.o.Access.log.LogAttrs(context.Background(), slog.LevelInfo, "request", attrs...)
}

// AccessLog decides which requests are logged, and where. A nil *AccessLog logs nothing.
type AccessLog struct {
	log    *slog.Logger
	sample float64
	random func() float64
	sheds  ration
}

// NewAccessLog logs a share of all requests, 0 to 1, and every one that failed (5xx, or aborted), but for those that are
// shed: ten of them a second.
func NewAccessLog(log *slog.Logger, sample float64) *AccessLog {
	return &AccessLog{log: log, sample: sample, random: rand.Float64}
}

func (a *AccessLog) wants(status int, aborted bool) bool {
	if a == nil {
		return false
	}
	return status >= 500 || aborted || (a.sample > 0 && a.random() < a.sample)
}
