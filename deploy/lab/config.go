package lab

import (
	"fmt"
	"strings"
)

// configFor is the fleet's config file. Every node gets the same bytes; the mesh key comes from the environment.
func configFor(f Fleet) string {
	var b strings.Builder
	p := func(format string, a ...any) { fmt.Fprintf(&b, format, a...) }
	p("# The lab's fleet. Edit it and send a node SIGHUP, or start over with `landfall lab`.\n")
	p("fleet: lab\n\nregions:\n")
	for _, r := range f.Regions {
		p("  %s: {location: [%g, %g], jurisdictions: [%s], capacity: %d}\n", r.Name, r.place.lat, r.place.lon, strings.ToLower(r.place.country), capacity)
	}
	p(`
listen:
  http: [":%d"]
  http_redirect: false              # so that plain curl works here
  https: [":%d"]
  dns: [":%d"]
  trusted_proxies: [127.0.0.0/8]    # the lab's clients say where they are by X-Forwarded-For, and how far by X-Client-RTT
  mesh: ":%d"
  peer: ":%d"
`, HTTPPort, HTTPSPort, DNSPort, meshPort, peerPort)
	var join []string
	for _, r := range f.Regions {
		join = append(join, fmt.Sprintf("%s:%d", r.Nodes[0].Addr, meshPort))
	}
	p(`
mesh:
  join: [%s]
  key: ${LANDFALL_MESH_KEY}
  tls: {ca: fleet-ca.pem, cert: "${NODE}.pem", key: "${NODE}.key"}

dns:
  zones:
    %s: {ttl: %s, negative_ttl: %s, nameservers: [ns1, ns2, ns3]}
  geoip: places.mmdb
  rtt: {header: X-Client-RTT}

cache: {memory: 64MiB}

tls:
  certificates: [{cert: lab.pem, key: lab.key}]

shutdown: {dns_wait: %s, grace: 10s}
`, strings.Join(join, ", "), f.Zone, f.TTL, f.TTL, f.DNSWait)
	p(`
services:
  shop:
    hosts: [%s]
    debug: true
    purgers: [127.0.0.0/8]
    pool:
      check: {path: /healthz, interval: 500ms, timeout: 300ms, rise: 2, fall: 2}
    pools:
`, f.Host)
	pools := func() {
		for _, r := range f.Regions {
			p("      %s: {origins: [%s]}\n", r.Name, strings.Join(r.Origins, ", "))
		}
	}
	pools()
	p(`    routes:
      - match: {path: /api/*}
        cache: off
      - match: {path: /assets/*}
        cache: {stale_while_revalidate: 1m, stale_if_error: 1h}
      - match: {path: /*}

  rush:                             # spills at %d requests a second, so that drills can fill a region
    hosts: [%s]
    debug: true
    steering: {spill_at: 20%%}
    pools:
`, RushAt, RushHost)
	pools()
	p(`
  vault:                            # whose clients' data stays in the region of their country
    hosts: [%s]
    debug: true
    residency:
`, VaultHost)
	seen := map[string]bool{}
	for _, r := range f.Regions {
		if c := r.place.country; !seen[c] {
			seen[c] = true
			p("      - {clients: [%s], jurisdictions: [%s], strict: true}\n", c, strings.ToLower(c))
		}
	}
	p("    pools:\n")
	pools()
	p(`
observe:
  log_format: text
  access_log: {path: off}
`)
	return b.String()
}
