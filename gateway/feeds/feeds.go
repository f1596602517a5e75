package feeds

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"landfall/configs"
)

// Purger makes a purge durable. An error that ErrRefused wraps says that it never will be.
type Purger func(ctx context.Context, p Purge) error

// ErrRefused is wrapped by an error of a purge that is wrong in itself: the service has no such host, or the like.
var ErrRefused = errors.New("refused")

// Options are what Feeds work with.
type Options struct {
	Node    string
	Purge   Purger
	Event   func(kind, subject, detail string)
	Metrics *Metrics
	Logger  *slog.Logger
	Now     func() time.Time

	// TakeOver is after how long without a word of a node its share of a stream goes to the others; 0: 15 s.
	TakeOver time.Duration
	// Dial opens connections to the servers; nil: net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Feeds are the sources and webhooks of a configuration. Safe for concurrent use.
type Feeds struct {
	o Options

	mu      sync.Mutex
	ctx     context.Context // nil before Run, and after
	running map[string]*source
	wanted  []configs.PurgeSource
	hooks   map[string]*hook
}

// New makes Feeds without any; Set gives them.
func New(o Options) *Feeds {
	o.TakeOver = cmp.Or(o.TakeOver, takeOver)
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: connectWait}).DialContext
	}
	return &Feeds{o: o, running: map[string]*source{}, hooks: map[string]*hook{}}
}

// Run consumes until ctx ends.
func (f *Feeds) Run(ctx context.Context) error {
	f.mu.Lock()
	f.ctx = ctx
	f.follow()
	f.mu.Unlock()
	<-ctx.Done()
	f.mu.Lock()
	f.ctx, f.wanted = nil, nil
	all := f.running
	f.running = map[string]*source{}
	f.mu.Unlock()
	for _, s := range all {
		s.end()
	}
	return nil
}

// Set puts a configuration in force. Sources that did not change go on.
func (f *Feeds) Set(c configs.Purge) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wanted = c.Sources
	f.setHooks(c.Webhooks)
	if f.ctx != nil {
		f.follow()
	}
}

// follow starts and ends sources as wanted. Callers hold mu.
func (f *Feeds) follow() {
	keep := map[string]bool{}
	for _, c := range f.wanted {
		name := c.Name()
		keep[name] = true
		old := f.running[name]
		if old != nil && reflect.DeepEqual(old.c, c) {
			continue
		}
		if old != nil {
			old.end()
		}
		f.running[name] = f.start(c)
	}
	for name, s := range f.running {
		if !keep[name] {
			s.end()
			f.o.Metrics.forget(name)
			delete(f.running, name)
		}
	}
}

// Status is how a source stands on this node.
type Status struct {
	Name      string
	Connected bool
	Lag       int64 // events that nobody has taken and acknowledged: of the whole stream (NATS), or of this node's share (Kafka)
	Purged    int64
	Ignored   int64
	Poison    int64
	Error     string // the last; "" since it works
}

