package gateway

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"landfall/cache"
	"landfall/configs"
	"landfall/gateway/admin"
	"landfall/gateway/certs"
	"landfall/gateway/feeds"
	"landfall/gateway/proxy"
	"landfall/gateway/server"
	"landfall/gateway/upstream"
	"landfall/healthcheck"
	"landfall/routing"
	"landfall/routing/dns"
	"landfall/routing/geo"
	"landfall/routing/mesh"
)

// Node is one gateway process. New opens everything that can fail, Run serves, Reload swaps the config; all methods are
// safe for concurrent use.
type Node struct {
	o       Options
	id      identity
	boot    string
	log     *slog.Logger
	level   *slog.LevelVar
	started time.Time

	registry *prometheus.Registry
	metrics  metricSets
	events   *admin.EventLog
	geo      *geo.DB // nil without a database
	asn      *geo.DB // of autonomous systems; nil without one
	cache    *cache.Cache
	certs    *certs.Store            // nil without HTTPS
	creds    *certs.PeerCreds        // nil without a mesh
	mesh     *mesh.Mesh              // nil without a mesh
	peers    *upstream.PeerTransport // nil without a mesh
	fleet    fleet                   // the mesh, or the node alone
	dns      *dns.Server             // nil without DNS listeners
	server   *server.Server
	admin    *admin.API
	checker  *healthcheck.Checker

	adminListener net.Listener
	dnsListeners  []dnsListener
	listeners     []openListener
	closers       []func() // of what New opened, in order

	generation atomic.Pointer[generation]
	snapshot   atomic.Pointer[routing.Snapshot]
	picture    atomic.Pointer[picture]
	calms      atomic.Pointer[map[string]calm] // by service, of the snapshot
	state      atomic.Value                    // mesh.NodeState
	pushes     pushes
	zonesAt    atomic.Int64 // Unix seconds at which the DNS zones were loaded: their serial
	changed    chan struct{}
	requests   rate
	spills     spills
	homing     homing
	strains    strains
	rtts       atomic.Pointer[rttTable] // nil while nothing is measured
	purges     *purgeLog
	feeds      *feeds.Feeds

	lasting     *proxy.Lasting
	controlling sync.Mutex // one change of what operators turned at a time
	turned      controls   // under controlling
	purgeTrack  *purgeTrack
	purgeWriter *purgeWriter
	wire        *network // simulated; nil: as it is
	purgeEvents eventLimit
	groupPurges *groupPurges
	doubts      atomic.Bool // of what an earlier process left in the cache on disk

	joined   chan struct{}         // closed when the node may take traffic
	stating  sync.Mutex            // one change of state at a time
	building sync.Mutex            // one snapshot at a time
	judging  *judging              // guarded by building
	peerRTTs map[string]peerRTT    // under building: round trips to the other regions
	heard    map[string]heardDoors // under building: by member
	steady   steady                // under building

	// Owned by watch.
	published   string // the report that the fleet has
	publishedAt time.Time
	keys        *keyring // nil without a mesh
	isolation   isolation
	metAt       time.Time // since when other nodes are heard while doubts holds
	observers   observers
	toldToGo    bool      // connections are told to go because of a drain
	drainSeen   time.Time // when the node's drain began or ended, by its own clock

	reloading  sync.Mutex
	rotating   sync.Mutex // one step of a key's rotation at a time
	targeting  sync.Mutex // one change of what is checked at a time
	lastReload atomic.Pointer[reloadResult]
}

// picture is what people are shown of the moment that the snapshot was made of.
type picture struct {
	members []member
	drains  []Drain
	facts   []regionFacts
}

type reloadResult struct {
	at  time.Time
	err string
}

type dnsListener struct {
	udp net.PacketConn
	tcp net.Listener
}

// openListener is a bound address, for the line that a start prints.
type openListener struct{ kind, addr string }

