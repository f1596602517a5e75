package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Options choose what a lab is like.
type Options struct {
	Net        int       // second byte of its addresses, 127.NET.x.y, 0 to MaxNet: labs of different nets can run side by side
	Regions    int       // 1 to MaxRegions
	Nodes      int       // a region, 1 to MaxNodes
	Dir        string    // for files and logs; empty: a new folder that is removed at the end
	Latency    Latency   // simulated distances
	Traffic    float64   // requests a second of its own from each place, 0 to MaxTraffic
	Executable string    // the landfall binary
	Out        io.Writer // is told when a process ends by itself
}

// MaxTraffic bounds Options.Traffic: it is a trickle, drills bring their own load.
const MaxTraffic = 100

// Lab is a running lab. Its methods are safe for concurrent use.
type Lab struct {
	o          Options
	meshKey    string
	parentPipe *os.File // the children's end
	heldPipe   *os.File // our end: it closes with this process
	dirLock    *os.File // of a folder that the lab made
	tempDir    bool
	control    net.Listener
	admin      net.Listener
	client     *http.Client

	mu        sync.Mutex
	fleet     Fleet
	processes map[string]*process // by name
	up        bool                // it was started; from now on a process that ends by itself is news
	stopping  bool
	troubles  map[string]Trouble // by region
}

