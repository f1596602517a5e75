package gateway

import (
	"maps"
	"math"
	"net/netip"
	"sync"
	"time"

	"landfall/configs"
	"landfall/gateway/proxy"
	"landfall/routing"
)

// strains are how this node's services bear their load. It is safe for concurrent use.
type strains struct {
	mu sync.Mutex
	by map[string]*strain
}

// strain is one service's. All but waits belongs to tick and readers under the lock.
type strain struct {
	waits   proxy.Waits
	answers uint64
	took    time.Duration

	rate, waiting        float64 // answers a second; requests that wait: both of the last seconds
	sumAnswers, sumNanos float64 // of the last seconds
	baseline             float64 // the latency of quiet times, in nanoseconds
	stretch              float64 // how many times the baseline the latency is; 0: too few answers to say
}

const (
	strainWindow = 5.0 // seconds
	// The baseline follows a lower latency within a minute, and a higher one within hours: a busy evening is no new normal.
	baselineDown = 30.0
	baselineUp   = 3600.0
	// minBaseline is the latency below which a doubling is no sign of anything.
	minBaseline = float64(5 * time.Millisecond)
	minAnswers  = 20
)

// of is a service's counter.
func (s *strains) of(service string) *proxy.Waits {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by = map[string]*strain{}
	}
	if s.by[service] == nil {
		s.by[service] = new(strain)
	}
	return &s.by[service].waits
}

// tick folds in what happened in the last dt, and forgets services that the config no longer has.
func (s *strains) tick(c *configs.Config, dt time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.by, func(name string, _ *strain) bool { return c.Services[name] == nil })
	for _, v := range s.by {
		waiting, answers, took := v.waits.Totals()
		v.fold(float64(waiting), answers, took, dt.Seconds())
	}
}

// fold takes in the totals at the end of dt seconds.
func (v *strain) fold(waiting float64, answers uint64, took time.Duration, dt float64) {
	if dt <= 0 {
		return
	}
	n, nanos := float64(answers-v.answers), float64(took-v.took)
	v.answers, v.took = answers, took
	a := 1 - math.Exp(-dt/strainWindow)
	v.rate += (n/dt - v.rate) * a
	v.waiting += (waiting - v.waiting) * a
	v.sumAnswers, v.sumNanos = v.sumAnswers*(1-a)+n, v.sumNanos*(1-a)+nanos
	if v.sumAnswers < minAnswers && v.waiting < minAnswers {
		v.stretch = 0
		return
	}
	// By Little's law, requests that wait tell of answers that have not come yet: origins that stall are seen at once.
	latency := v.waiting / math.Max(v.rate, 0.2) * 1e9
	if v.sumAnswers >= minAnswers {
		mean := v.sumNanos / v.sumAnswers
		switch {
		case v.baseline == 0:
			v.baseline = mean
		case mean < v.baseline:
			v.baseline += (mean - v.baseline) * (1 - math.Exp(-dt/baselineDown))
		default:
			v.baseline += (mean - v.baseline) * (1 - math.Exp(-dt/baselineUp))
		}
		latency = math.Max(latency, mean)
	}
	if v.baseline == 0 {
		v.stretch = 0 // nothing to hold it against
		return
	}
	v.stretch = latency / math.Max(v.baseline, minBaseline)
}

// told is what the report says of each service: to two digits, so that it does not change with every request.
func (s *strains) told() map[string]strainReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out map[string]strainReport
	for name, v := range s.by {
		r := strainReport{Waiting: twoDigits(v.waiting), Stretch: twoDigits(v.stretch)}
		if r == (strainReport{}) {
			continue
		}
		if out == nil {
			out = map[string]strainReport{}
		}
		out[name] = r
	}
	return out
}

func twoDigits(v float64) float64 {
	if !(v >= 0.05) {
		return 0
	}
	step := math.Pow(10, math.Floor(math.Log10(v))-1)
	return math.Round(math.Round(v/step)*step*100) / 100
}

// strainReport is a node's strain in its report.
type strainReport struct {
	Waiting float64 `json:"w,omitempty"`
	Stretch float64 `json:"s,omitempty"`
}

// strainOf is a region's strain: what waits at all of its nodes, and their latency by the load that each has.
func strainOf(reporting []member, service string) routing.Strain {
	var out routing.Strain
	sum, weight := 0.0, 0.0
	for _, m := range reporting {
		s := m.report.Strain[service]
		if !m.fresh || !(s.Waiting >= 0) || !(s.Stretch >= 0) {
			continue
		}
		out.Waiting += s.Waiting
		if s.Stretch > 0 {
			w := math.Max(m.report.Load, 1)
			sum, weight = sum+s.Stretch*w, weight+w
		}
	}
	if weight > 0 {
		out.Stretch = sum / weight
	}
	return out
}

// samplesPerSecond is about how many clients a second are looked at for their distance.
const samplesPerSecond = 50

// sampled tells whether the distance of the client of the count-th request is looked at.
func (n *Node) sampled(count uint64) bool {
	every := 1 + uint64(n.requests.value()/samplesPerSecond)
	return count%every == 0
}

// seen counts how far a client of a service is from this region, to know the farthest when the region is full.
func (n *Node) seen(service string, client netip.Addr) {
	s := n.snapshot.Load()
	self := s.Region(n.id.region)
	if self < 0 || s.Regions[self].Capacity <= 0 {
		return
	}
	var rtts [proxy.MaxRegions]routing.RTT
	c, _ := locate(n.geo, client)
	c.RTT = n.rttOf(rtts[:], s, client)
	n.spills.seen(s, self, service, &c)
}