// New builds a node: it reads the config, opens every file and every listener, and starts nothing. On an error all that
// it had opened is closed again.
func New(o Options) (_ *Node, err error) {
	c, err := configs.Load(o.ConfigFile, o.Lookup)
	if err != nil {
		return nil, err
	}
	id, err := identify(o, c)
	if err != nil {
		return nil, err
	}
	n := &Node{o: o, id: id, boot: newID(), started: o.Now(), level: new(slog.LevelVar), registry: prometheus.NewRegistry(), changed: make(chan struct{}, 1), joined: make(chan struct{})}
	n.level.Set(logLevel(c.Observe.LogLevel))
	n.log = newLogger(os.Stderr, c.Observe.LogFormat, n.level).With("node", id.name)
	if o.Logger != nil {
		n.log = o.Logger
	}
	n.metrics = newMetrics(n.registry)
	n.events = admin.NewEventLog(eventCapacity, o.Now, n.log)
	n.events.SetNode(id.name)
	n.closers = append(n.closers, n.events.Close)
	n.purges, n.purgeTrack = newPurgeLog(), newPurgeTrack(n.purgesLost)
	n.judging = newJudging(verdictPolicy(c))
	n.pushes.reloaded = make(chan struct{}, 1)
	n.lasting = proxy.NewLasting()
	n.closers = append(n.closers, n.lasting.Close)
	n.state.Store(mesh.Joining)
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	for _, step := range []func(*configs.Config) error{n.openData, n.openASN, n.openCache, n.openCerts, n.openMesh, n.openPurges, n.openFeeds, n.openGeneration, n.openServer, n.openDNS} {
		if err := step(c); err != nil {
			return nil, err
		}
	}
	n.lastReload.Store(&reloadResult{at: o.Now()})
	n.metrics.node.config(c.Hash)
	return n, nil
}

// eventCapacity is how many events a node remembers.
const eventCapacity = 4096

func newLogger(w *os.File, format string, level slog.Leveler) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// newID is 16 random hex digits.
func newID() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// openData makes the data folder and checks that it can be written.
func (n *Node) openData(c *configs.Config) error {
	if n.o.DataDir != "" {
		if err := os.MkdirAll(n.o.DataDir, 0o700); err != nil {
			return fmt.Errorf("make the data folder (--data): %w", err)
		}
		probe, err := os.CreateTemp(n.o.DataDir, ".writable-")
		if err != nil {
			return fmt.Errorf("the data folder %s can't be written (--data): %w", n.o.DataDir, err)
		}
		_ = probe.Close()
		_ = os.Remove(probe.Name())
	}
	if c.DNS.GeoIP == "" {
		return nil
	}
	var err error
	if n.geo, err = geo.Open(c.DNS.GeoIP); err != nil {
		return fmt.Errorf("open dns.geoip: %w", err)
	}
	n.closers = append(n.closers, func() { _ = n.geo.Close() })
	return nil
}

// openCerts loads the certificates of clients' listeners and of the peer channel.
func (n *Node) openCerts(c *configs.Config) (err error) {
	if len(c.Listen.HTTPS) > 0 {
		n.certs, err = certs.New(certs.Options{TLS: c.TLS, Hosts: allHosts(c), DataDir: n.o.DataDir, Logger: n.log, Metrics: n.metrics.certs, Now: n.o.Now})
		if err != nil {
			return err
		}
	}
	if c.Listen.Peer != "" {
		if n.creds, err = certs.PeerTLS(c.Mesh.TLS, n.id.name); err != nil {
			return fmt.Errorf("the node's certificate (mesh.tls): %w", err)
		}
	}
	return nil
}

// allHosts are the hosts of every service, in the order of the services' names.
func allHosts(c *configs.Config) []string {
	var hosts []string
	for _, name := range proxy.ServiceNames(c) {
		hosts = append(hosts, c.Services[name].Hosts...)
	}
	return hosts
}

