package proxy

import (
	"net/http"
	"sync/atomic"
	"time"

	"landfall/routing"
)

// shed refuses a request for which there is certainly no room, before anything is done for it: before its client is
// asked for, its body is read and another server is asked about it. What the cache may answer goes on, and so does what
// another region may serve, or has a place of its own; the pool itself refuses those of them that it must.
func (x *exchange) shed() *refusal {
	if r := x.match.route; x.head.hop > 0 || x.cacheable() || r.Redirect != nil || r.Respond != nil {
		return nil
	}
	pool := x.p.o.Pools[x.target()]
	if pool == nil || !pool.Full(x.match.policy.Priority) {
		return nil
	}
	if s := x.match.service; s.homes != nil || s.config.Primary != "" || x.elsewhereUp() {
		return nil
	}
	err := pool.Shed(x.match.policy.Priority)
	if err == nil {
		return nil // there is room by now
	}
	return x.p.refusalFor(err)
}

// cacheable tells whether the cache may have an answer.
func (x *exchange) cacheable() bool {
	c := x.match.route.Cache
	return (x.head.method == http.MethodGet || x.head.method == http.MethodHead) && x.head.upgrade == "" && (c == nil || !c.Off)
}

// elsewhereUp tells whether another region may serve the request.
func (x *exchange) elsewhereUp() bool {
	if x.p.o.Peers == nil {
		return false
	}
	s := x.p.o.Snapshot()
	service := s.Service(x.target())
	if service < 0 {
		return false
	}
	var buf [MaxRegions]routing.Choice
	d := s.Decide(buf[:0], service, x.client(s))
	for _, c := range d.Choices[:d.Usable] {
		if c.Region != x.p.self && c.State != routing.Down {
			return true
		}
	}
	return false
}

// shedsLogged is how many of the requests that are shed are logged in a second: in a storm they are nearly all, and a
// line for each would be most of the work that shedding saves. The metrics have them all.
const shedsLogged = 10

// ration lets so many through in a second. The zero value is ready. Safe for concurrent use.
type ration struct {
	second atomic.Int64
	taken  atomic.Int64
}

func (r *ration) take(now time.Time, most int64) bool {
	second := now.Unix()
	if old := r.second.Load(); old != second && r.second.CompareAndSwap(old, second) {
		r.taken.Store(0)
	}
	return r.taken.Load() < most && r.taken.Add(1) <= most
}
