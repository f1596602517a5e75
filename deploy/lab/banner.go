package lab

import (
	"fmt"
	"io"
)

// Banner prints what to try, each line copyable.
func (l *Lab) Banner(w io.Writer) {
	f := l.Fleet()
	a, b := f.Regions[0], f.Regions[len(f.Regions)-1]
	node := a.Nodes[0]
	flag := ""
	if l.o.Net != 0 {
		flag = fmt.Sprintf(" --net %d", l.o.Net)
	}
	p := func(format string, args ...any) { fmt.Fprintf(w, format, args...) }
	p("\nThe lab is up: %d regions, %d nodes. Files and logs: %s\n\n", len(f.Regions), len(f.Regions)*len(a.Nodes), f.Dir)
	p("  %-14s %-18s %-11s %s\n", "REGION", "ITS CLIENTS", "NODE", "ROUND TRIP TO THE OTHERS")
	for _, r := range f.Regions {
		p("  %-14s %-18s %-11s", r.Name, r.Prefix, r.Nodes[0].Addr)
		for _, o := range f.Regions {
			if ms := r.RTT[o.Name]; ms > 0 {
				p(" %s %d ms ", o.Name, ms)
			}
		}
		p("\n")
	}
	p("\nTry, in another terminal (`landfall` is `go run ./cmd/landfall`):\n\n")
	if l.o.Net != 0 {
		p("  export LANDFALL_ADMIN=%s\n", f.Admin)
	}
	p("  # A page, by HTTPS and HTTP/2, from the first region\n")
	p("  curl --cacert %s --connect-to ::%s:%d https://%s/ -i\n", f.CA, node.Addr, HTTPSPort, f.Host)
	p("  # A cached asset: run it twice and look at Cache-Status\n")
	p("  curl -si http://%s:%d/assets/app.css -H 'Host: %s' | head -20\n", node.Addr, HTTPPort, f.Host)
	p("  # Where DNS sends a client of %s\n", b.Name)
	p("  dig @%s -p %d %s A +subnet=%s +short\n", node.Addr, DNSPort, f.Host, b.Client)
	p("  # Why\n")
	p("  landfall explain https://%s/ --client %s\n", f.Host, b.Client)
	p("  # The fleet at a glance; move a region's traffic away, and back\n")
	p("  landfall status\n")
	p("  landfall drain region %s --reason 'trying it out'\n", b.Name)
	p("  landfall undrain region %s\n", b.Name)
	p("  # Purge a page on every node\n")
	p("  landfall purge --service shop --url http://%s/assets/app.css\n", f.Host)
	p("  # Kill a region under load and see what clients notice\n")
	p("  landfall drill kill-region%s\n", flag)
	if l.o.Traffic > 0 {
		p("\nA trickle of client traffic runs already: %g requests/s from each place (--traffic).\n", l.o.Traffic)
	}
	p("\nCtrl-C stops everything.\n")
}
