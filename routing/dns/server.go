package dns

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"time"
)

// Defaults of Options.
const (
	DefaultMaxTCP       = 512
	DefaultResponseRate = 2000
)

// Options is what a Server is made of. Steer is required.
type Options struct {
	Zones   []Zone
	Answers int // addresses in an answer, 1 to 16; 0: 2
	Steer   Steer

	// Glue returns the addresses of live nodes in region order. Nameserver i of a zone gets the i-th of each family, so
	// the list should go round the regions before it names a region's second node. Nil: nameservers have no addresses.
	// Called from many goroutines; must not wait.
	Glue func() []netip.Addr
	// Serial is the serial of the SOA records. Nil: 1. Called from many goroutines; must not wait.
	Serial func() uint32

	UDPWorkers int // goroutines that read and answer, for each UDP socket; 0: two for each CPU
	MaxTCP     int // open TCP connections of the server; more are closed at once. 0: DefaultMaxTCP
	// MaxTCPPerClient bounds the TCP connections of one client (IPv4 address or IPv6 /64). 0: an eighth of MaxTCP.
	MaxTCPPerClient int
	// ResponseRate bounds UDP answers per second towards one network (IPv4 /24, IPv6 /56), so that queries with a forged
	// source can't be aimed at somebody. Past it every other answer is truncated, which sends real clients to TCP, and
	// the rest is dropped. Loopback is exempt. 0: DefaultResponseRate; negative: no bound.
	ResponseRate int

	Logger  *slog.Logger     // nil: silent
	Metrics *Metrics         // nil: not counted anywhere
	Now     func() time.Time // the clock of the response rate; nil: time.Now
}

// Server answers queries. All methods are safe for concurrent use.
type Server struct {
	config  atomic.Pointer[config]
	steer   Steer
	glue    func() []netip.Addr
	serial  func() uint32
	workers int
	conns   *connLimit
	rate    *rateLimit // nil: no bound
	log     *slog.Logger
	metrics *Metrics
}

// New makes a Server; nothing runs until Serve. The error names the zone and what is wrong with it.
func New(o Options) (*Server, error) {
	if o.Steer == nil {
		return nil, errors.New("dns: Options.Steer is needed")
	}
	cfg, err := compile(o.Zones, o.Answers)
	if err != nil {
		return nil, err
	}
	s := &Server{steer: o.Steer, glue: o.Glue, serial: o.Serial, log: o.Logger, metrics: o.Metrics}
	s.config.Store(cfg)
	if s.glue == nil {
		s.glue = func() []netip.Addr { return nil }
	}
	if s.serial == nil {
		s.serial = func() uint32 { return 1 }
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.metrics == nil {
		s.metrics = NewMetrics(nil)
	}
	if s.workers = o.UDPWorkers; s.workers <= 0 {
		s.workers = 2 * runtime.GOMAXPROCS(0)
	}
	if o.MaxTCP <= 0 {
		o.MaxTCP = DefaultMaxTCP
	}
	if o.MaxTCPPerClient <= 0 {
		o.MaxTCPPerClient = max(o.MaxTCP/8, 1)
	}
	s.conns = &connLimit{max: o.MaxTCP, perClient: o.MaxTCPPerClient, byClient: map[netip.Addr]int{}}
	if o.ResponseRate == 0 {
		o.ResponseRate = DefaultResponseRate
	}
	if o.ResponseRate > 0 {
		now := o.Now
		if now == nil {
			now = time.Now
		}
		s.rate = newRateLimit(o.ResponseRate, now)
	}
	return s, nil
}

// SetConfig replaces the zones and the number of addresses in an answer (0: 2). Queries see either the old or the new
// config. An error means that nothing changed.
func (s *Server) SetConfig(zones []Zone, answers int) error {
	cfg, err := compile(zones, answers)
	if err != nil {
		return err
	}
	old := s.config.Swap(cfg)
	for wire, z := range old.zones {
		if cfg.zones[wire] == nil {
			s.metrics.forget(z.label)
		}
	}
	return nil
}

// Zones returns the names of the zones, sorted, without a final dot.
func (s *Server) Zones() []string {
	var names []string
	for _, z := range s.config.Load().zones {
		names = append(names, z.label)
	}
	slices.Sort(names)
	return names
}

// Respond appends the answer to the query msg, a whole DNS message without TCP's length, to dst and returns the extended
// buffer. It returns nil where silence is right: msg is too short to have an id, is itself an answer (two servers would
// answer each other for ever), or is over the response rate. from is the client as the socket has it. Respond takes any
// bytes.
func (s *Server) Respond(dst, msg []byte, from netip.AddrPort, tcp bool) []byte {
	if len(msg) < headerSize {
		s.metrics.droppedMalformed.Inc()
		return nil
	}
	if binary.BigEndian.Uint16(msg[2:])&flagQR != 0 {
		s.metrics.droppedResponse.Inc()
		return nil
	}
	resolver := from.Addr().Unmap().WithZone("")
	verdict := pass
	if !tcp && s.rate != nil {
		verdict = s.rate.take(resolver)
	}
	if verdict == drop {
		s.metrics.droppedRate.Inc()
		return nil
	}
	q := query{tcp: tcp}
	var r reply
	if r.rcode = q.parse(msg); r.rcode == 0 {
		r = s.answer(s.config.Load(), &q, resolver)
	}
	if verdict == slip {
		if r.kind == kindRefusal { // TCP would bring nothing
			s.metrics.droppedRate.Inc()
			return nil
		}
		s.metrics.truncatedRate.Inc()
	}
	s.metrics.count(&q, &r)
	return s.write(dst, &q, &r, verdict == slip)
}
