package proxy

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"

	"landfall/gateway/upstream"
	"landfall/routing"
)

// trail is what the region and pool phases did, for the account. It is filled by whoever runs the fetch and read by the
// handler; a detached fill may outlive the request, so the handler reads a copy made when the answer arrived.
type trail struct {
	Region string // where the request was served; empty: from the cache, or refused before
	Node   string // the other region's node, if forwarded
	Origin string
	Tries  int
	Fault  string // made on purpose, of the latest attempt that had one
}

// fetch runs the region and pool phases for a request of the cache: here where this region's pool is usable, else at the
// next region's node. Errors are *refusal or *upstream.Error.
func (x *exchange) fetch(from *http.Request, coding string, body *bodyWatch) (*http.Response, trail, error) {
	began := x.p.o.Now()
	resp, tr, err := x.ask(from, coding, body)
	x.compare(resp, err, x.p.o.Now().Sub(began))
	return resp, tr, err
}

// ask serves a request where its data is, when it is about a user's or a write, and else in the best region.
func (x *exchange) ask(from *http.Request, coding string, body *bodyWatch) (*http.Response, trail, error) {
	to, no := x.place(from)
	if no != nil {
		return nil, trail{}, no
	}
	if len(to.regions) > 0 {
		return x.directed(to, from, coding, body)
	}
	return x.anywhere(from, coding, body)
}

// anywhere serves a request in this region, or in another when this one can't.
func (x *exchange) anywhere(from *http.Request, coding string, body *bodyWatch) (*http.Response, trail, error) {
	pool := x.p.o.Pools[x.target()]
	if x.head.stay {
		if pool == nil {
			return nil, trail{}, &refusal{reason: noRegion, text: textOf(noRegion), noPool: true}
		}
		return x.here(pool, from, coding, body) // whatever its health says: better tried than refused
	}
	if pool == nil || pool.Usable() == routing.Down {
		resp, tr, err := x.elsewhere(from, coding, body)
		if err == nil || pool == nil || !untouched(err, body) {
			return resp, tr, err
		}
		// No other region answered: the pool that looks down may be better than nothing.
		return x.here(pool, from, coding, body)
	}
	resp, tr, err := x.here(pool, from, coding, body)
	if err == nil || from.Context().Err() != nil {
		return resp, tr, err
	}
	// The pool failed before its health said so. Another region may serve what was not sent, or is safe to send twice.
	again := !untouched(err, body)
	if again {
		from = from.WithContext(context.WithValue(from.Context(), repeated{}, true)) // in one other region, and no third
	}
	if !again || !x.head.again && x.mayRepeat(err, pool, from, body) {
		if resp2, tr2, err2 := x.elsewhere(from, coding, body); err2 == nil {
			return resp2, tr2, nil
		}
	}
	return resp, tr, err
}

// repeated is a context's key: the request was sent in this region, and is sent again in another.
type repeated struct{}

// mayRepeat tells whether a request that an origin may have seen goes to another region: when it is safe to send twice
// (RFC 9110 section 9.2.2), its body is whole, the failure is one that the route retries, and the pool's retry budget
// has room. A region in a brownout must not multiply its load over the others.
func (x *exchange) mayRepeat(err error, pool *upstream.Pool, from *http.Request, body *bodyWatch) bool {
	return x.repeatable() && x.head.upgrade == "" && body.whole() && pool.MayRetry(err, x.match.policy)
}

// untouched tells whether a failed attempt left the request unsent and its body whole.
func untouched(err error, body *bodyWatch) bool {
	if !body.whole() {
		return false
	}
	var up *upstream.Error
	if errors.As(err, &up) {
		return !up.Sent
	}
	var no *refusal
	return errors.As(err, &no) && no.noPool
}

// target is the service whose pools serve the request.
func (x *exchange) target() string {
	if x.to != "" {
		return x.to
	}
	if to := x.match.route.To; to != "" {
		return to
	}
	return x.match.service.name
}

// repeatable tells whether the request may be sent again (RFC 9110 section 9.2.2), or its client says so by an
// Idempotency-Key (draft-ietf-httpapi-idempotency-key-header).
func (x *exchange) repeatable() bool {
	switch x.head.method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
		return true
	}
	return x.in.Header["Idempotency-Key"] != nil
}

// here is the pool phase: an origin of this region.
func (x *exchange) here(pool *upstream.Pool, from *http.Request, coding string, body *bodyWatch) (*http.Response, trail, error) {
	out := x.outbound(from, coding, false)
	body.attach(out)
	if x.head.upgrade != "" {
		out.Header.Set("Connection", "Upgrade")
		out.Header.Set("Upgrade", x.head.upgrade)
	}
	x.shapeRequest(out)
	policy := x.match.policy
	policy.Key, policy.Client, policy.Fault = x.hashKey(out.Header), x.head.client, x.faults()
	waits, sent := x.match.service.waits, x.p.o.Now()
	waits.begin()
	answered := false
	defer func() { waits.end(x.p.o.Now().Sub(sent), answered) }()
	resp, at, err := pool.RoundTrip(out, policy)
	answered = err == nil
	tr := trail{Region: x.p.o.Region, Origin: at.Origin, Tries: at.Tries, Fault: at.Fault}
	if err != nil {
		return nil, tr, err
	}
	resp.Header.Del(headerFault) // ours alone
	return resp, tr, nil
}

