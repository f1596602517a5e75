package lab

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// distanceRTT is what a round trip over a good network between two places takes: light in fibre covers 100 km a
// millisecond there and back, and routes are about 1.5 times the great circle. It is scaled down to a fifth, so that a
// person at the lab does not wait while regions still differ.
func distanceRTT(a, b place) time.Duration {
	const kmPerMS, detour, scale = 100, 1.5, 5
	ms := greatCircleKM(a, b) / kmPerMS * detour / scale
	return time.Duration(math.Max(1, math.Round(ms))) * time.Millisecond
}

// greatCircleKM is the haversine distance.
func greatCircleKM(a, b place) float64 {
	rad := func(deg float64) float64 { return deg * math.Pi / 180 }
	sinLat, sinLon := math.Sin(rad(b.lat-a.lat)/2), math.Sin(rad(b.lon-a.lon)/2)
	h := sinLat*sinLat + math.Cos(rad(a.lat))*math.Cos(rad(b.lat))*sinLon*sinLon
	return 2 * 6371 * math.Asin(math.Sqrt(h))
}

// Latency is the simulated round trip between pairs of regions that a person chose; other pairs have their distance's.
type Latency map[[2]string]time.Duration

// ParseLatency reads "eu-west:us-east=80ms,us-east:ap-southeast=200ms", or "off" for none at all.
func ParseLatency(s string) (Latency, error) {
	l := Latency{}
	if s == "" {
		return l, nil
	}
	known := map[string]bool{}
	for _, p := range places() {
		known[p.name] = true
	}
	if s == "off" {
		for a := range known {
			for b := range known {
				l[[2]string{a, b}] = 0
			}
		}
		return l, nil
	}
	for pair := range strings.SplitSeq(s, ",") {
		names, d, ok := strings.Cut(pair, "=")
		a, b, ok2 := strings.Cut(names, ":")
		rtt, err := time.ParseDuration(d)
		if !ok || !ok2 || err != nil || rtt < 0 || rtt > 5*time.Second {
			return nil, fmt.Errorf("--latency %q: expected REGION:REGION=DURATION (a round trip of at most 5s), such as eu-west:us-east=80ms", pair)
		}
		for _, n := range []string{a, b} {
			if !known[n] {
				return nil, fmt.Errorf("--latency %q: %q is not a region of the lab", pair, n)
			}
		}
		if a == b {
			return nil, fmt.Errorf("--latency %q: a region is no distance from itself", pair)
		}
		l[[2]string{a, b}], l[[2]string{b, a}] = rtt, rtt
	}
	return l, nil
}

func (l Latency) between(a, b string) (time.Duration, bool) {
	d, ok := l[[2]string{a, b}]
	return d, ok
}
