package gateway

import (
	"fmt"
	"net"
	"runtime"
	"strconv"

	"landfall/configs"
	"landfall/routing/dns"
)

// dnsZones are the zones of a config, with the hosts that lie in them, their records and their keys.
func (n *Node) dnsZones(c *configs.Config) ([]dns.Zone, error) {
	hosts, now := allHosts(c), n.o.Now()
	var zones []dns.Zone
	for name, z := range c.DNS.Zones {
		zone := dns.Zone{Name: name, TTL: z.TTL.D(), MinTTL: z.MinTTL.D(), NegativeTTL: z.NegativeTTL.D(), Nameservers: z.Nameservers, Contact: z.Contact, Hosts: hosts}
		var err error
		if zone.Records, err = configs.ParseRecords(name, z.Records); err != nil {
			return nil, fmt.Errorf("dns zone %s: %w", name, err)
		}
		if z.HTTPS {
			zone.HTTPS = httpsRecords(c, servedALPN(c))
		}
		if z.DNSSEC != nil {
			if zone.Keys, err = dns.LoadKeys(z.DNSSEC.Keys, name, now); err != nil {
				return nil, fmt.Errorf("dns zone %s: %w", name, err)
			}
		}
		for _, ds := range dns.DS(name, zone.Keys, now) {
			n.log.Info("a dns zone is signed: its parent should hold this record, and CDS asks for it", "zone", name, "ds", ds)
		}
		for _, p := range z.Secondaries {
			zone.Secondaries = append(zone.Secondaries, p.Prefix)
		}
		zones = append(zones, zone)
	}
	return zones, nil
}

// httpsRecords is what the HTTPS listeners speak. The first one stands for all: a record has one port.
func httpsRecords(c *configs.Config, alpn []string) *dns.HTTPS {
	h := &dns.HTTPS{ALPN: alpn}
	if _, port, err := net.SplitHostPort(c.Listen.HTTPS[0]); err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err == nil {
			h.Port = uint16(n)
		}
	}
	return h
}

// servedALPN are the protocols of the HTTPS listeners beside HTTP/1.1, the best first: those that are really served there,
// since browsers that are promised another come by it at once and find nobody.
func servedALPN(c *configs.Config) []string {
	if c.Listen.HTTP3 {
		return []string{"h3", "h2"}
	}
	return []string{"h2"}
}

// openDNS binds the DNS listeners.
func (n *Node) openDNS(c *configs.Config) error {
	if len(c.Listen.DNS) == 0 {
		return nil
	}
	zones, err := n.dnsZones(c)
	if err != nil {
		return err
	}
	n.zonesAt.Store(n.o.Now().Unix())
	rate, slip := dnsRate(c)
	cores := runtime.GOMAXPROCS(0)
	n.dns, err = dns.New(dns.Options{
		Zones: zones, Answers: c.DNS.Answers, Steer: steer{n}, Glue: n.glue, Serial: n.dnsSerial, ResponseRate: rate, Slip: slip,
		NSID: n.id.name, Logger: n.log, Metrics: n.metrics.dns, Now: n.o.Now,
	})
	if err != nil {
		return err
	}
	for _, addr := range c.Listen.DNS {
		udp, tcp, err := n.dns.Listen(n.id.on(addr))
		if err != nil {
			return err
		}
		n.closers = append(n.closers, func() { _, _ = udp.Close(), tcp.Close() })
		n.dnsListeners = append(n.dnsListeners, dnsListener{udp, tcp})
		more, err := n.dns.ListenMore(udp, cores-1)
		if err != nil {
			return err
		}
		for _, udp := range more {
			n.closers = append(n.closers, func() { _ = udp.Close() })
			n.dnsListeners = append(n.dnsListeners, dnsListener{udp: udp})
		}
		n.listeners = append(n.listeners, openListener{"dns", udp.LocalAddr().String()})
	}
	return nil
}

// reloadDNS takes the zones of a new config, or refuses and changes nothing.
func (n *Node) reloadDNS(c *configs.Config) error {
	if n.dns == nil {
		return nil
	}
	zones, err := n.dnsZones(c)
	if err != nil {
		return err
	}
	if err := n.dns.SetConfig(zones, c.DNS.Answers); err != nil {
		return err
	}
	n.dns.SetRate(dnsRate(c))
	n.zonesAt.Store(max(n.o.Now().Unix(), n.zonesAt.Load()+1))
	return nil
}

// dnsRate is dns.rate as the server has it, where 0 means its own default.
func dnsRate(c *configs.Config) (perSecond, slip int) {
	off := func(n int) int {
		if n == 0 {
			return -1
		}
		return n
	}
	return off(c.DNS.Rate.Responses), off(c.DNS.Rate.Slip)
}

// dnsSerial is the serial of the zones: it moves when a config is loaded, the only time that their fixed part changes.
func (n *Node) dnsSerial() uint32 { return uint32(n.zonesAt.Load()) }