// Start lays a lab out, starts all of its processes and waits until every node is ready. What it started before a failure
// is stopped again.
func Start(ctx context.Context, o Options) (_ *Lab, err error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	l := &Lab{o: o, fleet: plan(o.Net, o.Regions, o.Nodes, o.Latency.between), processes: map[string]*process{}, client: &http.Client{Timeout: time.Second, Transport: &http.Transport{}}}
	l.fleet.PID, l.fleet.Traffic.Rate = os.Getpid(), o.Traffic
	defer func() {
		if err != nil {
			l.Stop()
		}
	}()
	if err := l.prepare(); err != nil {
		return nil, err
	}
	for _, r := range l.fleet.Regions {
		if err := l.StartRegion(r.Name); err != nil {
			return nil, err
		}
	}
	if err := l.waitReady(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// Check tells which of the options are out of bounds.
func (o Options) Check() error {
	switch {
	case o.Regions < 1 || o.Regions > MaxRegions || o.Nodes < 1 || o.Nodes > MaxNodes:
		return fmt.Errorf("a lab has 1 to %d regions with 1 to %d nodes each; asked for %d with %d", MaxRegions, MaxNodes, o.Regions, o.Nodes)
	case o.Net < 0 || o.Net > MaxNet:
		return fmt.Errorf("the net of a lab is 0 to %d; asked for %d", MaxNet, o.Net)
	case !(o.Traffic >= 0 && o.Traffic <= MaxTraffic):
		return fmt.Errorf("a lab's traffic is 0 to %d requests a second from each place; asked for %g", MaxTraffic, o.Traffic)
	}
	return nil
}

// prepare opens what the lab itself holds. The control address comes first: it tells a second lab from a first.
func (l *Lab) prepare() (err error) {
	if l.control, err = net.Listen("tcp", ControlAddr(l.o.Net)); err != nil {
		return fmt.Errorf("can't listen on %s, perhaps a lab runs already (stop it with Ctrl-C, or give this one another --net): %w", ControlAddr(l.o.Net), err)
	}
	if l.admin, err = net.Listen("tcp", AdminAddr(l.o.Net)); err != nil {
		return fmt.Errorf("can't listen on %s, where the CLI looks for a node (is one running here?): %w", AdminAddr(l.o.Net), err)
	}
	for _, r := range l.fleet.Regions {
		if err := canUse(r); err != nil {
			return err
		}
	}
	if l.parentPipe, l.heldPipe, err = os.Pipe(); err != nil {
		return fmt.Errorf("make the pipe that the children watch: %w", err)
	}
	if err := l.makeDir(); err != nil {
		return err
	}
	if err := l.forgetTroubles(); err != nil {
		return err
	}
	l.meshKey, err = writeFiles(&l.fleet, time.Now())
	return err
}

// canUse tells early, and in words, when this system has not all addresses of 127.0.0.0/8 on loopback, or when something
// else uses a port that the region's processes need.
func canUse(r Region) error {
	for _, n := range r.Nodes {
		probe, err := net.Listen("tcp", net.JoinHostPort(n.Addr.String(), "0"))
		if err != nil {
			return fmt.Errorf("can't use the loopback address %s (macOS needs `sudo ifconfig lo0 alias %s` for each address of the lab): %w", n.Addr, n.Addr, err)
		}
		_ = probe.Close()
		for _, port := range []int{HTTPPort, HTTPSPort, DNSPort, meshPort, peerPort, adminPort} {
			if err := free(netip.AddrPortFrom(n.Addr, uint16(port)).String()); err != nil {
				return err
			}
		}
	}
	for _, o := range r.Origins {
		if err := free(strings.TrimPrefix(o, "http://")); err != nil {
			return err
		}
	}
	return nil
}

func free(addr string) error {
	probe, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("the lab needs %s, which something else uses (`ss -ltnp` shows what): %w", addr, err)
	}
	return probe.Close()
}

// StartRegion starts what does not run of a region: its origins and its nodes.
func (l *Lab) StartRegion(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, err := l.region(name)
	if err != nil {
		return err
	}
	if l.stopping {
		return errors.New("the lab is stopping")
	}
	start := func(name string, args ...string) error {
		if l.processes[name].alive() {
			return nil
		}
		p, err := l.spawn(name, args...)
		if err == nil {
			l.processes[name] = p
		}
		return err
	}
	args := []string{"lab-origin", "--region", r.Name}
	for _, o := range r.Origins {
		args = append(args, "--listen", strings.TrimPrefix(o, "http://"))
	}
	if err := start(r.Name+"-origins", args...); err != nil {
		return err
	}
	for _, n := range r.Nodes {
		if err := start(n.Name, l.nodeArgs(*r, n)...); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) nodeArgs(r Region, n Node) []string {
	var delays []string
	for _, other := range l.fleet.Regions {
		if ms := r.RTT[other.Name]; ms > 0 {
			delays = append(delays, fmt.Sprintf("%s=%gms", other.Name, float64(ms)/2)) // each side delays one way
		}
	}
	return []string{"run", "--config", filepath.Join(l.fleet.Dir, "fleet.yaml"), "--node", n.Name, "--region", r.Name,
		"--bind", n.Addr.String(), "--advertise", n.Addr.String(), "--data", filepath.Join(l.fleet.Dir, n.Name),
		"--admin", fmt.Sprintf("%s:%d", n.Addr, adminPort), "--latency", strings.Join(delays, ","), "--network", l.networkFile(n),
		"--clock", l.troubles[r.Name].Clock.String()}
}

// KillRegion ends every process of a region at once, as a power cut would.
func (l *Lab) KillRegion(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, err := l.region(name)
	if err != nil {
		return err
	}
	var g errgroup.Group
	for _, p := range l.ofRegion(*r) {
		g.Go(func() error { p.kill(); return nil })
	}
	return g.Wait()
}

func (l *Lab) region(name string) (*Region, error) {
	for i := range l.fleet.Regions {
		if l.fleet.Regions[i].Name == name {
			return &l.fleet.Regions[i], nil
		}
	}
	return nil, fmt.Errorf("the lab has no region %q", name)
}

// ofRegion are a region's processes that were ever started. Callers hold mu.
func (l *Lab) ofRegion(r Region) []*process {
	ps := []*process{l.processes[r.Name+"-origins"]}
	for _, n := range r.Nodes {
		ps = append(ps, l.processes[n.Name])
	}
	return ps
}

// Fleet describes the lab as it is now.
func (l *Lab) Fleet() Fleet {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.fleet
	f.Regions = make([]Region, len(l.fleet.Regions))
	for i, r := range l.fleet.Regions {
		r.Up = true
		for _, p := range l.ofRegion(r) {
			r.Up = r.Up && p.alive()
		}
		r.Nodes = append([]Node(nil), r.Nodes...)
		for j := range r.Nodes {
			r.Nodes[j].PID = l.processes[r.Nodes[j].Name].pid()
		}
		f.Regions[i] = r
	}
	return f
}

// Run serves the lab's control API and the CLI's way in, and sends its traffic, until ctx ends.
func (l *Lab) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.serveControl(ctx) })
	g.Go(func() error { return l.relayAdmin(ctx) })
	g.Go(func() error { return l.sendTraffic(ctx) })
	return g.Wait()
}

// Stop ends every process and removes what the lab made. It may be called more than once.
func (l *Lab) Stop() {
	l.mu.Lock()
	l.stopping = true
	var g errgroup.Group
	for _, p := range l.processes {
		// A fleet that goes as a whole has nobody to hand its clients to: no need to wait for the stages of a stop.
		g.Go(func() error { p.kill(); return nil })
	}
	l.mu.Unlock()
	_ = g.Wait()
	for _, c := range []io.Closer{l.heldPipe, l.parentPipe, l.control, l.admin} {
		if c != nil {
			_ = c.Close() // a pipe that was never made says so, which is fine
		}
	}
	l.client.CloseIdleConnections()
	l.removeDir()
}
