package drill

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"landfall/deploy/lab"
	"landfall/gateway/admin"
)

// crowd are many clients of the target's place, each of a network of its own, so that steering can move some of them.
type crowd struct {
	s        *session
	host     string
	clients  []*lab.Client
	prefixes []netip.Prefix
}

// gather makes n clients that ask for a host, of the networks from the first on.
func (s *session) gather(host string, first, n int) (*crowd, error) {
	roots, err := s.fleet.Roots()
	if err != nil {
		return nil, err
	}
	c := &crowd{s: s, host: host}
	f := s.fleet
	f.Host = host
	base := s.target.Crowd.Addr().As4()
	for k := range n {
		home := s.target
		home.Prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{base[0], base[1], byte(first + k), 0}), 24)
		home.Client = home.Prefix.Addr().Next()
		c.prefixes = append(c.prefixes, home.Prefix)
		c.clients = append(c.clients, lab.NewClient(f, home, roots, s.now))
	}
	return c, nil
}

func (c *crowd) close() {
	for _, one := range c.clients {
		one.Close()
	}
}

// rush sends requests of newcomers at a rate, each of another client, until stop is called; that waits for the last.
func (c *crowd) rush(ctx context.Context, perSecond float64) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	var wait, flying sync.WaitGroup
	wait.Go(func() {
		tick := time.NewTicker(time.Duration(float64(time.Second) / perSecond))
		defer tick.Stop()
		slots, rng := make(chan struct{}, 256), rand.New(rand.NewPCG(c.s.o.Seed, 99))
		for {
			select {
			case <-ended:
				return
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			one := c.clients[rng.IntN(len(c.clients))]
			select {
			case slots <- struct{}{}:
			default:
				continue // a slow machine sends less
			}
			flying.Go(func() {
				defer func() { <-slots }()
				if r := one.Get(ctx, "/api/items", true); ctx.Err() == nil {
					c.s.account.add(r)
				}
			})
		}
	})
	return sync.OnceFunc(func() { close(ended); wait.Wait(); flying.Wait(); cancel() })
}

// regionOf is the region of a node's address, or "".
func (s *session) regionOf(a netip.Addr) string {
	for _, r := range s.fleet.Regions {
		for _, n := range r.Nodes {
			if n.Addr == a {
				return r.Name
			}
		}
	}
	return ""
}

// steered is the region that a name server sends a network to: that of its first address.
func (s *session) steered(ctx context.Context, server, host string, prefix netip.Prefix) (string, error) {
	addrs, _, err := lab.Query(ctx, server, host, prefix)
	if err != nil {
		return "", err
	}
	return s.regionOf(addrs[0]), nil
}

// other is a region that is not struck.
func (s *session) other() lab.Region {
	for _, r := range s.fleet.Regions {
		if r.Name != s.target.Name {
			return r
		}
	}
	return s.target // a lab has at least two regions
}

// explain asks a node that lives why a client goes where it goes.
func (s *session) explain(ctx context.Context, host string, client netip.Addr) (admin.Explanation, error) {
	api := admin.NewClient(s.fleet.Admin, "", &http.Client{Timeout: controlPatience})
	defer api.Close()
	return api.Explain(ctx, "https://"+host+"/", client)
}

// told is a region's row of an explanation.
func told(e admin.Explanation, region string) admin.ExplainedRegion {
	for _, r := range e.Regions {
		if r.Region == region {
			return r
		}
	}
	return admin.ExplainedRegion{}
}

// direct sends a request of a client to a node, whatever DNS says. The answer's body is thrown away.
func (s *session) direct(ctx context.Context, host string, node lab.Node, client netip.Addr, rtt time.Duration) (*http.Response, error) {
	roots, err := s.fleet.Roots()
	if err != nil {
		return nil, err
	}
	t := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", netip.AddrPortFrom(node.Addr, uint16(s.fleet.HTTPSPort)).String())
		},
	}
	ctx, cancel := context.WithTimeout(ctx, controlPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/api/items", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Forwarded-For", client.String())
	if rtt > 0 {
		req.Header.Set("X-Client-RTT", strconv.FormatInt(rtt.Milliseconds(), 10))
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s for %s: %w", node.Name, host, err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)) // what came of it is in the head
	return resp, resp.Body.Close()
}

// until polls a condition several times a second, at most for a while. It tells whether the condition came true.
func (s *session) until(ctx context.Context, most time.Duration, holds func() (bool, error)) (bool, error) {
	for began := s.now(); s.now().Sub(began) <= most; {
		ok, err := holds()
		if ok || err != nil {
			return ok, err
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return false, err
		}
	}
	return false, nil
}

// fact adds what was found to the report.
func (s *session) fact(format string, a ...any) {
	s.report.Facts = append(s.report.Facts, fmt.Sprintf(format, a...))
}
