package dns

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	mdns "github.com/miekg/dns"

	"landfall/configs"
)

const (
	// maxNameservers keeps a referral to the zone within what resolvers follow; the root has as many.
	maxNameservers = 13
	maxAnswers     = 16
	defaultAnswers = 2
)

// Zone is a zone that this fleet is authoritative for.
type Zone struct {
	Name        string        // with or without a final dot; not the root
	TTL         time.Duration // of all positive answers, at most where they are steered; at least 1s; whole seconds count
	MinTTL      time.Duration // of steered answers while something is changing, 1s to TTL; whole seconds count. 0: TTL
	NegativeTTL time.Duration // of negative answers (RFC 2308), at least 1s; whole seconds count
	Nameservers []string      // 1 to 13, relative to the zone or absolute with a final dot
	Contact     string        // mail address for the SOA record; "hostmaster" when empty

	// Hosts are the fleet's service hosts, exact or *.suffix; those that lie outside the zone are skipped. They decide
	// no answer that Steer gives. They make the names between a host and the apex exist (b.zone when a.b.zone is a
	// host), which nobody else knows: without them such a name is denied, and resolvers may take that for everything
	// below it (RFC 8020).
	Hosts []string

	Records     []configs.Record // what else the zone holds
	HTTPS       *HTTPS           // HTTPS records of the services' hosts; nil: none
	Keys        []*Key           // signs the zone; empty: unsigned
	Secondaries []netip.Prefix   // who may copy Records by AXFR
}

// config is what a Server answers from. It is immutable; SetConfig swaps it.
type config struct {
	zones     map[string]*zone // by apex, wire form
	maxLabels int              // of the deepest apex
	answers   int
}

type zone struct {
	label       string // the name for people and metrics, no final dot
	apex        name
	ttl, negTTL uint32 // seconds
	minTTL      uint32 // seconds
	nameservers []name
	mailbox     name
	ns          rrset
	top         entry             // the apex
	names       map[string]*entry // what exists below the apex, wire form; not what Steer alone knows
	delegates   bool              // there are delegations
	wildcards   bool              // there are wildcards among the records
	https       *HTTPS
	keys        []*Key
	secondaries []netip.Prefix
}

// entry is a name that exists below an apex.
type entry struct {
	host       string // as a hostname; empty when it can't be one
	nameserver int    // which nameserver of its zone it is, or -1
	sets       []rrset
}

// find returns the zone that answers for n, or nil, and the label of n where the zone's apex begins. Labels before skip
// can't begin an apex.
func (c *config) find(n *name, skip int) (*zone, int) {
	for i := max(skip, n.nLabels-c.maxLabels); i < n.nLabels; i++ {
		if z := c.zones[string(n.suffix(i))]; z != nil {
			return z, i
		}
	}
	return nil, 0
}

// compile checks zones and turns them into what answers are made from.
func compile(zones []Zone, answers int) (*config, error) {
	if answers == 0 {
		answers = defaultAnswers
	}
	if answers < 0 || answers > maxAnswers {
		return nil, fmt.Errorf("dns.answers is %d; use 1 to %d", answers, maxAnswers)
	}
	c := &config{zones: make(map[string]*zone, len(zones)), answers: answers}
	for i := range zones {
		z, err := compileZone(&zones[i])
		if err != nil {
			return nil, fmt.Errorf("dns zone %q: %w", zones[i].Name, err)
		}
		if c.zones[string(z.apex.bytes())] != nil {
			return nil, fmt.Errorf("dns zone %q is given twice; keep one", zones[i].Name)
		}
		c.zones[string(z.apex.bytes())] = z
		c.maxLabels = max(c.maxLabels, z.apex.nLabels)
	}
	// Only now is it known which zone a name lies in. In the order given, so that the same config means the same.
	for i := range zones {
		apex, err := parseName(zones[i].Name)
		if err != nil {
			return nil, err
		}
		z := c.zones[string(apex.bytes())]
		c.add(&z.apex, 1, -1) // a zone inside another one makes the names between them exist
		for k := range z.nameservers {
			c.add(&z.nameservers[k], 0, k)
		}
		for _, h := range zones[i].Hosts {
			if h == "*" {
				continue // makes no name exist
			}
			n, err := parseName(h)
			if err != nil {
				return nil, fmt.Errorf("dns zone %q: service host %w", zones[i].Name, err)
			}
			c.add(&n, 0, -1)
		}
		if err := c.records(z, zones[i].Records); err != nil {
			return nil, fmt.Errorf("dns zone %q: %w", zones[i].Name, err)
		}
	}
	return c, nil
}

// records puts a zone's records at their names.
func (c *config) records(z *zone, records []configs.Record) error {
	for _, r := range records {
		owner, err := parseName(r.Owner)
		if err != nil {
			return fmt.Errorf("record %w", err)
		}
		if in, _ := c.find(&owner, 0); in != z {
			if in == nil {
				return fmt.Errorf("record of %s lies outside of the zone", r.Owner)
			}
			return fmt.Errorf("record of %s lies in the zone %s, which is served here too: write it there", r.Owner, in.label)
		}
		c.add(&owner, 0, -1)
		e := z.names[string(owner.bytes())]
		if bytes.Equal(owner.bytes(), z.apex.bytes()) {
			e = &z.top
		}
		if err := e.record(r); err != nil {
			return fmt.Errorf("record of %s: %w", r.Owner, err)
		}
		z.delegates = z.delegates || r.Type == mdns.TypeNS
		z.wildcards = z.wildcards || strings.HasPrefix(r.Owner, "*.")
	}
	return nil
}