// openMesh joins nothing yet: it binds the gossip port and opens the registers.
func (n *Node) openMesh(c *configs.Config) error {
	if c.Listen.Mesh == "" {
		n.fleet = &solo{self: n.selfAlone, now: n.o.Now, onRegister: n.onRegister, registers: map[string]soloRegister{}}
		return nil
	}
	peers := upstream.PeerOptions{TLS: n.creds.Client, Resolve: n.peerAddr, Delay: n.peerDelay}
	if n.o.Network != "" {
		n.wire = newNetwork(n.o.Network)
		peers.Dial = n.dialPeer
	}
	n.peers = upstream.NewPeerTransport(peers)
	n.closers = append(n.closers, n.peers.CloseIdleConnections)
	bind, err := listenAddrPort(n.id.on(c.Listen.Mesh))
	if err != nil {
		return fmt.Errorf("listen.mesh: %w", err)
	}
	gossip, err1 := n.id.reachable(c.Listen.Mesh)
	peer, err2 := n.id.reachable(c.Listen.Peer)
	api, err3 := n.id.reachable(n.adminAddr(c))
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	configured, err := meshKeys(c.Mesh.Key)
	if err != nil {
		return err
	}
	if n.keys, err = openKeyring(c.Fleet, n.o.DataDir, configured); err != nil {
		return err
	}
	keys := n.keys.keys()
	n.mesh, err = mesh.New(mesh.Options{
		Node: n.id.name, Region: n.id.region, Fleet: c.Fleet, Version: n.o.Version, ConfigHash: c.Hash, Boot: n.boot,
		Addrs: n.id.addrs, Bind: bind, Advertise: gossip, Peer: peer, Admin: api, Keys: keys, Join: append(c.Mesh.Join, n.o.Join...),
		DataDir: n.o.DataDir, Client: &http.Client{Transport: n.peers}, Logger: n.log, Metrics: n.metrics.mesh, Now: n.o.Now,
		Delay: n.delay(), OnRegister: n.onRegister, OnChange: n.kick, OnEvent: n.event,
	})
	if err != nil {
		return err
	}
	n.fleet = meshFleet{n.mesh}
	n.observers.passes = healthcheck.NewPasses(c.Fleet, keys)
	n.observers.doors = healthcheck.NewDoors(healthcheck.DoorOptions{Passes: n.observers.passes, Now: n.o.Now, Logger: n.log, Metrics: n.metrics.doors})
	n.closers = append(n.closers, func() { _ = n.mesh.Close() })
	return nil
}

func (n *Node) openPurges(*configs.Config) error {
	n.purgeWriter = newPurgeWriter(n.id.name+"/"+n.boot, n.fleet, n.purgedOn)
	n.closers = append(n.closers, n.purgeWriter.close)
	n.groupPurges = newGroupPurges()
	return nil
}

// peerAddr is where a node's peer listener is. It is asked only once the mesh exists.
func (n *Node) peerAddr(name string) (netip.AddrPort, bool) { return n.mesh.PeerAddr(name) }

// peerDelay is the simulated delay of a connection to a node, each way, by its region. The side that takes a connection
// delays nothing.
func (n *Node) peerDelay(name string) time.Duration {
	if len(n.o.Latency) == 0 {
		return 0
	}
	for _, m := range n.mesh.Members() {
		if m.Name == name {
			return n.o.Latency[m.Region]
		}
	}
	return 0
}

