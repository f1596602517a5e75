package mesh

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	bubbleGossip = 7946
	bubblePeer   = 7443

	bubbleDialWait = 5 * time.Second
)

// bubble is a fleet in a synctest bubble, and what its clients were told.
type bubble struct {
	t       *testing.T
	seed    uint64
	rng     *mathrand.Rand // of the one goroutine that makes faults and writes
	net     *bubbleNet
	certs   *fleet
	began   time.Time
	regions []string
	nodes   []*bubbleNode
	writing sync.WaitGroup
	seq     int
	faults  map[string]int

	mu     sync.Mutex
	acked  []bubbleAck
	stamps map[string]Stamp // of each value that was written
}

// bubbleAck is a write that was acknowledged.
type bubbleAck struct {
	key, value string
	holders    map[string]int // who has it on disk, and how often that disk had been lost then
}

// bubbleNode is a machine of the fleet.
type bubbleNode struct {
	b      *bubble
	name   string
	host   *host
	client *tls.Config
	server *tls.Config
	dir    string
	offset atomic.Int64 // of its clock
	wiped  int          // how often its disk was lost; guarded by bubble.mu

	now atomic.Pointer[bubbleProcess] // nil: it doesn't run
}

// bubbleProcess is one life of a node.
type bubbleProcess struct {
	*Mesh
	name, boot string
	server     *http.Server
	client     *http.Client
	cancel     context.CancelFunc
	all        sync.WaitGroup
}

func newBubble(t *testing.T, seed uint64) *bubble {
	b := &bubble{
		t: t, seed: seed, rng: mathrand.New(mathrand.NewPCG(seed, 1)), certs: newFleet(t), began: time.Now(),
		faults: map[string]int{}, stamps: map[string]Stamp{},
	}
	way := map[[2]string]time.Duration{}
	for i := range 3 {
		b.regions = append(b.regions, fmt.Sprintf("r%d", i))
		for _, other := range b.regions {
			d := time.Duration(5+b.rng.IntN(120)) * time.Millisecond
			way[[2]string{b.regions[i], other}], way[[2]string{other, b.regions[i]}] = d, d
		}
		way[[2]string{b.regions[i], b.regions[i]}] = 300 * time.Microsecond
	}
	b.net = newBubbleNet(seed, func(from, to string) time.Duration { return way[[2]string{from, to}] })
	dir := t.TempDir()
	pool := x509.NewCertPool()
	pool.AddCert(b.certs.ca)
	for i := range 6 {
		name := fmt.Sprintf("n%d", i)
		n := &bubbleNode{b: b, name: name, host: b.net.host(name, b.regions[i%3]), dir: filepath.Join(dir, name)}
		cert := b.certs.certificate(name)
		n.server = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
		n.client = &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: pool, NextProtos: []string{"h2"}}
		b.nodes = append(b.nodes, n)
	}
	for _, n := range b.nodes {
		b.start(n)
	}
	return b
}

// wait lets time pass.
func (b *bubble) wait(d time.Duration) { <-time.After(d) }

func (b *bubble) note(fault string) {
	b.faults[fault]++
	if *bubbleSearch.runs == 1 {
		b.t.Logf("%s %s", time.Since(b.began), fault)
	}
}

// start runs a node's process, if none runs.
func (b *bubble) start(n *bubbleNode) {
	b.t.Helper()
	if n.now.Load() != nil {
		return
	}
	n.host.boot()
	p := &bubbleProcess{name: n.name, boot: rand.Text()}
	p.client = n.newClient(p)
	var err error
	if p.Mesh, err = New(n.options(p)); err != nil {
		b.fail("%s does not start: %v", n.name, err)
		return
	}
	p.server = &http.Server{Handler: p.Handler(), ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: limit, TLSConfig: n.server.Clone()}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	door := n.host.listen(bubblePeer)
	p.all.Go(func() { _ = p.server.ServeTLS(door, "", "") })
	p.all.Go(func() {
		if err := p.Run(ctx); err != nil {
			b.t.Errorf("seed %d: %s did not stop in order: %v", b.seed, n.name, err)
		}
	})
	p.all.Go(func() { n.serve(ctx, p) })
	n.now.Store(p)
}

// serve tells the fleet that the node serves, once it is ready; which it must be soon, whatever the network does.
func (n *bubbleNode) serve(ctx context.Context, p *bubbleProcess) {
	late := time.NewTimer(defaultReadyWait + time.Second)
	defer late.Stop()
	select {
	case <-p.Ready():
		p.SetState(Serving)
	case <-late.C:
		n.b.fail("%s is not ready %s after its start: %s", n.name, defaultReadyWait+time.Second, p.Waiting())
	case <-ctx.Done():
	}
}