// Status is how the sources stand, by name.
func (f *Feeds) Status() (out []Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.running {
		s.mu.Lock()
		out = append(out, s.status)
		s.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// source is one stream's consumer on this node.
type source struct {
	f      *Feeds
	c      configs.PurgeSource
	rule   rule
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	status Status
}

const (
	retryFirst = 500 * time.Millisecond
	retryLast  = 30 * time.Second
	batchSize  = 256
	atOnce     = 64 // purges of one source under way

	takeOver    = 15 * time.Second
	connectWait = 5 * time.Second
	// maxWhy bounds the reason that goes along with an event that was set aside, in bytes.
	maxWhy = 512
)

// start begins to consume a stream; callers hold mu.
func (f *Feeds) start(c configs.PurgeSource) *source {
	ctx, cancel := context.WithCancel(f.ctx)
	s := &source{f: f, c: c, rule: newRule(c.Map), cancel: cancel, done: make(chan struct{}), status: Status{Name: c.Name()}}
	go s.run(ctx)
	return s
}

func (s *source) end() {
	s.cancel()
	<-s.done
}

// run consumes until ctx ends, and begins anew whenever that fails.
func (s *source) run(ctx context.Context) {
	defer close(s.done)
	wait := retryFirst
	for ctx.Err() == nil {
		began := s.f.o.Now()
		var err error
		if len(s.c.NATS) > 0 {
			err = s.consumeNATS(ctx)
		} else {
			err = s.consumeKafka(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		s.failed(err)
		if s.f.o.Now().Sub(began) > retryLast {
			wait = retryFirst
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		wait = min(2*wait, retryLast)
	}
}

// failed notes that the stream can't be consumed for now. People hear of it once.
func (s *source) failed(err error) {
	if err == nil {
		err = errors.New("the connection ended")
	}
	s.mu.Lock()
	news := s.status.Error == ""
	s.status.Error, s.status.Connected = err.Error(), false
	name := s.status.Name
	s.mu.Unlock()
	s.f.o.Metrics.connected.WithLabelValues(name).Set(0)
	if news {
		s.f.o.Event("purge.source-failed", name, err.Error())
	}
}

// works notes that the stream is consumed, and how far behind it is.
func (s *source) works(lag int64) {
	s.mu.Lock()
	was := s.status.Error
	s.status.Error, s.status.Connected, s.status.Lag = "", true, lag
	name := s.status.Name
	s.mu.Unlock()
	s.f.o.Metrics.connected.WithLabelValues(name).Set(1)
	s.f.o.Metrics.lag.WithLabelValues(name).Set(float64(lag))
	if was != "" {
		s.f.o.Event("purge.source-works", name, "it is consumed again")
	}
}

func (s *source) count(result string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch result {
	case purged:
		s.status.Purged++
	case ignored:
		s.status.Ignored++
	case poison:
		s.status.Poison++
	}
	s.f.o.Metrics.events.WithLabelValues(s.status.Name, result).Inc()
}

// What became of an event.
const (
	purged  = "purged"
	ignored = "ignored" // it names nothing that the templates ask for
	poison  = "poison"  // set aside
	failed  = "failed"  // to be tried again
)

// message is one event as both kinds of streams have it.
type message struct {
	data []byte
	at   string            // where it stands in the stream, for people
	ack  func(aside error) // it is done: purged or ignored, or set aside because of an error
	nack func()            // it is to come again
}

// handle carries out a batch. It returns once each message is acknowledged or given back.
func (s *source) handle(ctx context.Context, batch []message) {
	var g errgroup.Group
	g.SetLimit(atOnce)
	for _, m := range batch {
		g.Go(func() error {
			result, err := s.carryOut(ctx, m.data)
			if result == failed && ctx.Err() != nil {
				m.nack()
				return nil
			}
			s.count(result)
			switch result {
			case failed:
				s.f.o.Logger.Warn("a purge from an event stream was not made durable; the event comes again", "source", s.c.Name(), "event", m.at, "error", err)
				m.nack()
			case poison:
				s.f.o.Event("purge.poison", s.c.Name(), fmt.Sprintf("event %s was set aside: %v: %s", m.at, err, excerpt(m.data)))
				m.ack(err)
			default:
				m.ack(nil)
			}
			return nil
		})
	}
	_ = g.Wait() // none returns an error
}

func (s *source) carryOut(ctx context.Context, data []byte) (result string, err error) {
	p, err := s.rule.apply(data)
	switch {
	case err != nil:
		return poison, err
	case p.empty():
		return ignored, nil
	}
	p.By = s.c.Name()
	switch err := s.f.o.Purge(ctx, p); {
	case errors.Is(err, ErrRefused):
		return poison, err
	case err != nil:
		return failed, err
	}
	return purged, nil
}

// ackWait bounds each word to a server: that an event is done, or was set aside.
func (s *source) ackWait() time.Duration { return s.f.o.TakeOver / 3 }

// why is the reason that goes along with an event that was set aside.
func why(err error) string {
	text := err.Error()
	return strings.ToValidUTF8(text[:min(len(text), maxWhy)], "")
}

// excerpt is the begin of an event in printable form.
func excerpt(b []byte) string {
	const most = 200
	if len(b) > most {
		return fmt.Sprintf("%q and %d bytes more", b[:most], len(b)-most)
	}
	return fmt.Sprintf("%q", b)
}

// tlsConfig is how the servers' certificates are checked; nil: no TLS.
func tlsConfig(c configs.PurgeSource) (*tls.Config, error) {
	if !c.TLS {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("read purge.sources.ca: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("purge.sources.ca: %s holds no certificate", c.CA)
		}
	}
	return out, nil
}

// Metrics of the sources and webhooks.
type Metrics struct {
	events    *prometheus.CounterVec
	lag       *prometheus.GaugeVec
	connected *prometheus.GaugeVec
	hooks     *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "landfall_purge_source_events_total",
			Help: "Events of each source that this node took: purged, ignored (they name nothing), poison (set aside), failed (they come again)."}, []string{"source", "result"}),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "landfall_purge_source_lag_events",
			Help: "Events of each source that are not acknowledged yet: of the whole stream (NATS), or of this node's share (Kafka)."}, []string{"source"}),
		connected: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "landfall_purge_source_connected",
			Help: "1 while this node consumes the source."}, []string{"source"}),
		hooks: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "landfall_purge_webhooks_total",
			Help: "Webhook calls by what became of them: purged, ignored, repeated (answered as before), poison, failed, unsigned."}, []string{"webhook", "result"}),
	}
	reg.MustRegister(m.events, m.lag, m.connected, m.hooks)
	return m
}

func (m *Metrics) forget(source string) {
	m.lag.DeleteLabelValues(source)
	m.connected.DeleteLabelValues(source)
}
