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
func lifetimesOf(h http.Header, cc directives, p Policy, date time.Time) lifetimes {
	l := lifetimes{noCache: cc.noCache}
	l.fresh, l.explicit = freshnessOf(h, cc, date)
	if !l.explicit && p.TTL != nil && !cc.noCache {
		l.fresh = max(*p.TTL, 0)
	}
	if cc.noCache || cc.mustRevalidate || cc.proxyRevalidate || cc.sMaxAge != absent {
		return l // stale reuse is forbidden: sections 4.2.4 and 5.2.2.10
	}
	l.swr = orPolicy(cc.staleWhileRevalidate, p.StaleWhileRevalidate)
	l.sie = orPolicy(cc.staleIfError, p.StaleIfError)
	return l
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
		at, err := http.ParseTime(line)
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
	if at, err := http.ParseTime(h.Get("Date")); err == nil {
		return at, true
	}
	return received.UTC().Truncate(time.Second), false
}
