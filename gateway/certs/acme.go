package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"sync"
	"time"

	"landfall/configs"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

const (
	sourceACME = "acme"
	// retryAfter is the wait after certmagic gave a host up; its own retries, with growing waits, come first.
	retryAfter = time.Hour
	// stopWait bounds the wait for certmagic's maintenance, which may be inside a request to the CA.
	stopWait = 5 * time.Second
)

// acmeSetup is what ordering needs, before it runs.
type acmeSetup struct {
	opts    configs.ACME
	alpn    bool // challenge by tls-alpn, else by http
	roots   *x509.CertPool
	storage *fileStorage
	key     string // certmagic's name of the directory in the storage
}

func newACMESetup(o configs.ACME, dataDir string) (*acmeSetup, error) {
	if dataDir == "" {
		return nil, errors.New("tls.acme needs a data folder to keep the account and the certificates in: start the node with one")
	}
	a := &acmeSetup{
		opts:    o,
		alpn:    o.Challenge != "http",
		storage: newFileStorage(filepath.Join(dataDir, "acme")),
		key:     (&certmagic.ACMEIssuer{CA: o.Directory}).IssuerKey(),
	}
	if o.CA != "" {
		ca, err := readPEM(o.CA, "CA certificate of the ACME directory")
		if err != nil {
			return nil, fmt.Errorf("tls.acme.ca: %w", err)
		}
		a.roots = x509.NewCertPool()
		if !a.roots.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("tls.acme.ca: %s holds no certificate", o.CA)
		}
	}
	return a, nil
}

// loadManaged takes the certificate for host from the data folder. One that can't be read leaves the one in hand.
func (s *Store) loadManaged(ctx context.Context, host string) {
	a := s.acme
	certPEM, err := a.storage.Load(ctx, certmagic.StorageKeys.SiteCert(a.key, host))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	keyPEM, keyErr := a.storage.Load(ctx, certmagic.StorageKeys.SitePrivateKey(a.key, host))
	if err = errors.Join(err, keyErr); err == nil {
		pair, pairErr := parsePair(certPEM, keyPEM)
		if pairErr == nil {
			s.mu.Lock()
			s.managed[host] = newHeld(pair, sourceACME)
			s.mu.Unlock()
			return
		}
		err = pairErr
	}
	s.log.Warn("a certificate that ACME obtained can't be read from the data folder", "host", host, "folder", a.storage.Path, "err", err)
}

// engine is certmagic at work: it orders, renews and answers challenges. What it obtains goes to the data folder, and
// from there into the Store's index, which alone serves handshakes.
type engine struct {
	store  *Store
	config *certmagic.Config
	cache  *certmagic.Cache
	issuer *certmagic.ACMEIssuer
	guard  net.Listener
	held   sync.WaitGroup // the goroutine that holds the guard
}

// start starts certmagic's maintenance. Call stop.
func (a *acmeSetup) start(s *Store) (*engine, error) {
	// certmagic opens a socket for each challenge unless its port is taken, and then takes it that its owner answers.
	// The CA's requests come to our own listeners, wherever those are, so a port that nobody uses is handed to it.
	guard, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start ACME: open a socket on loopback: %w", err)
	}
	e := &engine{store: s, guard: guard}
	ready := make(chan struct{}) // the cache's goroutine starts before there is a config
	defer close(ready)
	logger := zap.New(&slogCore{handler: s.log.Handler()})
	e.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) {
			<-ready
			return e.config, nil
		},
		Logger: logger,
	})
	e.config = certmagic.New(e.cache, certmagic.Config{
		Storage: a.storage,
		Logger:  logger,
		OCSP:    certmagic.OCSPConfig{DisableStapling: true},
		OnEvent: e.onEvent,
		Issuers: []certmagic.Issuer{}, // not certmagic's default; ours needs the config first
	})
	port := guard.Addr().(*net.TCPAddr).Port
	e.issuer = certmagic.NewACMEIssuer(e.config, certmagic.ACMEIssuer{
		CA:                      a.opts.Directory,
		Email:                   a.opts.Email,
		Agreed:                  true,
		DisableHTTPChallenge:    a.alpn,
		DisableTLSALPNChallenge: !a.alpn,
		ListenHost:              "127.0.0.1",
		AltHTTPPort:             port,
		AltTLSALPNPort:          port,
		TrustedRoots:            a.roots,
		Logger:                  logger,
	})
	e.config.Issuers = []certmagic.Issuer{e.issuer}
	e.held.Go(e.holdGuard)
	return e, nil
}

// holdGuard accepts and closes, until the guard is closed: certmagic connects to see that somebody is there.
func (e *engine) holdGuard() {
	for {
		conn, err := e.guard.Accept()
		if err != nil {
			return
		}
		conn.Close()
	}
}

func (e *engine) stop() {
	e.guard.Close()
	e.held.Wait()
	done := make(chan struct{})
	go func() {
		e.cache.Stop()
		close(done)
	}()
	timer := time.NewTimer(stopWait)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		e.store.log.Warn("ACME maintenance is waiting for the CA: it ends by itself when that request does")
	}
}

// manage sees to it that there is a certificate for host and that maintenance knows it, however long that takes.
func (e *engine) manage(ctx context.Context, host string) {
	for {
		err := e.ensure(ctx, host)
		if err == nil || ctx.Err() != nil {
			return
		}
		e.store.log.Error("no certificate can be ordered: trying again later, serving what is in hand",
			"host", host, "retry_in", retryAfter, "err", err)
		timer := time.NewTimer(retryAfter)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// ensure loads the certificate for host, or orders it, or renews it when that is due. From then on the cache's
// maintenance renews it.
func (e *engine) ensure(ctx context.Context, host string) error {
	cert, err := e.config.CacheManagedCertificate(ctx, host)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = e.config.ObtainCertAsync(ctx, host)
	case err == nil && cert.NeedsRenewal(e.config):
		err = e.config.RenewCertAsync(ctx, host, false)
	default:
		return err
	}
	if err != nil {
		return err
	}
	renewed, err := e.config.CacheManagedCertificate(ctx, host)
	if err == nil && cert.Hash() != "" && cert.Hash() != renewed.Hash() {
		e.cache.Remove([]string{cert.Hash()})
	}
	return err
}

// onEvent is called by certmagic, from any goroutine.
func (e *engine) onEvent(ctx context.Context, event string, data map[string]any) error {
	switch event {
	case "cert_obtained":
		e.store.opts.Metrics.orders.WithLabelValues("obtained").Inc()
		if host, ok := data["identifier"].(string); ok {
			e.store.loadManaged(context.WithoutCancel(ctx), host)
			e.store.rebuild()
			e.store.log.Info("a certificate was obtained", "host", host, "renewal", data["renewal"])
		}
	case "cert_failed":
		e.store.opts.Metrics.orders.WithLabelValues("failed").Inc()
	}
	return nil
}
