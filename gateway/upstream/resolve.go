package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// source is where some of a pool's origins are found: by the addresses of a name, by SRV records (RFC 2782), or in a file.
type source struct {
	url    string // as the config writes it
	scheme string // http or https
	srv    bool
	name   string // with a final dot
	weight int    // of each origin that is found, times the record's own
	port   string // of addresses; empty: the scheme's

	file *fileSource // a file that lists them, in place of all this; nil: none
}

// parseSource reads http+dns://host:port, https+dns://host:port, http+srv://name and https+srv://name.
func parseSource(raw string) (source, bool) {
	u, err := url.Parse(raw)
	if err != nil {
		return source{}, false
	}
	scheme, kind, found := strings.Cut(u.Scheme, "+")
	if !found || scheme != "http" && scheme != "https" || kind != "dns" && kind != "srv" || u.Hostname() == "" {
		return source{}, false
	}
	s := source{url: raw, scheme: scheme, srv: kind == "srv", name: dns.Fqdn(u.Hostname()), port: u.Port()}
	if s.port == "" {
		s.port = map[string]string{"http": "80", "https": "443"}[scheme]
	}
	return s, true
}

// The bounds of resolving.
const (
	minTTL       = time.Second
	maxTTL       = 5 * time.Minute
	retryTTL     = 5 * time.Second  // after a failure
	hostsTTL     = 30 * time.Second // of names that only the machine's own resolver knows, as /etc/hosts has them
	maxFound     = 256              // origins of one source
	askPatience  = 2 * time.Second  // for one server
	resolvConf   = "/etc/resolv.conf"
	lookPatience = 10 * time.Second // for one source, all told
)

// resolver asks the machine's name servers, and tells how long their answers hold, which the standard library does not.
type resolver struct {
	servers []string // host:port; nil: those of resolv.conf, read each time
}

var errNoAddress = errors.New("no address")

// find resolves a source.
func (r *resolver) find(ctx context.Context, s source) ([]Member, time.Duration, error) {
	if s.file != nil {
		found, err := s.file.find()
		return found, s.file.every, err
	}
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	if !s.srv {
		addrs, ttl, err := r.addresses(ctx, s.name)
		return membersAt(s, addrs, s.port, s.weight, nil), ttl, err
	}
	answer, err := r.ask(ctx, s.name, dns.TypeSRV)
	if err != nil {
		return nil, 0, err
	}
	var records []*dns.SRV
	ttl := maxTTL
	for _, rr := range answer.Answer {
		if srv, ok := rr.(*dns.SRV); ok && srv.Target != "." { // a target of . says that there is no such service
			records = append(records, srv)
			ttl = min(ttl, time.Duration(srv.Hdr.Ttl)*time.Second)
		}
	}
	if len(records) == 0 {
		return nil, 0, fmt.Errorf("%s has no SRV records", s.name)
	}
	best := slices.MinFunc(records, func(a, b *dns.SRV) int { return int(a.Priority) - int(b.Priority) }).Priority
	var found []Member
	for _, srv := range records {
		if srv.Priority != best { // the others are for when these can't be had, which other regions are for here
			continue
		}
		addrs, held, err := r.addresses(ctx, srv.Target)
		if err != nil {
			continue // its neighbours may do; none at all is an error below
		}
		ttl = min(ttl, held)
		found = membersAt(source{scheme: s.scheme, name: srv.Target}, addrs, strconv.Itoa(int(srv.Port)), max(int(srv.Weight), 1)*s.weight, found)
	}
	if len(found) == 0 {
		return nil, 0, fmt.Errorf("none of the targets of %s has an address", s.name)
	}
	return found, max(ttl, minTTL), nil
}

// membersAt appends an origin for each address.
func membersAt(s source, addrs []netip.Addr, port string, weight int, to []Member) []Member {
	for _, a := range addrs {
		if len(to) == maxFound {
			break
		}
		m := Member{URL: s.scheme + "://" + net.JoinHostPort(a.String(), port), Weight: weight}
		if s.scheme == "https" {
			m.ServerName = strings.TrimSuffix(s.name, ".")
		}
		to = append(to, m)
	}
	return to
}

// addresses are a name's addresses and how long they hold.
func (r *resolver) addresses(ctx context.Context, name string) ([]netip.Addr, time.Duration, error) {
	var addrs []netip.Addr
	ttl := maxTTL
	var failed error
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		answer, err := r.ask(ctx, name, kind)
		if err != nil {
			failed = err
			continue
		}
		for _, rr := range answer.Answer {
			var ip net.IP
			switch rr := rr.(type) {
			case *dns.A:
				ip = rr.A
			case *dns.AAAA:
				ip = rr.AAAA
			case *dns.CNAME:
			default:
				continue
			}
			ttl = min(ttl, time.Duration(rr.Header().Ttl)*time.Second)
			if a, ok := netip.AddrFromSlice(ip); ok && !slices.Contains(addrs, a.Unmap()) {
				addrs = append(addrs, a.Unmap())
			}
		}
	}
	if len(addrs) > 0 {
		slices.SortFunc(addrs, netip.Addr.Compare)
		return addrs, max(ttl, minTTL), nil
	}
	if r.servers == nil {
		if addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", strings.TrimSuffix(name, ".")); err == nil && len(addrs) > 0 {
			for i := range addrs {
				addrs[i] = addrs[i].Unmap()
			}
			slices.SortFunc(addrs, netip.Addr.Compare)
			return slices.Compact(addrs), hostsTTL, nil
		}
	}
	if failed == nil {
		failed = errNoAddress
	}
	return nil, 0, fmt.Errorf("%s: %w", name, failed)
}

// ask asks one server after another; an answer that was cut is asked for again by TCP (RFC 1035 section 4.2.1).
func (r *resolver) ask(ctx context.Context, name string, kind uint16) (*dns.Msg, error) {
	servers := r.servers
	if servers == nil {
		conf, err := dns.ClientConfigFromFile(resolvConf)
		if err != nil {
			return nil, fmt.Errorf("read the machine's name servers: %w", err)
		}
		for _, s := range conf.Servers {
			servers = append(servers, net.JoinHostPort(s, conf.Port))
		}
	}
	q := new(dns.Msg).SetQuestion(name, kind)
	q.SetEdns0(1232, false)
	err := errors.New("the machine has no name server")
	for _, server := range servers {
		var answer *dns.Msg
		c := &dns.Client{Timeout: askPatience}
		if answer, _, err = c.ExchangeContext(ctx, q, server); err == nil && answer.Truncated {
			c.Net = "tcp"
			answer, _, err = c.ExchangeContext(ctx, q, server)
		}
		if err != nil {
			continue
		}
		if answer.Rcode == dns.RcodeSuccess {
			return answer, nil
		}
		err = fmt.Errorf("%s answered %s", server, dns.RcodeToString[answer.Rcode])
		if answer.Rcode == dns.RcodeNameError {
			break
		}
	}
	return nil, err
}
