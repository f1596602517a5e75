package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"landfall/configs"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// checkEvery is how often Run looks at what the data folder and the calendar say.
	checkEvery = time.Hour
	// warnBefore is how long before its end a certificate is warned of, or a fifth of its lifetime when that is less.
	warnBefore = 14 * 24 * time.Hour
	warnEvery  = 24 * time.Hour
)

// Options configures a Store.
type Options struct {
	TLS     configs.TLS
	Hosts   []string // names to order by ACME; wildcards are left out, as only a DNS challenge could prove them
	DataDir string   // ACME keeps its account and certificates in DataDir/acme
	Logger  *slog.Logger
	Metrics *Metrics         // nil: not exported
	Now     func() time.Time // nil: time.Now
}

// Info describes a certificate in hand.
type Info struct {
	Names     []string
	Issuer    string // common name of who signed it
	NotBefore time.Time
	NotAfter  time.Time
	Source    string // path of the file, or "acme"
}

// Store holds the certificates of the HTTPS listeners. It is safe for concurrent use.
type Store struct {
	opts  Options
	log   *slog.Logger
	hosts []string // names that ACME is for
	acme  *acmeSetup

	mu      sync.Mutex       // guards files and managed while they change
	files   []*held          // one per configured pair
	managed map[string]*held // by host

	index  atomic.Pointer[index]
	engine atomic.Pointer[engine] // set while Run runs, where ACME is configured
	runs   bool                   // guarded by mu: Run runs
}

// New loads the certificates of the files, and those that ACME obtained earlier. Its error names every file that is
// missing, not PEM, or does not fit its key. An expired certificate is loaded and logged. New starts nothing.
func New(o Options) (*Store, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(prometheus.NewRegistry())
	}
	s := &Store{opts: o, log: o.Logger, managed: map[string]*held{}}
	s.index.Store(newIndex(nil))
	files, err := s.loadFiles(o.TLS.Certificates)
	s.files = files
	if o.TLS.ACME != nil {
		setup, acmeErr := newACMESetup(*o.TLS.ACME, o.DataDir)
		err = errors.Join(err, acmeErr)
		s.acme = setup
	}
	if err != nil {
		return nil, err
	}
	if s.acme != nil {
		s.hosts = orderable(o.Hosts, s.log)
		for _, host := range s.hosts {
			s.loadManaged(context.Background(), host)
		}
	}
	s.rebuild()
	return s, nil
}

// orderable is the hosts that an http or tls-alpn challenge can prove, once each.
func orderable(hosts []string, log *slog.Logger) []string {
	var out []string
	seen := map[string]bool{}
	for _, host := range hosts {
		host = normal(host)
		switch {
		case host == "" || seen[host]:
		case strings.Contains(host, "*"):
			log.Warn("no certificate is ordered for a wildcard: name it in tls.certificates", "host", host)
		default:
			seen[host] = true
			out = append(out, host)
		}
	}
	return out
}

// Prepare reads the certificate files of a new config, or those of the old one again. They are in force when commit is
// called, which can't fail; until then nothing changes. The error names each pair that can't be used.
func (s *Store) Prepare(certificates []configs.Certificate) (commit func(), err error) {
	files, err := s.loadFiles(certificates)
	if err != nil {
		return nil, err
	}
	return func() {
		s.mu.Lock()
		s.files = files
		s.mu.Unlock()
		s.rebuild()
	}, nil
}

// loadFiles reads every pair, or tells all that is wrong with them.
func (s *Store) loadFiles(certificates []configs.Certificate) ([]*held, error) {
	var errs []error
	var files []*held
	for i, c := range certificates {
		pair, err := loadPair(c.Cert, c.Key)
		if err != nil {
			errs = append(errs, fmt.Errorf("tls.certificates[%d]: %w", i, err))
			continue
		}
		h := newHeld(pair, c.Cert)
		if len(h.names) == 0 {
			s.log.Warn("a certificate names no host: clients will refuse it", "cert", c.Cert)
		}
		if end := h.leaf().NotAfter; s.opts.Now().After(end) {
			s.log.Warn("a certificate has expired: clients will refuse it", "cert", c.Cert, "not_after", end)
		}
		files = append(files, h)
	}
	return files, errors.Join(errs...)
}

// rebuild swaps the index for what is in hand now.
func (s *Store) rebuild() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*held
	all = append(all, s.files...)
	for _, host := range s.hosts {
		if h := s.managed[host]; h != nil {
			all = append(all, h)
		}
	}
	s.index.Store(newIndex(all))
	if !s.runs {
		return // a store that was only made to see whether it can be publishes nothing
	}
	ends := map[string]time.Time{}
	for _, h := range all {
		end, known := ends[h.name()]
		if !known || h.leaf().NotAfter.Before(end) {
			ends[h.name()] = h.leaf().NotAfter
		}
	}
	s.opts.Metrics.publish(s, ends)
}

