package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// resolver is a place's recursive resolver, as far as the fleet's zone goes: it asks the zone's name servers with the
// place's client subnet (RFC 7871), nearest first, moves on when one is silent, keeps answers for their TTL and failures
// for failureTTL. Questions that come while one is asked share its answer.
type resolver struct {
	servers []string     // host:port, nearest first
	subnet  netip.Prefix // of the place's clients
	host    string
	now     func() time.Time

	turn chan struct{} // holds one token; who has it owns what follows

	addrs   []netip.Addr
	err     error
	expires time.Time
	first   int // the server that answered last: resolvers prefer it
}

const (
	// serverPatience is how long a resolver waits for one name server before it asks the next, as unbound does at the start.
	serverPatience = 400 * time.Millisecond
	// failureTTL is how long "no name server answers" is remembered: the least that RFC 9520 section 3.2 allows.
	failureTTL = time.Second
)

func newResolver(servers []string, subnet netip.Prefix, host string, now func() time.Time) *resolver {
	r := &resolver{servers: servers, subnet: subnet, host: host, now: now, turn: make(chan struct{}, 1)}
	r.turn <- struct{}{}
	return r
}

// lookup is the answer now: best region's address first.
func (r *resolver) lookup(ctx context.Context) ([]netip.Addr, error) {
	select {
	case <-r.turn:
		defer func() { r.turn <- struct{}{} }()
	case <-ctx.Done():
		return nil, fmt.Errorf("the resolver is still waiting for a name server: %w", ctx.Err())
	}
	if r.now().Before(r.expires) {
		return r.addrs, r.err
	}
	var errs []error
	for i := range r.servers {
		n := (r.first + i) % len(r.servers)
		addrs, ttl, err := Query(ctx, r.servers[n], r.host, r.subnet)
		if ctx.Err() != nil {
			return nil, ctx.Err() // the asker went away: that says nothing about the name servers
		}
		if errors.Is(err, ErrNoAddress) {
			// An answer, and resolvers remember it: a name server that has nothing to say yet must not say so.
			r.first, r.addrs, r.err, r.expires = n, nil, err, r.now().Add(failureTTL)
			return nil, err
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r.first, r.addrs, r.err, r.expires = n, addrs, nil, r.now().Add(ttl)
		return addrs, nil
	}
	r.addrs, r.err = nil, fmt.Errorf("no name server answers: %w", errors.Join(errs...))
	r.expires = r.now().Add(failureTTL)
	return nil, r.err
}

// ErrNoAddress is what Query fails with when a name server answers that the host has no address.
var ErrNoAddress = errors.New("no address")

// Query asks one name server (host:port) for the host's IPv4 addresses on behalf of a client subnet. It returns them in
// the answer's order with the smallest TTL among them, and waits at most 400 ms.
func Query(ctx context.Context, server, host string, subnet netip.Prefix) ([]netip.Addr, time.Duration, error) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(host), dns.TypeA)
	m.SetEdns0(1232, false)
	m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_SUBNET{
		Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(subnet.Bits()), Address: net.IP(subnet.Addr().AsSlice()),
	})
	ctx, cancel := context.WithTimeout(ctx, serverPatience)
	defer cancel()
	c := dns.Client{Timeout: serverPatience}
	in, _, err := c.ExchangeContext(ctx, m, server)
	if err != nil {
		return nil, 0, fmt.Errorf("ask %s for %s: %w", server, host, err)
	}
	if in.Rcode != dns.RcodeSuccess {
		return nil, 0, fmt.Errorf("%s answers %s for %s", server, dns.RcodeToString[in.Rcode], host)
	}
	var addrs []netip.Addr
	ttl := time.Duration(0)
	for _, rr := range in.Answer {
		a, ok := rr.(*dns.A)
		if !ok {
			continue
		}
		addr, ok := netip.AddrFromSlice(a.A.To4())
		if !ok {
			continue
		}
		if t := time.Duration(a.Hdr.Ttl) * time.Second; len(addrs) == 0 || t < ttl {
			ttl = t
		}
		addrs = append(addrs, addr)
	}
	if len(addrs) == 0 {
		return nil, 0, fmt.Errorf("%s answers for %s with %w", server, host, ErrNoAddress)
	}
	return addrs, ttl, nil
}