func meshKeys(list configs.StringList) ([][]byte, error) {
	var keys [][]byte
	for i, s := range list {
		k, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return nil, fmt.Errorf("mesh.key %d is not base64", i+1) // the key itself stays out of the text
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// listenAddrPort turns a listen address into a socket address; a missing host is every interface.
func listenAddrPort(addr string) (netip.AddrPort, error) {
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is not an address: %w", addr, err)
	}
	ap := a.AddrPort()
	if !ap.Addr().IsValid() {
		ap = netip.AddrPortFrom(netip.IPv6Unspecified(), ap.Port())
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

func (n *Node) openGeneration(c *configs.Config) error {
	n.generation.Store(&generation{config: c}) // for the first snapshot, which the handler chain is built on
	n.rebuild()
	g, err := n.generate(c, nil)
	if err != nil {
		return err
	}
	n.targeting.Lock()
	defer n.targeting.Unlock()
	n.generation.Store(g)
	n.closers = append(n.closers, func() { n.generation.Load().release(nil) })
	n.checker = healthcheck.NewChecker(healthcheck.Options{
		Targets: g.targets(n.id.region), OnChange: n.originChanged, Now: n.o.Now, Logger: n.log, Metrics: n.metrics.health,
	})
	return nil
}

// openServer binds the listeners of clients, peers and the admin API.
func (n *Node) openServer(c *configs.Config) error {
	n.openRTT(c)
	n.server = server.New(server.Options{OnRTT: n.observeRTT, Limits: c.Limits, Logger: n.log, Metrics: n.metrics.server, Now: n.o.Now})
	n.closers = append(n.closers, func() {
		done, cancel := context.WithCancel(context.Background())
		cancel()
		n.server.Stop(done, 0)
	})
	bound := func(kind string) func(net.Addr, error) error {
		return func(a net.Addr, err error) error {
			if err == nil {
				n.listeners = append(n.listeners, openListener{kind, a.String()})
			}
			return err
		}
	}
	for _, addr := range c.Listen.HTTP {
		if err := bound("http")(n.server.AddHTTP(n.id.on(addr), http.HandlerFunc(n.serveClient))); err != nil {
			return err
		}
	}
	for _, addr := range c.Listen.HTTPS {
		if err := n.openHTTPS(c, n.id.on(addr)); err != nil {
			return err
		}
	}
	if c.Listen.Peer != "" {
		if err := bound("peer")(n.server.AddPeer(n.id.on(c.Listen.Peer), n.creds.Server(), n.peerHandler())); err != nil {
			return err
		}
	}
	if c.Listen.Mesh != "" {
		n.listeners = append(n.listeners, openListener{"mesh", n.id.on(c.Listen.Mesh)})
	}
	return n.openAdmin(c)
}

func (n *Node) adminAddr(c *configs.Config) string {
	if n.o.Admin != "" {
		return n.o.Admin
	}
	return c.Listen.Admin
}

// selfAlone is this node as the only member of its fleet.
func (n *Node) selfAlone() mesh.Member {
	hash := ""
	if g := n.generation.Load(); g != nil {
		hash = g.config.Hash
	}
	return mesh.Member{
		Name: n.id.name, Region: n.id.region, Boot: n.boot, Addrs: n.id.addrs, Version: n.o.Version, ConfigHash: hash,
		State: n.state.Load().(mesh.NodeState), Reachable: true, LastSeen: n.o.Now(), Self: true,
	}
}

// openAdmin makes the admin API and binds its listener.
func (n *Node) openAdmin(c *configs.Config) (err error) {
	addr := n.id.on(n.adminAddr(c))
	n.admin = admin.New(admin.Options{
		Backend: backend{n}, Admin: c.Admin, Gatherer: n.registry, Events: n.events, Metrics: n.metrics.admin, Logger: n.log, Now: n.o.Now,
	})
	if n.adminListener, err = listenTCP("the admin API (listen.admin or --admin)", addr); err != nil {
		return err
	}
	n.closers = append(n.closers, func() { _ = n.adminListener.Close() })
	n.listeners = append(n.listeners, openListener{"admin", n.adminListener.Addr().String()})
	return nil
}

func (n *Node) hasCert(host string) bool { return n.certs != nil && n.certs.Has(host) }

// close releases what New opened, last opened first.
func (n *Node) close() {
	for i := len(n.closers) - 1; i >= 0; i-- {
		n.closers[i]()
	}
	n.closers = nil
}

// event records what an operator wants to know.
func (n *Node) event(kind, subject, detail string) { n.events.Add(kind, subject, detail) }
