package proxy

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"landfall/cache"
	"landfall/gateway/upstream"
	"landfall/routing"
)

// The caches of a fleet are one in three steps. A node that misses asks the node of its region that the key belongs to
// (its peer); that one asks the region that alone asks the origin (the shield), at the node there that the key belongs to.
// Each step stores and collapses, so that however many ask, the origin is asked once. A step that can't be taken is left
// out: a dead peer costs a miss, never an error.
//
// Purges stay exact over the steps without comparing clocks: a request carries which purges its sender has applied, and
// whoever answers it has applied these before it looks into its store. So what comes back was asked of the origin after
// each purge that was before the sender's fetch; see Knowledge.

// headerRole says what the receiver of a forwarded request is to it: rolePeer, roleShield, or roleForget.
const (
	headerRole   = "Landfall-Cache"
	headerPurged = "Landfall-Purged" // what the sender knows of purges
	headerKeyed  = "Landfall-Keyed"  // the digest of the sender's key policy

	rolePeer   = "peer"   // its region's holder of the key
	roleShield = "shield" // the holder of the key in the region that asks the origin
	roleForget = "forget" // a holder of a URL that an unsafe request has changed
)

// Knowledge is which purges this node has applied.
type Knowledge interface {
	// Known is all of it in a form for a header; false: it is too much for one.
	Known() (string, bool)
	// Reached tells whether this node has applied all that is known elsewhere, and waits a moment for it.
	Reached(ctx context.Context, known string) bool
}

const (
	// heldBound and heldFloor bound the requests that a node has under way to one holder: a quarter more than the holders'
	// mean, but never fewer than the floor. What exceeds it goes to the next in the key's order (consistent hashing with
	// bounded loads, Mirrokni et al. 2016).
	heldBound = 1.25
	heldFloor = 64
	// shieldTries is how many nodes of the shield's region are tried.
	shieldTries = 2
	// forgetPatience bounds how long an unsafe request's answer waits for holders to forget.
	forgetPatience = 500 * time.Millisecond
)

// sharing is what a proxy knows of the other nodes' caches. It is safe for concurrent use.
type sharing struct {
	heat heat
	held sync.Map // *atomic.Int64 of the requests under way, by node
}

// steps lists the nodes to ask before the origin, in order.
type step struct {
	role   string
	region int
	nodes  []routing.Node // those to try
}

// fetchShared fetches for the cache: from the next step that answers, or by the region and pool phases.
func (x *exchange) fetchShared(from *http.Request, coding string, body *bodyWatch) (*http.Response, trail, error) {
	asking := cache.AskingOf(from.Context())
	if asking == nil || !asking.Shareable || x.head.hop >= maxHops || x.p.o.Peers == nil || x.p.o.Purges == nil || x.divided() || x.belongs(from) {
		return x.fetch(from, coding, body)
	}
	known, fits := x.p.o.Purges.Known()
	key := holderKey(x.match.service.name, x.head, from.URL.RawQuery)
	for _, s := range x.p.steps(x, key) {
		if !fits {
			x.p.o.Metrics.shared.WithLabelValues(s.role, "skipped").Inc()
			break
		}
		for _, node := range s.nodes {
			resp, tr, ok := x.askHolder(from, coding, body, s, node, known)
			if ok {
				asking.Detail = s.role + ":" + node.Name
				asking.Unsure = resp.Header.Get(cache.HeaderStale) != ""
				asking.Elsewhere = s.role == rolePeer && !asking.Holds && !x.p.sharing.heat.hot(key, x.p.o.Now())
				return resp, tr, nil
			}
			if from.Context().Err() != nil {
				return nil, tr, context.Cause(from.Context())
			}
		}
	}
	return x.fetch(from, coding, body)
}

// divided tells whether clients of the request's route get different answers by flag or canary: which of them a node gives
// is settled where the client is.
func (x *exchange) divided() bool { return x.variant != "" || x.match.canary != nil }

