package proxy

import (
	"slices"
	"strconv"
	"time"
)

// Better is a region that a client of this one should rather be in.
type Better struct {
	Region string
	Saves  time.Duration // of its round trip, by the same figures that DNS answers by
	Must   bool          // residency keeps its data out of this region: there is nothing to weigh
}

// steered sends a client on that DNS sent too far, by its region's own name. It tells whether the request is answered.
func (x *exchange) steered() bool {
	r := x.match.service.config.Steering.Redirect
	if r == nil || x.p.o.Better == nil || x.head.hop > 0 || x.head.upgrade != "" || !slices.Contains(r.Methods, x.head.method) {
		return false
	}
	if mode := x.in.Header.Get("Sec-Fetch-Mode"); mode != "" && mode != "navigate" && r.By == "redirect" {
		return false // a script's request would end at another origin
	}
	for _, name := range r.Names {
		if name == x.head.host {
			return false // sent on already: who asks for a region by name stays there, wherever that is
		}
	}
	b, ok := x.p.o.Better(x.match.service.name, x.head.client)
	if !ok || !b.Must && b.Saves < r.Detour.D() || r.Names[b.Region] == "" {
		return false
	}
	if r.By == "alt_svc" {
		x.alternative(r.Names[b.Region], b.Region)
		return false
	}
	x.p.o.Metrics.steered.WithLabelValues(x.p.o.Region, b.Region, r.By).Inc()
	x.steeredTo = b.Region
	h := x.w.Header()
	h.Set("Location", x.head.scheme+"://"+r.Names[b.Region]+portOf(x.in.Host, x.head.scheme)+x.head.uri())
	h.Set("Cache-Control", "no-store") // it is for this client's place alone
	x.w.WriteHeader(r.Status)
	return true
}

// altSvcAge is how long a client keeps an alternative: short, as the best region changes.
const altSvcAge = 5 * time.Minute

// alternative names another region's nodes as an alternative service (RFC 7838). That is for clients that speak to us by
// TLS: the alternative shows the same certificate.
func (x *exchange) alternative(host, region string) {
	if !x.conn.TLS || x.p.o.AltSvcPort == "" {
		return
	}
	x.p.o.Metrics.steered.WithLabelValues(x.p.o.Region, region, "alt_svc").Inc()
	x.steeredTo = region
	at := `="` + host + ":" + x.p.o.AltSvcPort + `"; ma=` + strconv.Itoa(int(altSvcAge.Seconds()))
	x.w.altSvc = "h2" + at
	if x.p.o.AltSvcH3 { // first, as it is to be preferred
		x.w.altSvc = "h3" + at + ", " + x.w.altSvc
	}
}