// Run orders and renews certificates by ACME, where configured, and warns of those that end soon. It returns nil when
// ctx ends, with its goroutines. The certificates in hand are served before, during and after. Call it once, when the
// listeners are up: the CA will ask them.
func (s *Store) Run(ctx context.Context) error {
	s.setRuns(true)
	defer s.setRuns(false)
	if s.acme != nil && len(s.hosts) > 0 {
		e, err := s.acme.start(s)
		if err != nil {
			return err
		}
		s.engine.Store(e)
		defer s.engine.Store(nil)
		defer e.stop()
		var managers sync.WaitGroup
		defer managers.Wait() // they end with ctx
		for _, host := range s.hosts {
			managers.Go(func() { e.manage(ctx, host) })
		}
	}
	warned := map[string]time.Time{}
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		s.warn(warned)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if s.acme != nil {
			// Another process with this data folder (the one that takes over) may have renewed.
			for _, host := range s.hosts {
				s.loadManaged(ctx, host)
			}
			s.rebuild()
		}
	}
}

// setRuns publishes the metrics while Run runs.
func (s *Store) setRuns(runs bool) {
	s.mu.Lock()
	s.runs = runs
	s.mu.Unlock()
	if s.rebuild(); !runs {
		s.opts.Metrics.publish(s, nil)
	}
}

// warn logs the certificates that end soon, each once a day.
func (s *Store) warn(warned map[string]time.Time) {
	now := s.opts.Now()
	for _, h := range s.index.Load().all {
		left, lifetime := h.leaf().NotAfter.Sub(now), h.leaf().NotAfter.Sub(h.leaf().NotBefore)
		if left > min(warnBefore, lifetime/5) || now.Sub(warned[h.name()]) < warnEvery {
			continue
		}
		warned[h.name()] = now
		s.log.Warn("a certificate ends soon: renew it", "name", h.name(), "source", h.source,
			"not_after", h.leaf().NotAfter, "days_left", int(left.Hours()/24))
	}
}

// GetCertificate answers a handshake from memory: by exact name, by a wildcard of one label, else the first certificate
// of the config (or the first host's by ACME), which lets clients without SNI in and shows the others which name they
// reached. It also answers ACME's tls-alpn challenges (RFC 8737). The error says that nothing is held at all.
func (s *Store) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if e := s.engine.Load(); e != nil && s.acme.alpn && isChallenge(hello) {
		// Asked first, since certmagic logs an error for each challenge it doesn't know, and anybody can send those.
		if _, ok := certmagic.GetACMEChallenge(normal(hello.ServerName)); !ok {
			return nil, fmt.Errorf("no order for %q is under way here", hello.ServerName)
		}
		return e.config.GetCertificate(hello)
	}
	if h := s.index.Load().pick(hello, s.opts.Now()); h != nil {
		return &h.tls, nil
	}
	return nil, fmt.Errorf("no certificate is held for %q, nor any other: name one in tls.certificates, or see what keeps ACME", hello.ServerName)
}

// isChallenge tells whether a handshake is a CA's tls-alpn challenge (RFC 8737 section 3).
func isChallenge(hello *tls.ClientHelloInfo) bool {
	return hello.ServerName != "" && len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acmez.ACMETLS1Protocol
}

// TLSConfig is the configuration of a listener for HTTP/2 and HTTP/1.1. minVersion is "1.2" (also "") or "1.3".
func (s *Store) TLSConfig(minVersion string) *tls.Config {
	c := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: s.GetCertificate,
	}
	if minVersion == "1.3" {
		c.MinVersion = tls.VersionTLS13
	}
	if s.acme != nil && s.acme.alpn {
		c.NextProtos = append(c.NextProtos, acmez.ACMETLS1Protocol)
	}
	return c
}

// HTTPChallenge answers r if it is an ACME http challenge (RFC 8555 section 8.3) of an order that is under way here,
// and tells whether it did. An unknown challenge is left to the origins: they may have ordered by themselves.
func (s *Store) HTTPChallenge(w http.ResponseWriter, r *http.Request) bool {
	e := s.engine.Load()
	return e != nil && e.issuer.HandleHTTPChallenge(w, r)
}

// Has tells whether a certificate is held for host (no port), by its name or a wildcard.
func (s *Store) Has(host string) bool {
	exact, wild := s.index.Load().find(normal(host))
	return len(exact)+len(wild) > 0
}

// Infos lists what is in hand: the files in the order of the config, then ACME's.
func (s *Store) Infos() []Info {
	all := s.index.Load().all
	infos := make([]Info, 0, len(all))
	for _, h := range all {
		leaf := h.leaf()
		infos = append(infos, Info{
			Names: append([]string(nil), h.names...), Issuer: leaf.Issuer.CommonName,
			NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, Source: h.source,
		})
	}
	return infos
}
