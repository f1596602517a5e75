package proxy

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"landfall/cache"
	"landfall/configs"
	"landfall/gateway/canary"
	"landfall/gateway/compress"
	"landfall/gateway/homes"
	"landfall/gateway/upstream"
	"landfall/routing"
	"landfall/routing/geo"
)

// Conn is what the listener knows of the connection that a request came by.
type Conn struct {
	Remote    netip.Addr
	TLS       bool
	Peer      string // on the peer listener: the verified name of the node that forwards; empty elsewhere
	RequestID string // 32 hex digits
	// BeforeCut has f called when the node stops and is about to cut what is left, until cancel is called. Optional.
	BeforeCut func(f func()) (cancel func())
	Sample    bool // tell Options.Seen of the client
}

// Locator finds where a client is. A nil *geo.DB is one that finds nothing.
type Locator interface {
	Lookup(netip.Addr) (geo.Place, bool)
}

// Purger invalidates a URL of a service on every node and returns the number of objects that went.
type Purger interface {
	PurgeURL(ctx context.Context, service, url string, soft bool) (removed int, missing []string, err error)
}

// Options are the parts that a Proxy works with. All are needed but those marked optional.
type Options struct {
	Config     *configs.Config
	Node       string
	Region     string
	Cache      *cache.Cache
	Compressor *compress.Compressor
	Pools      map[string]*upstream.Pool // this region's pool by service; none for services that have no origins here
	Peers      http.RoundTripper         // to other regions' nodes; optional
	Snapshot   func() *routing.Snapshot
	Homes      map[string]*homes.Directory // by service: where users' data lives; none for services without an affinity
	Locator    Locator
	Purger     Purger
	Purges     Knowledge // what this node knows of purges; without it caches are not shared
	// Groups tells the fleet of cache groups that an unsafe request has invalidated here (RFC 9875). It must not block. nil:
	// nobody is told.
	Groups    func(service, origin string, names []string)
	HasCert   func(host string) bool // a certificate is held: plain HTTP is redirected
	BadBody   error                  // what a read of a malformed request body fails with
	HTTPSPort string                 // of the HTTPS listener that redirects lead to; empty: no redirects
	Lasting   *Lasting
	Logger    *slog.Logger
	Access    *AccessLog
	Metrics   *Metrics
	Now       func() time.Time

	ToldRTT func(client netip.Addr, rtt time.Duration) // takes what trusted proxies tell (dns.rtt.header); optional
	// Better tells of a region that a client should rather be in than here; optional.
	Better     func(service string, client netip.Addr) (Better, bool)
	AltSvcPort string // of the HTTPS listeners, for Alt-Svc; empty: none
	AltSvcH3   bool   // they have HTTP/3 beside them

	Waits func(service string) *Waits             // counts what requests wait for this region's origins; optional
	Seen  func(service string, client netip.Addr) // told of the clients of some requests (Conn.Sample); optional
}

// Proxy serves requests by one configuration. It is safe for concurrent use.
type Proxy struct {
	o       Options
	hosts   hostTable
	trusted []netip.Prefix
	self    int // index of this node's region in every snapshot

	buffers sync.Pool // *[]byte of copySize
	sharing sharing
}

// New builds the chain for one configuration.
func New(o Options) (*Proxy, error) {
	p := &Proxy{o: o}
	hosts, err := newHostTable(o.Config, p)
	if err != nil {
		return nil, err
	}
	for name, s := range hosts.named {
		s.homes = o.Homes[name]
	}
	p.hosts = hosts
	for _, t := range o.Config.Listen.TrustedProxies {
		p.trusted = append(p.trusted, t.Prefix)
	}
	p.self = o.Snapshot().Region(o.Region)
	for name, s := range hosts.named {
		s.waits = new(Waits)
		if o.Waits != nil {
			s.waits = o.Waits(name)
		}
	}
	p.buffers.New = func() any { b := make([]byte, copySize); return &b }
	return p, nil
}

// copySize is the buffer of a streamed body: big enough that a fast stream costs few calls, small enough for thousands.
const copySize = 32 << 10

// Serve answers one client request.
func (p *Proxy) Serve(w http.ResponseWriter, r *http.Request, conn Conn) {
	x := &exchange{p: p, conn: conn, started: p.o.Now(), in: r}
	x.w = &responseWriter{ResponseWriter: w, x: x}
	defer x.account()
	if r.ProtoMajor == 1 && r.ContentLength != 0 {
		// An origin may answer before it has read the whole body. Without this net/http would then throw away what the
		// origin still waits for. Writers that can't do it have no such habit.
		if http.NewResponseController(w).EnableFullDuplex() == nil {
			defer x.drain(r.Body)
		}
	}
	if no := x.run(); no != nil {
		x.refuse(no)
	}
}

