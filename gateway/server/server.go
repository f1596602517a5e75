package server

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"landfall/configs"
	_ "landfall/gateway/server/xconnect" // WebSocket over HTTP/2
)

// Options are what a Server is made of. The zero value of each field has a working default.
type Options struct {
	Limits  configs.Limits   // zero fields get the config's defaults; Body: only when all of Limits is zero
	Logger  *slog.Logger     // default: discards
	Metrics *Metrics         // default: metrics that nobody sees
	Now     func() time.Time // ages, rates and stalls; deadlines of sockets go by the system's clock. Default: time.Now
	// OnRTT is told the smallest round trip of each client connection when it ends: over TCP where the system knows it
	// (Linux), over QUIC by its own estimate. It must not wait. Nil: not asked for.
	OnRTT func(client netip.Addr, rtt time.Duration)
	Rand  io.Reader // request ids and jitter; must be safe for concurrent use. Default: crypto/rand
}

// Server accepts connections, serves them and stops in stages. The order of calls is New, Add*, Run, Stop; Add* may
// also come during Run. All methods are safe for concurrent use.
type Server struct {
	log      *slog.Logger
	errorLog *log.Logger
	metrics  *Metrics
	now      func() time.Time
	rand     io.Reader
	onRTT    func(netip.Addr, time.Duration)
	live     atomic.Pointer[configs.Limits]
	bufs     sync.Pool
	clients  clients

	leaving  atomic.Bool
	stopping atomic.Bool
	inFlight atomic.Int64
	upgraded atomic.Int64 // of these, those that have somebody who says goodbye
	going    context.Context
	farewell context.CancelFunc // ends going: what is left is cut in a moment
	finished atomic.Int64       // requests that finished since the start
	hurry    atomic.Bool        // a stop cuts what is left

	h1     *http.Server
	h1Feed *feed

	mu            sync.Mutex
	running       bool
	listeners     []*listener
	quics         []*listener // for HTTP/3
	conns         map[*conn]struct{}
	accepting     sync.WaitGroup // accept loops
	serving       sync.WaitGroup // handshakes, HTTP/2 and HTTP/3 connections
	failed        chan error     // a listener's failure
	acceptingQUIC sync.WaitGroup // accept loops of HTTP/3, which end with their handshakes
	stopOnce      sync.Once
	report        StopReport
	stopped       chan struct{}
}

// New creates a server without listeners.
func New(o Options) *Server {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(prometheus.NewRegistry())
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	s := &Server{
		log: o.Logger, metrics: o.Metrics, now: o.Now, rand: o.Rand, onRTT: o.OnRTT,
		errorLog: newErrorLog(o.Logger, o.Now),
		clients:  clients{byKey: map[clientKey]*client{}},
		conns:    map[*conn]struct{}{},
		failed:   make(chan error, 1),
		stopped:  make(chan struct{}),
		h1Feed:   newFeed(),
	}
	s.going, s.farewell = context.WithCancel(context.Background())
	s.bufs.New = func() any { b := make([]byte, 0, 4096); return &b }
	s.SetLimits(o.Limits)
	s.h1 = newH1Server(s)
	return s
}

// SetLimits replaces the limits. Bounds on connections, heads, bodies and the times of HTTP/1.1 hold from the next
// connection, request or read on; an HTTP/2 or HTTP/3 connection keeps the streams, head size and idle time it began with.
func (s *Server) SetLimits(l configs.Limits) {
	if l == (configs.Limits{}) {
		l.Body = 64 << 20
	}
	orDefault(&l.HeaderBytes, 32<<10)
	orDefault(&l.Headers, 128)
	orDefault(&l.Streams, 128)
	orDefault(&l.Connections, 100000)
	orDefault(&l.ConnectionsPerClient, 512)
	orDefault(&l.HeaderTimeout, configs.Duration(10*time.Second))
	orDefault(&l.IdleTimeout, configs.Duration(75*time.Second))
	s.live.Store(&l)
}

func orDefault[T ~int | ~int64](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// limits are those of the moment. The caller must not change them.
func (s *Server) limits() *configs.Limits { return s.live.Load() }

// What a forwarding node adds to a request at most, so that one which a node let in is not refused by the next.
const (
	peerMoreHeaders     = 32
	peerMoreHeaderBytes = 16 << 10
)

// limitsOf are the limits of a listener: a node may send somewhat more than a client, and bodies as they come.
func (s *Server) limitsOf(k kind) *configs.Limits {
	limits := s.limits()
	if k != peerListener {
		return limits
	}
	wider := *limits
	wider.Headers += peerMoreHeaders
	wider.HeaderBytes += peerMoreHeaderBytes
	wider.Body = math.MaxInt64
	return &wider
}

// Run serves until Stop has finished, which returns nil, or a listener fails for good, which returns why after all
// connections were closed. When ctx ends before Stop was called, Run stops without grace and returns nil. To be called
// once.
func (s *Server) Run(ctx context.Context) error {
	s.mu.Lock()
	if s.running {
		s.mu.Unlock()
		return errors.New("the server runs already; Run may be called once")
	}
	s.running = true
	for _, l := range s.listeners {
		s.accept(l)
	}
	for _, l := range s.quics {
		s.acceptQUIC(l)
	}
	s.mu.Unlock()

	sweepCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var own sync.WaitGroup
	own.Go(func() { _ = s.h1.Serve(s.h1Feed) }) // ends with the feed
	own.Go(func() { s.sweep(sweepCtx) })
	defer own.Wait()
	defer cancel()

	var failure error
	select {
	case <-s.stopped:
		return nil
	case failure = <-s.failed:
	case <-ctx.Done():
		if s.stopping.Load() { // a graceful stop is under way; its own bounds end it
			<-s.stopped
			return nil
		}
	}
	s.Stop(context.WithoutCancel(ctx), 0)
	return failure
}

// getBuf returns an empty buffer from the pool.
func (s *Server) getBuf() []byte { return (*s.bufs.Get().(*[]byte))[:0] }

// putBuf gives a buffer back; a large one, from a large head, is left to the collector.
func (s *Server) putBuf(b []byte) {
	if cap(b) <= 16<<10 {
		b = b[:0]
		s.bufs.Put(&b)
	}
}

// remove forgets a closed connection.
func (s *Server) remove(c *conn) {
	s.clients.leave(c.client, c.ln.kind == peerListener)
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	if proto := c.proto(); proto != "" {
		s.metrics.connections.WithLabelValues(c.ln.kind.String(), proto).Dec()
	}
}

// each calls f for every open connection.
func (s *Server) each(f func(*conn)) {
	s.mu.Lock()
	all := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		f(c)
	}
}