// askHolder asks another node's cache.
func (x *exchange) askHolder(from *http.Request, coding string, body *bodyWatch, s step, node routing.Node, known string) (*http.Response, trail, bool) {
	m := x.p.o.Metrics
	tr := trail{Region: x.p.o.Snapshot().Regions[s.region].Name, Node: node.Name, Tries: 1}
	if s.role == roleShield {
		m.forwarded.WithLabelValues(x.p.o.Region, tr.Region).Inc()
	}
	load := x.p.sharing.load(node.Name)
	load.Add(1)
	done := sync.OnceFunc(func() { load.Add(-1) })
	resp, err := x.forwardAs(from, coding, body, node, false, func(h http.Header) {
		h.Set(headerRole, s.role)
		h.Set(headerPurged, known)
		h.Set(headerKeyed, x.match.keyed)
		h["If-None-Match"] = from.Header["If-None-Match"] // of the variant that the holder has, too
	})
	if err != nil {
		done()
		result := "failed"
		if errors.As(err, new(*refusal)) {
			result = "refused"
		}
		m.shared.WithLabelValues(s.role, result).Inc()
		return nil, tr, false
	}
	m.shared.WithLabelValues(s.role, "answered").Inc()
	resp.Body = &closeHook{resp.Body, done}
	return resp, tr, true
}

// closeHook tells the end of a body.
type closeHook struct {
	body interface {
		Read([]byte) (int, error)
		Close() error
	}
	closed func()
}

func (c *closeHook) Read(p []byte) (int, error) { return c.body.Read(p) }

func (c *closeHook) Close() error {
	c.closed()
	return c.body.Close()
}

func (s *sharing) load(node string) *atomic.Int64 {
	if v, ok := s.held.Load(node); ok {
		return v.(*atomic.Int64)
	}
	v, _ := s.held.LoadOrStore(node, new(atomic.Int64))
	return v.(*atomic.Int64)
}

// steps are the steps that a miss of x takes, by where it came from.
func (p *Proxy) steps(x *exchange, key uint64) (out []step) {
	s := p.o.Snapshot()
	if x.head.role == "" {
		if node, ok := p.peer(s, key); ok {
			out = append(out, step{rolePeer, p.self, []routing.Node{node}})
		}
	}
	if x.head.role == roleShield {
		return out
	}
	if region, ok := p.shield(s, x.target(), x.client(s)); ok {
		nodes := p.sharing.order(s.Regions[region].Nodes, key)
		out = append(out, step{roleShield, region, nodes[:min(len(nodes), shieldTries)]})
	}
	return out
}

// Holders are the nodes that a miss of this node asks before the origin, in order, as "peer node" and "shield region/node"
// would say it; none when it asks the origin itself.
func (p *Proxy) Holders(service, scheme, host, path, query string) (out [][3]string) {
	s := p.o.Snapshot()
	if p.o.Peers == nil || p.o.Purges == nil || p.hosts.named[service] == nil {
		return nil
	}
	x := &exchange{p: p, head: headResult{scheme: scheme, authority: host, path: path, query: query}}
	x.match.service = p.hosts.named[service]
	i, ok := p.RouteOf(service, http.MethodGet, path)
	if !ok {
		return nil
	}
	x.match.plan = x.match.service.plans[i]
	if c := x.match.route.Cache; c != nil && c.Off || x.match.canary != nil || x.match.variant != "" {
		return nil
	}
	key := holderKey(service, x.head, x.match.key.Query(query))
	for _, step := range p.steps(x, key) {
		out = append(out, [3]string{step.role, s.Regions[step.region].Name, step.nodes[0].Name})
	}
	return out
}

// client is the client of a decision as this node makes it.
func (x *exchange) client(s *routing.Snapshot) routing.Client {
	return routing.Client{
		Point: s.Regions[x.p.self].Location, Key: routing.ClientKey(x.head.client), Country: routing.CountryOf(x.head.country), Via: x.p.self + 1,
	}
}

// peer is the node of this region that a key belongs to, unless that is this one.
func (p *Proxy) peer(s *routing.Snapshot, key uint64) (routing.Node, bool) {
	region := s.Regions[p.self]
	if !*p.o.Config.Cache.RegionPeers || region.Dead || len(region.Nodes) == 0 {
		return routing.Node{}, false
	}
	first := p.sharing.order(region.Nodes, key)[0]
	return first, first.Name != p.o.Node
}

