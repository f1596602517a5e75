package dns

import (
	mdns "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics counts what servers do. Made once a process; it survives reloads.
type Metrics struct {
	queries *prometheus.CounterVec

	droppedMalformed, droppedResponse, droppedRate, droppedOversize prometheus.Counter
	droppedTCPLimit, droppedTCPClient, droppedWrite                 prometheus.Counter
	truncatedSize, truncatedRate                                    prometheus.Counter
	signatures, transfers                                           prometheus.Counter
	tcpConnections                                                  prometheus.Gauge
}

// NewMetrics registers the metrics with reg; nil registers them nowhere.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	dropped := f.NewCounterVec(prometheus.CounterOpts{
		Name: "landfall_dns_dropped_total",
		Help: "DNS queries that got no answer, and TCP connections that were closed unheard, by reason.",
	}, []string{"reason"})
	truncated := f.NewCounterVec(prometheus.CounterOpts{
		Name: "landfall_dns_truncated_total",
		Help: "DNS answers sent truncated, so that the client asks again over TCP, by reason.",
	}, []string{"reason"})
	return &Metrics{
		queries: f.NewCounterVec(prometheus.CounterOpts{
			Name: "landfall_dns_queries_total",
			Help: "DNS queries answered, by zone (empty outside all zones), type, rcode and the region that was chosen (empty without addresses).",
		}, []string{"zone", "type", "rcode", "region"}),
		droppedMalformed: dropped.WithLabelValues("malformed"),
		droppedResponse:  dropped.WithLabelValues("not_a_query"),
		droppedRate:      dropped.WithLabelValues("rate"),
		droppedOversize:  dropped.WithLabelValues("oversize"),
		droppedTCPLimit:  dropped.WithLabelValues("tcp_connections"),
		droppedTCPClient: dropped.WithLabelValues("tcp_connections_per_client"),
		droppedWrite:     dropped.WithLabelValues("write"),
		truncatedSize:    truncated.WithLabelValues("size"),
		truncatedRate:    truncated.WithLabelValues("rate"),
		signatures: f.NewCounter(prometheus.CounterOpts{
			Name: "landfall_dns_signatures_total",
			Help: "DNSSEC signatures made; those that are remembered are not counted.",
		}),
		transfers: f.NewCounter(prometheus.CounterOpts{
			Name: "landfall_dns_transfers_total",
			Help: "Zone transfers (AXFR) sent.",
		}),
		tcpConnections: f.NewGauge(prometheus.GaugeOpts{
			Name: "landfall_dns_tcp_connections",
			Help: "Open DNS connections over TCP.",
		}),
	}
}

// counted is a series of queries that was found by its labels once, which costs more than all else that counting does.
type counted struct {
	zone   *zone // of one config: its series may be gone with the next
	qtype  string
	rcode  int
	region string
	series prometheus.Counter // nil: none yet
}

const mostCounted = 16 // of which each worker remembers as many

// count counts one answer.
func (m *Metrics) count(w *work) {
	q, r := &w.q, &w.r
	qtype := "other"
	if q.question != nil {
		qtype = typeLabel(q.qtype)
	}
	last := uint8(0) // of the region's name: neighbours often differ in it alone
	if r.region != "" {
		last = r.region[len(r.region)-1]
	}
	c := &w.counted[(uint(last)+3*uint(q.qtype)+uint(r.rcode))%mostCounted]
	if c.series == nil || c.zone != r.zone || c.qtype != qtype || c.rcode != r.rcode || c.region != r.region {
		*c = counted{r.zone, qtype, r.rcode, r.region, m.series(r.zone, qtype, r.rcode, r.region)}
	}
	c.series.Inc()
}

func (m *Metrics) series(z *zone, qtype string, rcode int, region string) prometheus.Counter {
	zone := ""
	if z != nil {
		zone = z.label
	}
	return m.queries.WithLabelValues(zone, qtype, rcodeLabel(rcode), region)
}

// forget drops the series of a zone that is served no longer.
func (m *Metrics) forget(zone string) { m.queries.DeletePartialMatch(prometheus.Labels{"zone": zone}) }

// typeLabel is a query type's label, from a closed list.
func typeLabel(t uint16) string {
	switch t {
	case mdns.TypeA, mdns.TypeAAAA, mdns.TypeNS, mdns.TypeSOA, mdns.TypeANY, mdns.TypeHTTPS, mdns.TypeSVCB, mdns.TypeMX,
		mdns.TypeTXT, mdns.TypeCNAME, mdns.TypeCAA, mdns.TypeDS, mdns.TypeDNSKEY, mdns.TypePTR, mdns.TypeSRV,
		mdns.TypeAXFR, mdns.TypeIXFR:
		return mdns.TypeToString[t]
	}
	return "other"
}

func rcodeLabel(rcode int) string {
	switch rcode {
	case mdns.RcodeBadVers:
		return "BADVERS" // the library calls 16 BADSIG, which it is in TSIG records
	case mdns.RcodeBadCookie:
		return "BADCOOKIE"
	}
	return mdns.RcodeToString[rcode]
}