// drain reads what nobody wanted of a request's body, as net/http does by itself without full duplex: up to 256 KiB, for
// the sake of the connection. Left to the server, the body's end would come while it waits for the next request already,
// and that it does not survive. A response that broke off ends the connection at once: its client may be waiting with its
// body for that very response.
func (x *exchange) drain(body io.Reader) {
	if x.outcome.Aborted {
		x.hangUp()
		return
	}
	if x.w.wrote && x.w.status != http.StatusSwitchingProtocols {
		x.w.Flush()
		_, _ = io.CopyN(io.Discard, body, maxDrain+1) // a body that fails, or is longer, ends the connection
	}
}

const maxDrain = 256 << 10

// exchange is one request on its way: what each phase found, for the phases after it and for the account. It belongs to
// the handler's goroutine.
type exchange struct {
	p       *Proxy
	conn    Conn
	started time.Time
	in      *http.Request
	w       *responseWriter

	// Set by head.
	head headResult
	// Set by route.
	match routeResult
	wrote bool // this client has written lately, so it reads from the primary

	// Set by route too: whose pools serve the request, when it is not as the route says, and what of this the cache must
	// tell apart.
	to      string
	side    canary.Side
	setSide string // the cookie to be given
	variant string

	// Set by cache, region and pool, for the account.
	outcome  cache.Outcome
	received int64                 // bytes of the request's body, and of an upgraded connection's client side
	trail    atomic.Pointer[trail] // a fill may write it after the request has ended
	refusal  *refusal

	steeredTo string // the better region that the client was told of
	// Of a copy that waits for the request's body.
	toMirror *upstream.Pool
	copied   *http.Request
}

// run leads the request through the phases up to the first "no".
func (x *exchange) run() *refusal {
	var no *refusal
	if x.head, no = x.p.head(x.in, x.conn); no != nil {
		return no
	}
	if x.match, no = x.p.route(x.head, x.flagOn); no != nil {
		return no
	}
	x.variant = x.match.variant
	x.chooseSide()
	x.debugHeaders()
	if x.redirected() {
		return nil
	}
	if x.head.rtt > 0 && x.p.o.ToldRTT != nil && !x.p.isTrusted(x.head.client) {
		x.p.o.ToldRTT(x.head.client, x.head.rtt)
	}
	if x.steered() {
		return nil
	}
	if no = x.resident(); no != nil {
		return no
	}
	if x.conn.Sample && x.head.hop == 0 && x.p.o.Seen != nil {
		x.p.o.Seen(x.match.service.name, x.head.client)
	}
	switch {
	case x.head.role == roleForget:
		return x.forget()
	case x.head.method == methodPurge:
		return x.purge()
	case x.head.method == http.MethodOptions && x.head.path == "*" && x.head.hop == 0:
		x.w.Header().Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
		x.w.WriteHeader(http.StatusNoContent) // RFC 9110 section 9.3.7: it is about the server, not about a resource
		return nil
	}
	if x.answeredEarly() {
		return nil
	}
	if no = x.access(); no != nil {
		return no
	}
	if x.answeredHere() {
		return nil
	}
	x.mirror()
	switch {
	case x.head.role != "":
		if no = x.reached(); no != nil {
			return no
		}
		return x.serveCached()
	case x.head.hop > 0:
		return x.servePeer()
	case x.head.upgrade != "":
		return x.serveUpgrade()
	}
	return x.serveCached()
}

// redirected answers a plain HTTP request for a host with a certificate by sending the client to HTTPS. A client that came
// by HTTPS to a trusted proxy is there already.
func (x *exchange) redirected() bool {
	o := &x.p.o
	if x.head.scheme == "https" || x.head.hop > 0 || o.HTTPSPort == "" || !o.HasCert(x.head.host) {
		return false
	}
	to := "https://" + x.head.host
	if o.HTTPSPort != "443" {
		to += ":" + o.HTTPSPort
	}
	x.w.Header().Set("Location", to+x.head.uri())
	x.w.WriteHeader(http.StatusPermanentRedirect)
	return true
}

func (x *exchange) debugHeaders() {
	if !x.match.service.config.Debug || x.head.hop > 0 {
		return
	}
	h := x.w.ResponseWriter.Header() // the final head is not begun yet: early hints may come before it
	h.Set("X-Landfall-Region", x.p.o.Region)
	h.Set("X-Landfall-Node", x.p.o.Node)
	h.Set("X-Request-Id", x.head.id)
}
