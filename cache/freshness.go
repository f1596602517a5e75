package cache

import (
	"net/http"
	"time"
)

// lifetimes is how long a response may be reused, as its headers and the route's policy say.
type lifetimes struct {
	fresh    time.Duration // RFC 9111 section 4.2.1
	explicit bool          // the response itself carries the freshness
	swr, sie time.Duration // RFC 5861, from the moment it becomes stale; 0: not allowed
	noCache  bool          // to be validated before each reuse
}

// lifetimesOf reads the lifetimes of a response. date is its Date or, without one, the time it was received.
func lifetimesOf(h http.Header, cc directives, targeted bool, status int, p Policy, date time.Time) lifetimes {
	l := lifetimes{noCache: cc.noCache}
	if targeted {
		h = nil // Expires, too, is overridden (RFC 9213 section 2.1)
	}
	l.fresh, l.explicit = freshnessOf(h, cc, date)
	if !l.explicit && !cc.noCache {
		l.fresh = p.ttl(status)
	}
	if cc.noCache || cc.mustRevalidate || cc.proxyRevalidate || cc.sMaxAge != absent {
		return l // stale reuse is forbidden: sections 4.2.4 and 5.2.2.10
	}
	l.swr = orPolicy(cc.staleWhileRevalidate, p.StaleWhileRevalidate)
	l.sie = orPolicy(cc.staleIfError, p.StaleIfError)
	return l
}

// ttl is the freshness that the policy gives to responses of a status that say nothing themselves.
func (p Policy) ttl(status int) time.Duration {
	if d, ok := p.Negative[status]; ok && !policyStatus(status) {
		return max(d, 0)
	}
	if p.TTL != nil && policyStatus(status) {
		return max(*p.TTL, 0)
	}
	return 0
}

func (p Policy) givesTTL(status int) bool {
	_, negative := p.Negative[status]
	return policyStatus(status) && p.TTL != nil || negative && !policyStatus(status)
}

// jittered shortens a lifetime by up to the policy's share, so that what was stored together doesn't expire together. The
// chance is that of the nanosecond in which the response came.
func (p Policy) jittered(fresh time.Duration, received time.Time) time.Duration {
	if p.Jitter <= 0 || fresh <= 0 {
		return fresh
	}
	const steps = 1 << 16
	chance := float64(uint64(received.UnixNano())*0x9E3779B97F4A7C15>>48) / steps
	return fresh - time.Duration(min(p.Jitter, 1)*chance*float64(fresh))
}

func orPolicy(seconds int64, policy *time.Duration) time.Duration {
	switch {
	case seconds != absent:
		return time.Duration(seconds) * time.Second
	case policy != nil:
		return max(*policy, 0)
	}
	return 0
}

// freshnessOf is the freshness lifetime that the response carries itself (RFC 9111 section 4.2.1).
func freshnessOf(h http.Header, cc directives, date time.Time) (lifetime time.Duration, explicit bool) {
	switch {
	case cc.sMaxAge != absent:
		return time.Duration(cc.sMaxAge) * time.Second, true
	case cc.maxAge != absent:
		return time.Duration(cc.maxAge) * time.Second, true
	}
	lines := h["Expires"]
	if len(lines) == 0 {
		return 0, false
	}
	lifetime = maxSeconds * time.Second
	for _, line := range lines {
		at, err := parseDate(line)
		if err != nil {
			return 0, true // section 5.3: an invalid date, above all "0", is in the past
		}
		lifetime = min(lifetime, at.Sub(date))
	}
	return max(lifetime, 0), true
}

// initialAge is the corrected_initial_age of RFC 9111 section 4.2.3: the age that a response had when it was received.
func initialAge(h http.Header, date, asked, received time.Time) time.Duration {
	apparent := max(received.Sub(date), 0)
	corrected := received.Sub(asked)
	if lines := h["Age"]; len(lines) > 0 {
		if seconds, ok := parseSeconds(lines[0]); ok { // section 5.1: the first of several, an invalid one is ignored
			corrected += time.Duration(seconds) * time.Second
		}
	}
	return max(apparent, corrected, 0)
}

// dateOf is a response's Date; a missing or unreadable one is the time of receipt (RFC 9110 section 6.6.1).
func dateOf(h http.Header, received time.Time) (date time.Time, given bool) {
	if at, err := parseDate(h.Get("Date")); err == nil {
		return at, true
	}
	return received.UTC().Truncate(time.Second), false
}