// record adds one record to a name. Records of a set have one TTL (RFC 2181 §5.2): the least that is given.
func (e *entry) record(r configs.Record) error {
	rrs := e.set(r.Type)
	if rrs == nil {
		e.sets = append(e.sets, rrset{rtype: r.Type, ttl: r.TTL})
		rrs = &e.sets[len(e.sets)-1]
	}
	rrs.ttl = min(rrs.ttl, r.TTL)
	return rrs.add(r.Data)
}

// add makes n, and the names between it and the apex of its zone, exist. Labels before skip can't begin that apex.
func (c *config) add(n *name, skip, nameserver int) {
	z, at := c.find(n, skip)
	if z == nil {
		return
	}
	for i := range at {
		key := string(n.suffix(i))
		e := z.names[key]
		if e == nil {
			e = &entry{nameserver: -1}
			var sub name
			if _, err := sub.parse([]byte(key)); err == nil {
				if host, ok := sub.host(nil); ok {
					e.host = string(host)
				}
			}
			z.names[key] = e
		}
		if i == 0 && e.nameserver < 0 {
			e.nameserver = nameserver
		}
	}
}

func compileZone(cfg *Zone) (*zone, error) {
	apex, err := parseName(cfg.Name)
	if err != nil {
		return nil, err
	}
	if apex.nLabels == 0 {
		return nil, errors.New("the root can't be served; name a zone that is delegated to this fleet")
	}
	host, ok := apex.host(nil)
	if !ok {
		return nil, errors.New("a zone's name has letters, digits, - and _ only")
	}
	z := &zone{
		label: string(host), apex: apex, names: map[string]*entry{}, top: entry{host: string(host), nameserver: -1},
		https: cfg.HTTPS, keys: cfg.Keys, secondaries: cfg.Secondaries,
	}
	if z.ttl, err = seconds(cfg.TTL); err != nil {
		return nil, fmt.Errorf("ttl: %w", err)
	}
	z.minTTL = z.ttl
	if cfg.MinTTL != 0 {
		if z.minTTL, err = seconds(cfg.MinTTL); err != nil {
			return nil, fmt.Errorf("min_ttl: %w", err)
		}
	}
	if z.minTTL > z.ttl {
		return nil, fmt.Errorf("min_ttl is %s, more than the ttl of %s", cfg.MinTTL, cfg.TTL)
	}
	if z.negTTL, err = seconds(cfg.NegativeTTL); err != nil {
		return nil, fmt.Errorf("negative_ttl: %w", err)
	}
	if n := len(cfg.Nameservers); n == 0 || n > maxNameservers {
		return nil, fmt.Errorf("it has %d nameservers; give 1 to %d", n, maxNameservers)
	}
	for _, s := range cfg.Nameservers {
		ns, err := parseNameserver(s, z.label)
		if err != nil {
			return nil, fmt.Errorf("nameserver %w", err)
		}
		if bytes.Equal(ns.bytes(), apex.bytes()) {
			return nil, fmt.Errorf("nameserver %q is the zone itself; give it a name in the zone, like ns1", s)
		}
		for i := range z.nameservers {
			if bytes.Equal(z.nameservers[i].bytes(), ns.bytes()) {
				return nil, fmt.Errorf("nameserver %q is given twice; keep one", s)
			}
		}
		z.nameservers = append(z.nameservers, ns)
	}
	z.ns = rrset{rtype: mdns.TypeNS, ttl: z.ttl}
	for i := range z.nameservers {
		if err := z.ns.add(z.nameservers[i].bytes()); err != nil {
			return nil, err
		}
	}
	if z.mailbox, err = mailbox(cfg.Contact, z.label); err != nil {
		return nil, fmt.Errorf("contact: %w", err)
	}
	return z, nil
}

// parseNameserver reads the name of a nameserver. It has to be a hostname (RFC 2181 §11), else nobody could reach it.
func parseNameserver(s, zone string) (name, error) {
	if !strings.HasSuffix(s, ".") {
		s += "." + zone
	}
	n, err := parseName(s)
	if err != nil {
		return n, err
	}
	if host, ok := n.host(nil); !ok || bytes.ContainsRune(host, '*') {
		return n, fmt.Errorf("%q is no hostname", s)
	}
	return n, nil
}

// seconds turns a TTL into what the wire has: at most 2^31-1 (RFC 2181 §8).
func seconds(d time.Duration) (uint32, error) {
	s := int64(d / time.Second)
	if s < 1 || s > math.MaxInt32 {
		return 0, fmt.Errorf("%s can't be a TTL; use 1s to 24h", d)
	}
	return uint32(s), nil
}
