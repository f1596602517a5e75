package drill

import (
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"landfall/deploy/lab"
	"landfall/gateway/admin"
)

// steeringFaults are what a fleet may do that steers badly.
type steeringFaults struct {
	vaultLeaks    bool // the other region serves those whom residency forbids it
	vaultNamed    bool // DNS sends them there
	drainsAtOnce  bool // a gradual drain moves everybody at once
	drainFlaps    bool // it moves clients there and back
	drainStalls   bool // it moves nobody
	spillsNobody  bool
	spillsAll     bool
	spillSwings   bool
	spillSilently bool // explain does not tell that the region is full
	rttIgnored    bool
	rttMovesAll   bool // all of a place's clients move, not the one network that is far
	rttSticks     bool // it is not led home again
}

// steering is the fake fleet's decision, for clients of the first region, "east". It is guarded by fakeLab.mu.
type steering struct {
	began time.Time // of the gradual drain in force; zero: none
	over  time.Duration
	asks  int
	far   map[netip.Prefix]bool // networks that told of a long way
}

// takeOver reads a drain's body.
func (l *fakeLab) takeOver(body io.Reader) {
	var spec admin.DrainSpec
	_ = json.NewDecoder(body).Decode(&spec) // the control API's calls have none
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = spec.Over.D()
}

// drainsOver begins a gradual drain of a region, if that is what was asked for, or ends it.
func (l *fakeLab) drainsOver(region string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.began = time.Time{}
	if region == "" || l.over == 0 {
		return false
	}
	l.began = time.Now()
	return true
}

// where is the region of a network of east for a host, and the reason why it is not east. Callers hold mu.
func (l *fakeLab) where(host string, p netip.Prefix) (region, reason string) {
	east, crowd := l.fleet.Regions[0], l.fleet.Regions[0].Crowd.Contains(p.Addr())
	if !crowd && !east.Prefix.Contains(p.Addr()) {
		return "west", "farther"
	}
	third := int(p.Addr().As4()[2])
	switch {
	case host == lab.VaultHost:
		if l.faults.vaultNamed && l.away["east"] {
			return "west", "no_node"
		}
		return "east", "residency"
	case host == lab.RushHost && crowd && (l.faults.spillsAll || !l.faults.spillsNobody && third%10 < 4):
		if l.faults.spillSilently {
			return "west", "farther"
		}
		return "west", "full"
	case l.away["east"]:
		return "west", "drained"
	case !l.began.IsZero() && (crowd || l.faults.drainsAtOnce):
		share := min(float64(time.Since(l.began))/float64(l.over), 1)
		l.asks++
		switch {
		case l.faults.drainStalls, !l.faults.drainsAtOnce && float64(third%10)/10 >= share, l.faults.drainFlaps && l.asks%3 == 0 && share < 0.9:
			return "east", "farther"
		}
		return "west", "drained"
	case l.far[p] && !l.faults.rttIgnored, len(l.far) > 0 && l.faults.rttMovesAll:
		return "west", "farther"
	}
	return "east", "farther"
}

// steeredAnswer answers what the ordinary fake does not: other hosts, and crowds.
func (l *fakeLab) steeredAnswer(m, q *dns.Msg) bool {
	host := strings.TrimSuffix(q.Question[0].Name, ".")
	var subnet netip.Prefix
	if o := q.IsEdns0(); o != nil && len(o.Option) == 1 {
		if e, ok := o.Option[0].(*dns.EDNS0_SUBNET); ok {
			a, _ := netip.AddrFromSlice(e.Address.To4())
			subnet = netip.PrefixFrom(a, int(e.SourceNetmask))
		}
	}
	if !subnet.IsValid() || host == lab.Host && subnet.Addr().As4()[0] != 10 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	region, _ := l.where(host, subnet)
	for _, s := range l.stations {
		if s.region == region {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: s.addr.AsSlice()})
		}
	}
	return true
}

// steers takes what a request tells of its client, and refuses it where residency does.
func (l *fakeLab) steers(w http.ResponseWriter, r *http.Request, region string) bool {
	client, err := netip.ParseAddr(r.Header.Get("X-Forwarded-For"))
	if err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p, _ := client.Prefix(24)
	if ms, err := strconv.ParseFloat(r.Header.Get("X-Client-Rtt"), 64); err == nil && region == "east" && p.Addr().As4()[0] == 10 {
		if l.far == nil {
			l.far = map[netip.Prefix]bool{}
		}
		if ms >= 150 {
			l.far[p] = true
		} else if !l.faults.rttSticks {
			delete(l.far, p)
		}
	}
	if strings.HasPrefix(r.Host, lab.VaultHost) && region == "west" && l.fleet.Regions[0].Prefix.Contains(client) && !l.faults.vaultLeaks {
		w.Header().Set("Proxy-Status", "landfall; error=http_request_denied")
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	return false
}

// explain tells what DNS answers, with its reason.
func (l *fakeLab) explain(w http.ResponseWriter, r *http.Request) {
	target, _ := url.Parse(r.URL.Query().Get("url"))
	client, _ := netip.ParseAddr(r.URL.Query().Get("client"))
	p, _ := client.Prefix(24)
	l.mu.Lock()
	defer l.mu.Unlock()
	first, reason := l.where(target.Hostname(), p)
	near, far := 1.0, 600.0
	rows := []admin.ExplainedRegion{{Region: "east", Usable: true, Reason: "chosen", DistanceSource: "geography", RTT: &near}, {Region: "west", Usable: reason != "residency", Reason: reason}}
	if first == "west" {
		rows[0].Reason, rows[1].Reason = reason, "chosen"
		if l.far[p] {
			rows[0].DistanceSource, rows[0].RTT = "measured", &far
		}
		slices.Reverse(rows)
	}
	l.asks++
	for i := range rows {
		if rows[i].Region == "east" {
			rows[i].Spill = 0.4
			if l.faults.spillSwings {
				rows[i].Spill = float64(l.asks%2) * 0.5
			}
		}
	}
	e := admin.Explanation{Regions: rows, Answer: &admin.DNSAnswer{}}
	for _, s := range l.stations {
		if s.region == first {
			e.Answer.Addresses = append(e.Answer.Addresses, s.addr.String())
		}
	}
	_ = json.NewEncoder(w).Encode(e)
}
