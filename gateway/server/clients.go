package server

import (
	"math"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"landfall/configs"
)

// Bounds of the table of clients.
const (
	// minBurst is how many connections a client may open at once whatever its rate: a browser opens six.
	minBurst = 10
	// maxIdleClients bounds the clients that are remembered for their rate alone, without an open connection.
	maxIdleClients = 1 << 16
)

// clientKey is what counts as one client: an IPv4 address or an IPv6 /64, which is what one customer gets.
type clientKey netip.Addr

func keyOf(a netip.Addr) clientKey {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			a = p.Addr()
		}
	}
	return clientKey(a)
}

// clients counts connections, of all clients and of each. It is safe for concurrent use.
type clients struct {
	mu    sync.Mutex
	total int
	byKey map[clientKey]*client
	idle  int // clients without an open connection
}

type client struct {
	open    int
	limiter *rate.Limiter // nil without a rate
}

// admit counts a connection in, or says why it is refused.
func (t *clients) admit(k clientKey, l *configs.Limits, now time.Time) (reason string, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.total >= l.Connections {
		return "total", false
	}
	c := t.byKey[k]
	if c == nil {
		t.evict()
		c = &client{}
		t.byKey[k] = c
		t.idle++
	}
	if c.open >= l.ConnectionsPerClient {
		return "per_client", false
	}
	if !c.allow(l.ConnectionRate, now) {
		return "rate", false
	}
	if c.open == 0 {
		t.idle--
	}
	c.open++
	t.total++
	return "", true
}

// strained tells whether a client has used half of what it may have. From then on it must prove its address before anything
// is charged to it, where the protocol lets others forge that: they can't use up the other half.
func (t *clients) strained(k clientKey, l *configs.Limits, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.byKey[k]
	if c == nil {
		return false
	}
	return 2*c.open >= l.ConnectionsPerClient || c.limiter != nil && l.ConnectionRate > 0 && 2*c.limiter.TokensAt(now) <= float64(c.limiter.Burst())
}

// admitPeer counts a connection of another node in: only the total bounds it.
func (t *clients) admitPeer(l *configs.Limits) (reason string, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.total >= l.Connections {
		return "total", false
	}
	t.total++
	return "", true
}

// leave counts a connection out.
func (t *clients) leave(k clientKey, peer bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total--
	if peer {
		return
	}
	c := t.byKey[k]
	if c.open--; c.open > 0 {
		return
	}
	if c.limiter == nil {
		delete(t.byKey, k)
		return
	}
	t.idle++
}

// allow asks the client's rate for one more connection.
func (c *client) allow(r configs.Rate, now time.Time) bool {
	if r <= 0 {
		c.limiter = nil
		return true
	}
	burst := max(minBurst, int(math.Ceil(min(float64(r), 1e6))))
	switch {
	case c.limiter == nil:
		c.limiter = rate.NewLimiter(rate.Limit(r), burst)
	case c.limiter.Limit() != rate.Limit(r):
		c.limiter.SetLimitAt(now, rate.Limit(r))
		c.limiter.SetBurstAt(now, burst)
	}
	return c.limiter.AllowN(now, 1)
}

// evict forgets idle clients when they are too many; which ones is left to the map.
func (t *clients) evict() {
	if t.idle < maxIdleClients {
		return
	}
	for k, c := range t.byKey {
		if c.open > 0 {
			continue
		}
		delete(t.byKey, k)
		if t.idle--; t.idle <= maxIdleClients*3/4 {
			return
		}
	}
}

// sweep forgets the idle clients that have their full rate again.
func (t *clients) sweep(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, c := range t.byKey {
		if c.open == 0 && (c.limiter == nil || c.limiter.TokensAt(now) >= float64(c.limiter.Burst())) {
			delete(t.byKey, k)
			t.idle--
		}
	}
}
