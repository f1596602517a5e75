package drill

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"landfall/deploy/lab"
	"landfall/gateway/upstream"
)

// result is what one request came to.
type result struct {
	place   string
	path    string
	started time.Time
	took    time.Duration
	region  string // that served it, by X-Landfall-Region
	retried bool   // the first address failed and the second was tried
	err     error  // it failed for good
}

// client is a place's browser: one connection pool for each address, the second address of an answer as a fallback.
type client struct {
	place    string
	host     string
	resolver *resolver
	pool     *x509.CertPool
	rtt      func(netip.Addr) time.Duration // simulated round trip from the place to an address

	mu         sync.Mutex
	transports map[netip.Addr]*http.Transport
}

const (
	connectPatience = 2 * time.Second
	requestPatience = 10 * time.Second
	maxBody         = 1 << 20
)

// paths are what the clients ask for: a page, a cached asset, an API, a slow answer. A quarter each.
func paths() []string { return []string{"/", "/assets/app.css", "/api/items", "/slow?ms=100"} }

// do sends one request as a browser would. It never gives up on a request that the second address could still serve.
func (c *client) do(ctx context.Context, path string, now func() time.Time) result {
	res := result{place: c.place, path: path, started: now()}
	ctx, cancel := context.WithTimeout(ctx, requestPatience)
	defer cancel()
	addrs, err := c.resolver.lookup(ctx)
	if err == nil {
		var errs []error
		for i, a := range addrs {
			res.retried = i > 0
			if res.region, err = c.get(ctx, a, path); err == nil {
				break
			}
			errs = append(errs, fmt.Errorf("%s: %w", a, err))
		}
		if err != nil {
			err = errors.Join(errs...)
		}
	}
	res.err, res.took = err, now().Sub(res.started)
	return res
}

func (c *client) get(ctx context.Context, a netip.Addr, path string) (region string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+c.host+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.transport(a).RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxBody)); err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d", resp.StatusCode)
	}
	return resp.Header.Get("X-Landfall-Region"), nil
}

func (c *client) transport(a netip.Addr) *http.Transport {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.transports[a]; t != nil {
		return t
	}
	dialer := net.Dialer{Timeout: connectPatience}
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, fmt.Sprintf("%s:%d", a, lab.HTTPSPort))
			if err != nil {
				return nil, err
			}
			return upstream.DelayConn(conn, c.rtt(a)), nil // both ways' delay on what is sent
		},
		TLSClientConfig:     &tls.Config{RootCAs: c.pool, ServerName: c.host, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: connectPatience,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     30 * time.Second,
	}
	c.transports[a] = t
	return t
}

func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.transports {
		t.CloseIdleConnections()
	}
}

// run sends requests at a steady rate until ctx ends, and waits for those in flight. A slow answer does not slow the next
// request down (an open loop), so an outage shows in full.
func (c *client) run(ctx context.Context, perSecond float64, rng *rand.Rand, now func() time.Time, report func(result)) {
	var flying sync.WaitGroup
	defer flying.Wait()
	slots := make(chan struct{}, maxInFlight)
	tick := time.NewTicker(time.Duration(float64(time.Second) / perSecond))
	defer tick.Stop()
	all := paths()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		path := all[rng.IntN(len(all))]
		select {
		case slots <- struct{}{}:
		default:
			report(result{place: c.place, path: path, started: now(), err: errors.New("more than 512 requests were waiting: the fleet does not answer")})
			continue
		}
		flying.Go(func() {
			defer func() { <-slots }()
			// A request that began before the end of the drill is seen through.
			report(c.do(context.WithoutCancel(ctx), path, now))
		})
	}
}

const maxInFlight = 512