// shield is the region that asks the origin of a service for this one; none where this one does so itself, or where it
// can't be reached: nobody waits for a shield.
func (p *Proxy) shield(s *routing.Snapshot, service string, client routing.Client) (region int, ok bool) {
	mode := p.o.Config.Cache.Shield
	index := s.Service(service)
	if mode == "off" || index < 0 || p.o.Config.Services[service] == nil {
		return 0, false
	}
	var buf [MaxRegions]routing.Choice
	d := s.Decide(buf[:0], index, client)
	usable := slices.DeleteFunc(d.Choices[:d.Usable], func(c routing.Choice) bool {
		return c.State == routing.Down || s.Regions[c.Region].Dead || len(s.Regions[c.Region].Nodes) == 0
	})
	pools := p.o.Config.Services[service].Pools
	if mode == "nearest" {
		if _, own := pools[p.o.Region]; own {
			return 0, false
		}
		for _, c := range usable {
			if _, own := pools[s.Regions[c.Region].Name]; own && c.Region != p.self {
				return c.Region, true
			}
		}
		// The origins are nobody's in particular: the first region of all asks them, as all regions agree on that.
		usable = slices.Clone(usable)
		slices.SortFunc(usable, func(a, b routing.Choice) int { return cmp.Compare(a.Region, b.Region) })
		return firstOther(usable, p.self)
	}
	for _, c := range usable {
		if s.Regions[c.Region].Name == mode {
			return c.Region, c.Region != p.self
		}
	}
	return 0, false
}

func firstOther(usable []routing.Choice, self int) (int, bool) {
	if len(usable) == 0 || usable[0].Region == self {
		return 0, false
	}
	return usable[0].Region, true
}

