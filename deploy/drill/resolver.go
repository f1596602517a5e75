package drill

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// resolver is a place's recursive resolver, as far as the fleet's zone goes: it asks the zone's name servers with the
// place's client subnet (RFC 7871), nearest first, moves on when one is silent, and keeps answers for their TTL.
type resolver struct {
	servers []string     // host:port
	subnet  netip.Prefix // of the place's clients
	host    string
	now     func() time.Time

	mu      sync.Mutex
	addrs   []netip.Addr
	expires time.Time
	first   int // the server that answered last: resolvers prefer it
}

// serverPatience is how long a resolver waits for one name server before it asks the next, as unbound does at the start.
const serverPatience = 400 * time.Millisecond

// lookup is the answer now: best region's address first.
func (r *resolver) lookup(ctx context.Context) ([]netip.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now().Before(r.expires) {
		return r.addrs, nil
	}
	var errs []error
	for i := range r.servers {
		n := (r.first + i) % len(r.servers)
		addrs, ttl, err := query(ctx, r.servers[n], r.host, r.subnet)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r.first, r.addrs, r.expires = n, addrs, r.now().Add(ttl)
		return addrs, nil
	}
	return nil, fmt.Errorf("no name server answers: %w", errors.Join(errs...))
}

// query asks one name server for the host's addresses on behalf of a subnet.
func query(ctx context.Context, server, host string, subnet netip.Prefix) ([]netip.Addr, time.Duration, error) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(host), dns.TypeA)
	m.SetEdns0(1232, false)
	m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_SUBNET{
		Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(subnet.Bits()), Address: net.IP(subnet.Addr().AsSlice()),
	})
	c := dns.Client{Timeout: serverPatience}
	in, _, err := c.ExchangeContext(ctx, m, server)
	if err != nil {
		return nil, 0, err
	}
	if in.Rcode != dns.RcodeSuccess {
		return nil, 0, fmt.Errorf("%s answers %s for %s", server, dns.RcodeToString[in.Rcode], host)
	}
	var addrs []netip.Addr
	ttl := time.Duration(0)
	for _, rr := range in.Answer {
		if a, ok := rr.(*dns.A); ok {
			if addr, ok := netip.AddrFromSlice(a.A.To4()); ok {
				addrs = append(addrs, addr)
				ttl = time.Duration(a.Hdr.Ttl) * time.Second
			}
		}
	}
	if len(addrs) == 0 {
		return nil, 0, fmt.Errorf("%s has no address for %s", server, host)
	}
	return addrs, ttl, nil
}