func (n *bubbleNode) options(p *bubbleProcess) Options {
	o := Options{
		Node: n.name, Region: n.host.region, Fleet: "test", Version: "v1", ConfigHash: "c1", Boot: p.boot,
		Bind: netip.AddrPortFrom(n.host.addr, bubbleGossip), Peer: netip.AddrPortFrom(n.host.addr, bubblePeer),
		Keys: [][]byte{n.b.certs.ring}, DataDir: n.dir, Client: p.client, Metrics: NewMetrics(prometheus.NewRegistry()),
		Now:        func() time.Time { return time.Now().Round(0).Add(time.Duration(n.offset.Load())) },
		OnRegister: n.onRegister, OnEvent: func(kind, subject, detail string) { n.onEvent(p, kind, subject, detail) },
		underlay: n.host.gossip,
	}
	for _, seed := range n.b.nodes[:2] { // a node that is its own seed is one of them
		o.Join = append(o.Join, netip.AddrPortFrom(seed.host.addr, bubbleGossip).String())
	}
	return o
}

func (n *bubbleNode) newClient(p *bubbleProcess) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	return &http.Client{Transport: &http.Transport{
		Protocols: protocols,
		HTTP2:     &http.HTTP2Config{SendPingTimeout: 2 * time.Second, PingTimeout: time.Second},
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			name, _ := PeerName(ctx)
			addr, known := p.PeerAddr(name)
			if !known {
				return nil, fmt.Errorf("no peer %q", name)
			}
			ctx, cancel := context.WithTimeout(ctx, bubbleDialWait) // net/http's dials outlive their requests
			defer cancel()
			raw, err := n.host.dial(ctx, addr)
			if err != nil {
				return nil, err
			}
			config := n.client.Clone()
			config.ServerName = name
			conn := tls.Client(raw, config)
			if err := conn.HandshakeContext(ctx); err != nil {
				_ = raw.Close()
				return nil, err
			}
			return conn, nil
		},
	}}
}

func (n *bubbleNode) onRegister(r Register) {
	n.b.mu.Lock()
	defer n.b.mu.Unlock()
	if stamp, ok := n.b.stamps[string(r.Value)]; !ok || r.Stamp.Compare(stamp) < 0 {
		n.b.stamps[string(r.Value)] = r.Stamp // a write that was stamped anew counts from its first stamp
	}
}

func (n *bubbleNode) onEvent(p *bubbleProcess, kind, subject, detail string) {
	if *bubbleSearch.runs == 1 {
		n.b.t.Logf("%s %s: %s %s: %s", time.Since(n.b.began), n.name, kind, subject, detail)
	}
	switch kind {
	case "node.duplicate", "registers.corrupt", "registers.stale", "registers.full", "config.split":
		n.b.fail("%s tells of %s of %s, which never happened: %s", n.name, kind, subject, detail)
	}
}

// kill ends a node's process: of what it does afterwards nothing leaves the machine, and its disk stays as it was.
func (b *bubble) kill(n *bubbleNode, dark bool) {
	b.t.Helper()
	p := n.now.Load()
	if p == nil {
		return
	}
	b.note(map[bool]string{true: "power", false: "kill"}[dark])
	synctest.Wait() // nobody is in the middle of a write to disk
	path := filepath.Join(n.dir, storeName)
	disk, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	n.now.Store(nil)
	n.host.kill(dark)
	p.end()
	if err := os.WriteFile(path, disk, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (p *bubbleProcess) end() {
	p.cancel()
	_ = p.server.Close()
	p.all.Wait()
	p.client.CloseIdleConnections()
}

// wipe empties the disk of a node that doesn't run.
func (b *bubble) wipe(n *bubbleNode) {
	if n.now.Load() != nil {
		return
	}
	b.note("wipe")
	if err := os.RemoveAll(n.dir); err != nil {
		b.t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	n.wiped++
}

// pause stops a node's process for a while, as far as the others can tell: what it sends and gets is held back, and it is
// only its timers that go on.
func (b *bubble) pause(n *bubbleNode, d time.Duration) {
	b.note("pause")
	b.net.mu.Lock()
	defer b.net.mu.Unlock()
	n.host.frozen = time.Now().Add(d)
}

// stop ends the fleet, and lets the goroutines end that memberlist's Shutdown leaves behind.
func (b *bubble) stop() {
	b.writing.Wait()
	for _, n := range b.nodes {
		if p := n.now.Swap(nil); p != nil {
			p.end()
		}
	}
	b.wait(time.Minute)
}

// write lets a client write through a random node, in its own time.
func (b *bubble) write() {
	n := b.nodes[b.rng.IntN(len(b.nodes))]
	key, level := fmt.Sprintf("k/%d", b.rng.IntN(12)), Wait(b.rng.IntN(3))
	p := n.now.Load()
	if p == nil || !p.isReady() {
		return
	}
	b.seq++
	value := fmt.Sprintf(`"%s-%d"`, n.name, b.seq)
	before := p.living()
	b.writing.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
		defer cancel()
		var ack Ack
		var err error
		if level == WaitAll {
			ack, err = p.Spread(ctx, key, json.RawMessage(value), 0, func() {
				if n.now.Load() == p {
					b.acknowledged(key, value, Ack{Applied: []string{n.name}})
				}
			})
		} else {
			ack, err = p.Write(ctx, key, json.RawMessage(value), 0, level)
		}
		if n.now.Load() != p {
			return // the client saw its connection break
		}
		if err != nil {
			b.fail("%s does not take a write: %v", n.name, err)
			return
		}
		if level == WaitAll && len(ack.Missing) == 0 {
			b.reached(p, key, value, before, ack)
		}
		b.acknowledged(key, value, ack)
	})
}

// living is the processes that a node takes for live.
func (p *bubbleProcess) living() map[string]string {
	now := p.instant().at
	p.mu.Lock()
	defer p.mu.Unlock()
	boots := map[string]string{}
	for name, mb := range p.core.members {
		if mb.live(now) {
			boots[name] = mb.info.Boot
		}
	}
	return boots
}

// reached holds a wait for all that names nobody missing: all that the writer takes for live, before and after, have it.
func (b *bubble) reached(p *bubbleProcess, key, value string, before map[string]string, ack Ack) {
	after := p.living()
	for _, n := range b.nodes {
		q := n.now.Load()
		if q == nil || q == p || before[n.name] != q.boot || after[n.name] != q.boot {
			continue
		}
		if !slices.Contains(ack.Applied, n.name) || !b.holds(q, key, value) {
			b.fail("%s waited for all with %s, yet %s, which it takes for live, does not hold it (applied: %v)", p.name, value, n.name, ack.Applied)
		}
	}
}

// holds tells whether a process has a write or a later one of its key.
func (b *bubble) holds(p *bubbleProcess, key, value string) bool {
	b.mu.Lock()
	stamp, ok := b.stamps[value]
	b.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	e, have := p.core.table.entries[key]
	return ok && have && e.Stamp.Compare(stamp) >= 0
}

func (b *bubble) acknowledged(key, value string, ack Ack) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := bubbleAck{key, value, map[string]int{}}
	for _, n := range b.nodes {
		if n.now.Load() != nil && slices.Contains(ack.Applied, n.name) {
			a.holders[n.name] = n.wiped
		}
	}
	b.acked = append(b.acked, a)
}