// order ranks nodes for a key by rendezvous hashing, so that a node that comes or goes moves only its own keys. Nodes that
// have more than their share under way go last.
func (s *sharing) order(nodes []routing.Node, key uint64) []routing.Node {
	type ranked struct {
		node routing.Node
		rank uint64
		over bool
	}
	total := int64(0)
	list := make([]ranked, len(nodes))
	loads := make([]int64, len(nodes))
	for i, n := range nodes {
		list[i] = ranked{node: n, rank: mix(key ^ hashText(n.Name))}
		loads[i] = s.load(n.Name).Load()
		total += loads[i]
	}
	bound := max(heldFloor, int64(heldBound*float64(total+1)/float64(max(len(nodes), 1)))+1)
	for i := range list {
		list[i].over = loads[i] >= bound
	}
	slices.SortFunc(list, func(a, b ranked) int {
		if a.over != b.over {
			if a.over {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(b.rank, a.rank), strings.Compare(a.node.Name, b.node.Name))
	})
	out := make([]routing.Node, len(list))
	for i := range list {
		out[i] = list[i].node
	}
	return out
}

// holderKey is what a URL's holder is found by: the cache's key without what headers add to it, so that all variants of a
// URL are with one node. query is that of the fetch, which has only what counts.
func holderKey(service string, h headResult, query string) uint64 {
	return hashText(service + "\x00" + h.scheme + "\x00" + h.authority + "\x00" + h.path + "\x00" + query)
}

// hashText and mix are the same on every node, unlike hash/maphash.
func hashText(s string) uint64 {
	f := fnv.New64a()
	_, _ = f.Write([]byte(s)) // never fails
	return mix(f.Sum64())
}

// mix is the finaliser of splitmix64: FNV alone spreads short names badly.
func mix(h uint64) uint64 {
	h ^= h >> 30
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 27
	h *= 0x94d049bb133111eb
	return h ^ h>>31
}

// heat counts, in constant memory, how often keys that are held elsewhere were asked for lately, so that only the hot ones
// are copied. Keys that collide share a count: at the worst one is copied too soon, or later.
type heat struct {
	slots [heatSlots]atomic.Uint64 // upper 32 bits: of the key; then 24 of the minute; then 8 of the count
}

const (
	heatSlots = 1 << 14
	// hotAt is the request within one minute by which an object is copied from its holder.
	hotAt = 3
)

// hot counts a request and tells whether there have been enough.
func (h *heat) hot(key uint64, now time.Time) bool {
	slot := &h.slots[key%heatSlots]
	head := key>>32<<32 | uint64(now.Unix()/60)&(1<<24-1)<<8
	v, count := slot.Load(), uint64(1)
	if v>>8<<8 == head {
		count = min(v&0xff+1, 0xff)
	}
	slot.Store(head | count) // a race loses a count
	return count >= hotAt
}

// reached is the first thing that a node does with another cache's request: it has applied the purges that the sender
// knows of, or it leaves the answer to others. So it does during a rollout where its config divides clients that the
// sender's does not, or makes other keys: it would merge what the sender tells apart, or store what a purge of the sender's
// would not find.
func (x *exchange) reached() *refusal {
	if x.divided() || x.in.Header.Get(headerKeyed) != x.match.keyed {
		return &refusal{reason: behind, text: "this node has another configuration", noPool: true}
	}
	if known := x.in.Header.Get(headerPurged); x.p.o.Purges == nil || !x.p.o.Purges.Reached(x.in.Context(), known) {
		return &refusal{reason: behind, text: "this node has not heard of all purges yet", noPool: true}
	}
	return nil
}

// forget drops a URL that an unsafe request at another node has changed.
func (x *exchange) forget() *refusal {
	x.p.o.Cache.Purge(cache.Purge{Service: x.match.service.name, Host: x.head.authority, Path: x.head.path, RawQuery: x.head.query})
	x.w.WriteHeader(http.StatusNoContent)
	return nil
}

// invalidated tells the other holders of a URL that an unsafe request has changed it (RFC 9111 section 4.4): what this
// client asks for next, here, must not come from their stores. A holder that doesn't hear it keeps what it has until it is
// stale, as any other cache between would.
func (x *exchange) invalidated(path, query string) {
	if x.p.o.Peers == nil || x.p.o.Purges == nil {
		return
	}
	head := x.head
	head.path, head.query = path, query
	key := holderKey(x.match.service.name, head, query)
	s := x.p.o.Snapshot()
	var nodes []routing.Node
	if node, ok := x.p.peer(s, key); ok {
		nodes = append(nodes, node)
	}
	if region, ok := x.p.shield(s, x.target(), x.client(s)); ok {
		nodes = append(nodes, x.p.sharing.order(s.Regions[region].Nodes, key)[0])
	}
	if len(nodes) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(x.in.Context(), forgetPatience)
	defer cancel()
	var telling sync.WaitGroup
	for _, node := range nodes {
		telling.Go(func() { x.tellForget(ctx, node, path, query) })
	}
	telling.Wait()
}

func (x *exchange) tellForget(ctx context.Context, node routing.Node, path, query string) {
	r := (&http.Request{Method: http.MethodPost, URL: &url.URL{Scheme: "https", Host: node.Name + upstream.PeerDomain, RawQuery: query}, Host: x.head.authority, Header: http.Header{}}).WithContext(ctx)
	setEscapedPath(r.URL, path)
	x.setHop(r.Header)
	r.Header.Set(headerRole, roleForget)
	resp, err := x.p.o.Peers.RoundTrip(r)
	result := "answered"
	if err != nil || resp.StatusCode != http.StatusNoContent {
		result = "failed"
	}
	if err == nil {
		_ = resp.Body.Close()
	}
	x.p.o.Metrics.shared.WithLabelValues(roleForget, result).Inc()
}

func newShared() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "landfall_cache_peer_requests_total",
		Help: "Requests to other nodes' caches: to the region's holder of a key (peer) or the region that asks the origin (shield), or that they forget a URL that was changed (forget); and whether they answered, failed, refused (another configuration, or purges not heard of yet), or were skipped since more purges are known than fit."},
		[]string{"role", "result"})
}
