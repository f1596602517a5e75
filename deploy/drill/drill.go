package drill

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"landfall/deploy/lab"
)

// Options choose a drill.
type Options struct {
	Name   string
	Seed   uint64  // picks the region, and what the clients ask for
	Region string  // overrides the seed's choice; empty: the seed chooses
	Rate   float64 // requests a second from each place
	Out    io.Writer
}

// Drill is a drill's name and promise.
type Drill struct {
	Name    string
	Promise string
	run     func(context.Context, *session) error
}

// Drills are all drills.
func Drills() []Drill {
	return []Drill{
		{"kill-region", "SIGKILL every process of a region: no request fails for good, DNS is right within 2 s, traffic comes home", killRegion},
		{"drain-region", "drain a region and undrain it: not one request fails or needs a second try", drainRegion},
	}
}

// session is one run of a drill on a lab.
type session struct {
	o       Options
	fleet   lab.Fleet
	control lab.Control
	target  lab.Region
	account *account
	clients []*client
	report  *Report
	now     func() time.Time
}

// MaxRate bounds the requests a second from each place.
const MaxRate = 1000

// Known tells whether there is a drill of that name.
func Known(name string) bool {
	for _, d := range Drills() {
		if d.Name == name {
			return true
		}
	}
	return false
}

// Run runs a drill on the lab that runs on this machine. The error says that the drill could not be carried out; whether
// its promise held is in the report.
func Run(ctx context.Context, o Options) (*Report, error) {
	var drill *Drill
	for _, d := range Drills() {
		if d.Name == o.Name {
			drill = &d
		}
	}
	if drill == nil {
		return nil, fmt.Errorf("there is no drill %q; `landfall drill list` shows them", o.Name)
	}
	s := &session{o: o, control: lab.Control{Client: &http.Client{Timeout: 10 * time.Second}}, account: &account{}, now: time.Now}
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	s.report = &Report{Drill: o.Name, Region: s.target.Name, Seed: o.Seed, Broken: []string{}, Examples: []string{}}
	load, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	var running sync.WaitGroup
	for i, c := range s.clients {
		rng := rand.New(rand.NewPCG(o.Seed, uint64(i)))
		running.Go(func() { c.run(load, o.Rate, rng, s.now, s.account.add) })
	}
	err := drill.run(ctx, s)
	stopLoad()
	running.Wait()
	for _, c := range s.clients {
		c.close()
	}
	if err != nil {
		return nil, err
	}
	s.report.fill(s.account)
	if s.report.Errors > 0 {
		s.broke("%d requests failed for good", s.report.Errors)
	}
	if s.report.Requests == 0 {
		s.broke("no request was sent")
	}
	s.report.judge()
	return s.report, nil
}

// prepare learns the lab and makes its clients.
func (s *session) prepare(ctx context.Context) (err error) {
	if s.fleet, err = s.control.Fleet(ctx); err != nil {
		return err
	}
	if len(s.fleet.Regions) < 2 {
		return fmt.Errorf("a drill needs at least 2 regions, this lab has %d", len(s.fleet.Regions))
	}
	s.target = s.fleet.Regions[rand.New(rand.NewPCG(s.o.Seed, 0)).IntN(len(s.fleet.Regions))]
	if s.o.Region != "" {
		found := false
		for _, r := range s.fleet.Regions {
			if r.Name == s.o.Region {
				s.target, found = r, true
			}
		}
		if !found {
			return fmt.Errorf("the lab has no region %q", s.o.Region)
		}
	}
	for _, r := range s.fleet.Regions {
		if !r.Up {
			return fmt.Errorf("region %s of the lab is not running; start it or start the lab anew", r.Name)
		}
	}
	pem, err := os.ReadFile(s.fleet.CA)
	if err != nil {
		return fmt.Errorf("read the lab's CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s holds no certificate", s.fleet.CA)
	}
	for _, r := range s.fleet.Regions {
		s.clients = append(s.clients, s.newClient(r, pool))
	}
	return nil
}

// newClient makes the clients of one place. Their resolver asks the nearest name server first.
func (s *session) newClient(home lab.Region, pool *x509.CertPool) *client {
	res := &resolver{subnet: home.Prefix, host: s.fleet.Host, now: s.now}
	res.servers = append(res.servers, dnsServers(home)...)
	for _, r := range s.fleet.Regions {
		if r.Name != home.Name {
			res.servers = append(res.servers, dnsServers(r)...)
		}
	}
	rtt := map[netip.Addr]time.Duration{}
	for _, r := range s.fleet.Regions {
		for _, n := range r.Nodes {
			rtt[n.Addr] = time.Duration(home.RTT[r.Name]) * time.Millisecond
		}
	}
	return &client{place: home.Name, host: s.fleet.Host, resolver: res, pool: pool,
		rtt: func(a netip.Addr) time.Duration { return rtt[a] }, transports: map[netip.Addr]*http.Transport{}}
}

func dnsServers(r lab.Region) []string {
	var out []string
	for _, n := range r.Nodes {
		out = append(out, fmt.Sprintf("%s:%d", n.Addr, lab.DNSPort))
	}
	return out
}

func (s *session) say(format string, a ...any) { fmt.Fprintf(s.o.Out, format+"\n", a...) }

func (s *session) broke(format string, a ...any) {
	s.report.Broken = append(s.report.Broken, fmt.Sprintf(format, a...))
}

// phase begins a phase of the account and lets the load run on for a while.
func (s *session) phase(ctx context.Context, name string, d time.Duration) error {
	s.say("%s …", name)
	s.account.begin(name, s.now())
	return pause(ctx, d)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
