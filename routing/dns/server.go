package dns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	mdns "github.com/miekg/dns"
)

// Defaults of Options.
const (
	DefaultMaxTCP       = 512
	DefaultResponseRate = 2000
	DefaultSlip         = 2

	maxNSID = 128 // bytes
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

	UDPWorkers int // goroutines that read and answer, for each UDP socket; 0: two, or two for each CPU without ListenMore
	MaxTCP     int // open TCP connections of the server; more are closed at once. 0: DefaultMaxTCP
	// MaxTCPPerClient bounds the TCP connections of one client (IPv4 address or IPv6 /64). 0: an eighth of MaxTCP.
	MaxTCPPerClient int
	// ResponseRate bounds UDP answers per second towards one network (IPv4 /24, IPv6 /56), so that queries with a forged
	// source can't be aimed at somebody. Past it some answers are truncated, which sends real clients to TCP, and the
	// rest are dropped. Loopback and who shows a cookie of ours are exempt. 0: DefaultResponseRate; negative: no bound.
	ResponseRate int

	Slip int // past ResponseRate, one answer in Slip is truncated; 1: all, 0: DefaultSlip, negative: none

	NSID string // what a client that asks for the server's name gets (RFC 5001), at most 128 bytes; empty: nothing

	Logger  *slog.Logger     // nil: silent
	Metrics *Metrics         // nil: not counted anywhere
	Now     func() time.Time // the clock of rates, cookies and signatures; nil: time.Now
}

// Server answers queries. All methods are safe for concurrent use.
type Server struct {
	config  atomic.Pointer[config]
	steer   Steer
	glue    func() []netip.Addr
	serial  func() uint32
	workers int
	conns   *connLimit
	rate    atomic.Pointer[rateLimit] // nil: no bound
	log     *slog.Logger
	metrics *Metrics
	now     func() time.Time
	nsid    []byte

	cookies    cookies
	signatures *signatures
	work       sync.Pool // of *work
}

// work is the room that one query needs, used again and again.
type work struct {
	q                 query
	r                 reply
	answer, authority [2]set
	rooms             [2][maxAnswers]netip.Addr
	counted           [mostCounted]counted
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
	if len(o.NSID) > maxNSID {
		return nil, fmt.Errorf("dns: Options.NSID has %d bytes, at most %d", len(o.NSID), maxNSID)
	}
	s := &Server{
		steer: o.Steer, glue: o.Glue, serial: o.Serial, log: o.Logger, metrics: o.Metrics, now: o.Now, nsid: []byte(o.NSID),
		cookies: newCookies(), signatures: newSignatures(),
	}
	s.work.New = func() any { return new(work) }
	if s.now == nil {
		s.now = time.Now
	}
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
		s.workers = defaultWorkers()
	}
	if o.MaxTCP <= 0 {
		o.MaxTCP = DefaultMaxTCP
	}
	if o.MaxTCPPerClient <= 0 {
		o.MaxTCPPerClient = max(o.MaxTCP/8, 1)
	}
	s.conns = &connLimit{max: o.MaxTCP, perClient: o.MaxTCPPerClient, byClient: map[netip.Addr]int{}}
	s.SetRate(o.ResponseRate, o.Slip)
	return s, nil
}

// SetRate replaces the response rate and its slip; see Options.
func (s *Server) SetRate(perSecond, slip int) {
	if perSecond == 0 {
		perSecond = DefaultResponseRate
	}
	if slip == 0 {
		slip = DefaultSlip
	}
	old := s.rate.Load()
	switch {
	case perSecond < 0:
		s.rate.Store(nil)
	case old == nil || old.perSecond != perSecond || old.slip != slip:
		s.rate.Store(newRateLimit(perSecond, slip, s.now))
	}
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
	w := s.work.Get().(*work)
	defer s.work.Put(w)
	q, r := &w.q, &w.r
	q.reset(tcp)
	*r = reply{rcode: q.parse(msg), refused: true, answer: w.answer[:0], authority: w.authority[:0]}
	verdict := s.admitQuery(q, resolver)
	if verdict == drop {
		s.metrics.droppedRate.Inc()
		return nil
	}
	switch {
	case r.rcode != mdns.RcodeSuccess || q.question == nil:
	case verdict == slip && q.cookie != nil:
		// A client with cookies need not come by TCP: it shows next time that the address is its own (RFC 7873 §5.2.3).
		r.rcode, verdict = mdns.RcodeBadCookie, pass
	default:
		s.answer(s.config.Load(), w, resolver)
	}
	if verdict == slip {
		if r.refused { // TCP would bring nothing
			s.metrics.droppedRate.Inc()
			return nil
		}
		s.metrics.truncatedRate.Inc()
	}
	s.metrics.count(w)
	return s.write(dst, q, r, resolver, verdict == slip)
}

// admitQuery charges an answer to the client's network. Over TCP, or with a cookie of ours, the address is not forged.
func (s *Server) admitQuery(q *query, resolver netip.Addr) verdict {
	rate := s.rate.Load()
	if q.cookie != nil {
		if q.cookieValid, q.cookieFresh = s.cookies.check(q.cookie, resolver, s.now()); q.cookieValid {
			return pass
		}
	}
	if q.tcp || rate == nil {
		return pass
	}
	return rate.take(resolver)
}