// elsewhere is the region phase's second half: the next region's node by the same decision that DNS answers by, as seen
// from this region.
func (x *exchange) elsewhere(from *http.Request, coding string, body *bodyWatch) (*http.Response, trail, error) {
	if x.p.o.Peers == nil {
		return nil, trail{}, &refusal{reason: noRegion, text: "no region can serve this request now", noPool: true}
	}
	if x.head.hop >= maxHops {
		return nil, trail{}, &refusal{reason: hopLimit, text: "the request was forwarded too often between regions", noPool: true}
	}
	err := error(&refusal{reason: noRegion, text: "no region can serve this request now", noPool: true})
	s := x.p.o.Snapshot()
	service := s.Service(x.target())
	if service < 0 {
		return nil, trail{}, err // a reload took the service away while this request was under way
	}
	key := routing.ClientKey(x.head.client)
	var buf [MaxRegions]routing.Choice
	d := s.Decide(buf[:0], service, routing.Client{
		Point: s.Regions[x.p.self].Location, Key: key, Country: routing.CountryOf(x.head.country), Via: x.p.self + 1,
	})
	// Panic makes down regions candidates for clients, who have a second address. Here those that are up go first.
	slices.SortStableFunc(d.Choices[:d.Usable], func(a, b routing.Choice) int { return cmp.Compare(a.State, b.State) })
	var tr trail
	for _, c := range d.Choices[:d.Usable] {
		if c.Region == x.p.self {
			continue
		}
		resp, goOn, failed := x.offer(s, c.Region, &tr, false, from, coding, body)
		if resp != nil {
			return resp, tr, nil
		}
		if err = cmp.Or(failed, err); !goOn {
			return nil, tr, err
		}
	}
	return nil, tr, err
}

// offer sends a request to nodes of a region, one after the other while it has not reached an origin. Without a response,
// goOn tells that another region may serve it; without an error too, there was no node to try. stay keeps it in that region.
func (x *exchange) offer(s *routing.Snapshot, region int, tr *trail, stay bool, from *http.Request, coding string, body *bodyWatch) (resp *http.Response, goOn bool, err error) {
	nodes, name := s.Regions[region].Nodes, s.Regions[region].Name
	key := routing.ClientKey(x.head.client)
	for i := range min(len(nodes), nodesPerRegion) {
		if tr.Tries == maxForwards {
			return nil, false, err
		}
		node := nodes[(routing.FirstNode(key, len(nodes))+i)%len(nodes)]
		*tr = trail{Region: name, Node: node.Name, Tries: tr.Tries + 1}
		x.p.o.Metrics.forwarded.WithLabelValues(x.p.o.Region, name).Inc()
		if resp, err = x.forward(from, coding, body, node, stay); err == nil {
			tr.Fault = resp.Header.Get(headerFault) // of this answer, not of those that the cache makes of it
			resp.Header.Del(headerFault)
			return resp, true, nil
		}
		if from.Context().Err() != nil || !untouched(err, body) {
			return nil, false, err
		}
		if errors.As(err, new(*refusal)) {
			break // the node answered: its region has no pool to offer
		}
	}
	return nil, true, err
}

const (
	// maxForwards bounds how many nodes one request is offered to from one node, and nodesPerRegion how many in a region.
	maxForwards    = 3
	nodesPerRegion = 2
	// MaxRegions is the room for a decision on the stack; larger fleets allocate.
	MaxRegions = 32
)

// forward sends the request to another node over the peer channel. stay: it is served in that node's region, or refused.
func (x *exchange) forward(from *http.Request, coding string, body *bodyWatch, node routing.Node, stay bool) (*http.Response, error) {
	return x.forwardAs(from, coding, body, node, stay, nil)
}

// setHop writes what the next node must know of the request.
func (x *exchange) setHop(h http.Header) {
	h.Set(headerHop, strconv.Itoa(x.head.hop+1))
	h.Set(headerService, x.match.service.name)
	if x.to != "" {
		h.Set(headerTo, x.to)
	}
	h.Set(headerClient, x.head.client.String())
	h.Set(headerScheme, x.head.scheme)
}

// forwardAs is forward with more to say; with it the request is for the node's cache.
func (x *exchange) forwardAs(from *http.Request, coding string, body *bodyWatch, node routing.Node, stay bool, more func(http.Header)) (*http.Response, error) {
	out := x.outbound(from, coding, more != nil)
	body.attach(out)
	out.URL.Scheme, out.URL.Host = "https", node.Name+upstream.PeerDomain
	h := out.Header
	x.setHop(h)
	if stay {
		h.Set(headerStay, "1")
	}
	if x.head.again || from.Context().Value(repeated{}) != nil {
		h.Set(headerAgain, "1")
	}
	if more != nil {
		more(h)
	}
	var toPeer *io.PipeWriter
	if x.head.upgrade != "" {
		h.Set(headerUpgrade, x.head.upgrade)
		out.Method = http.MethodPost
		out.Body, toPeer = io.Pipe()
		out.ContentLength = -1
	}
	resp, err := x.p.o.Peers.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	if toPeer != nil {
		untunnel(resp, toPeer)
	}
	if why := reason(resp.Header.Get(headerNoPool)); why != "" {
		_ = resp.Body.Close() // an error page of ours
		if _, known := answers[why]; !known {
			why = badGateway // another version's
		}
		return nil, &refusal{reason: why, text: textOf(why), noPool: true}
	}
	return resp, nil
}