// check holds every acknowledged write against the end: nobody may have lost it while one that had it on disk lives.
func (b *bubble) check() {
	for _, a := range b.acked {
		survived := false
		for _, n := range b.nodes {
			wiped, held := a.holders[n.name]
			survived = survived || held && wiped == n.wiped
		}
		for _, n := range b.nodes {
			if survived && !b.holds(n.now.Load(), a.key, a.value) {
				b.fail("%s has lost %s of %s, which %v had acknowledged", n.name, a.value, a.key, sortedKeys(a.holders))
			}
		}
	}
}

// awaitWhole waits until the fleet is whole, and tells how long that took, and what is missing if it isn't.
func (b *bubble) awaitWhole(within time.Duration) (took time.Duration, missing string) {
	for start := time.Now(); ; {
		synctest.Wait()
		missing = b.lacks()
		if took = time.Since(start); missing == "" || took >= within {
			return took, missing
		}
		b.wait(250 * time.Millisecond)
	}
}

// lacks is what keeps the fleet from being whole: all serve, reach each other, are known to gossip, and hold the same.
func (b *bubble) lacks() string {
	var digest uint64
	for i, n := range b.nodes {
		p := n.now.Load()
		if p == nil {
			return n.name + " does not run"
		}
		if got := p.list.NumMembers(); got != len(b.nodes) {
			return fmt.Sprintf("gossip of %s knows %d nodes", n.name, got)
		}
		for _, m := range p.Members() {
			at := slices.IndexFunc(b.nodes, func(n *bubbleNode) bool { return n.name == m.Name })
			if q := b.nodes[at].now.Load(); q == nil || m.Boot != q.boot || m.State != Serving || !m.Reachable {
				return fmt.Sprintf("%s sees %s as %s, reachable %v, boot %s", n.name, m.Name, m.State, m.Reachable, m.Boot)
			}
		}
		p.mu.Lock()
		own, members := p.core.table.digest(), len(p.core.members)
		p.mu.Unlock()
		if i == 0 {
			digest = own
		}
		if members != len(b.nodes)-1 || own != digest {
			return fmt.Sprintf("%s knows %d others, and its registers have the digest %x, not %x", n.name, members, own, digest)
		}
	}
	return ""
}

// dump tells of all links, for one who looks for what went wrong.
func (b *bubble) dump() {
	for _, n := range b.nodes {
		p := n.now.Load()
		if p == nil {
			continue
		}
		now := p.instant().at
		p.mu.Lock()
		for _, mb := range p.core.order {
			b.t.Logf("%s → %s: link %v, wanted %v, dialing %v since %s, %d fails, standing %d (observed %d), last error %s",
				n.name, mb.name, mb.link != nil, mb.wanted, mb.dialing, now.Sub(mb.redial), mb.fails, mb.reach.standing, mb.observed, mb.lastErr)
		}
		p.mu.Unlock()
	}
}
