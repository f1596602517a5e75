package mesh

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Garbage and packets of any size on the gossip port, and bytes of any kind on its streams, change nothing.
func TestGarbageOnTheGossipPort(t *testing.T) {
	_, a, b, c := three(t)
	udp, err := net.Dial("udp", a.gossip.String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for i := range 2000 {
		junk := make([]byte, 1+i*31%9000) // oversized ones among them
		_, _ = rand.Read(junk)
		_, _ = udp.Write(junk)
	}
	for i := range 2 * maxStreams { // more than are taken at a time
		s, err := net.Dial("tcp", a.gossip.String())
		if err != nil {
			continue
		}
		defer s.Close()
		if i%2 == 0 {
			_, _ = s.Write(bytes.Repeat([]byte{byte(i), 0xff}, 4096))
		}
	}
	if ack, err := a.Set(t.Context(), "k", json.RawMessage(`1`)); err != nil || len(ack.Applied) != 3 {
		t.Errorf("amid garbage a write came to %v: %v", ack, err)
	}
	whole(t, a, b, c)
}

// replayer stands before a node's gossip port, passes everything on and remembers the packets.
type replayer struct {
	out net.PacketConn
	to  net.Addr

	mu      sync.Mutex
	packets [][]byte
}

func (r *replayer) run() {
	buf := make([]byte, 64<<10)
	for {
		n, _, err := r.out.ReadFrom(buf)
		if err != nil {
			return
		}
		r.mu.Lock()
		if len(r.packets) < 5000 {
			r.packets = append(r.packets, bytes.Clone(buf[:n]))
		}
		r.mu.Unlock()
		_, _ = r.out.WriteTo(buf[:n], r.to)
	}
}

// Whoever recorded the gossip of a fleet and plays it again brings nobody back to life.
func TestReplayedPackets(t *testing.T) {
	f := newFleet(t)
	a := f.start("a", nil)
	var r *replayer
	var relayed sync.WaitGroup
	b, err := f.prepare("b", func(o *Options) {
		var at net.Listener
		for r == nil { // a port that is free for TCP too, through which b is reached
			conn, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			if at, err = net.Listen("tcp", conn.LocalAddr().String()); err != nil {
				_ = conn.Close()
				continue
			}
			r = &replayer{out: conn}
		}
		t.Cleanup(func() { _ = r.out.Close(); _ = at.Close(); relayed.Wait() })
		o.Advertise = netip.MustParseAddrPort(at.Addr().String())
		relayed.Go(func() {
			for {
				in, err := at.Accept()
				if err != nil {
					return
				}
				_ = in.Close() // packets alone go through
			}
		})
	}, a)
	if err != nil {
		t.Fatal(err)
	}
	r.to = net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(b.net.GetAutoBindPort())))
	relayed.Go(r.run)
	b.run()
	c := f.start("c", nil, a)
	whole(t, a, b, c)
	eventually(t, "packets were recorded", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.packets) > 20
	})
	c.kill()
	eventually(t, "c is dead", func() bool { return b.sees("c").State == Dead && a.sees("c").State == Dead })
	r.mu.Lock()
	packets := r.packets
	r.mu.Unlock()
	conn, err := net.Dial("udp", r.to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for round := range 20 {
		for i := range packets {
			if round%2 == 1 {
				i = len(packets) - 1 - i
			}
			_, _ = conn.Write(packets[i])
		}
	}
	ack, err := b.Set(t.Context(), "k", json.RawMessage(`1`))
	if err != nil || len(ack.Applied) != 2 || len(ack.Missing) != 0 {
		t.Errorf("after the replay a write came to %v: %v", ack, err)
	}
	if s := b.sees("c").State; s != Dead {
		t.Errorf("after the replay c is %s", s)
	}
}

// A peer that takes nothing any more loses its link; the others notice nothing, and nothing piles up.
func TestPeerThatStopsReading(t *testing.T) {
	f := newFleet(t)
	a := f.start("a", nil)
	b := f.start("b", nil, a)
	whole(t, a, b)
	deaf := f.certificate("deaf")
	addr, _ := a.PeerAddr("a")
	pool := x509.NewCertPool()
	pool.AddCert(f.ca)
	tr := &http.Transport{
		ForceAttemptHTTP2: true,
		DialTLSContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			raw, err := new(net.Dialer).DialContext(ctx, network, addr.String())
			if err != nil {
				return nil, err
			}
			c := tls.Client(raw, &tls.Config{Certificates: []tls.Certificate{deaf}, RootCAs: pool, ServerName: "a", NextProtos: []string{"h2"}})
			return c, c.HandshakeContext(ctx)
		},
	}
	defer tr.CloseIdleConnections()
	i := someInfo()
	i.Boot = "deaf"
	raw := encode(greeting{Speaks: protoVersion, Oldest: protoOldest, Fleet: "test", Node: "deaf", Meta: appendMeta(nil, i), Keys: keyPrints("test", [][]byte{f.ring})})
	body, w := io.Pipe()
	defer w.Close()
	go func() { _, _ = w.Write(append(binary.AppendUvarint(nil, uint64(len(raw))), raw...)) }()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://a"+PeerSuffix+pathLink, body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v %v", resp, err)
	}
	defer resp.Body.Close() // never read
	var link *pipe
	eventually(t, "the link is there", func() bool {
		a.Mesh.mu.Lock()
		defer a.Mesh.mu.Unlock()
		for _, p := range a.pipes {
			if p.peer == "deaf" {
				link = p
			}
		}
		return link != nil
	})
	big := &page{registers: []Register{register("k", `"`+strings.Repeat("x", MaxValue-8)+`"`, 5)}}
	eventually(t, "the link is given up", func() bool {
		a.Mesh.mu.Lock()
		_, open := a.pipes[link.id]
		a.Mesh.mu.Unlock()
		if open {
			link.put(big)
		}
		if left := link.left.Load(); left > linkQueue+maxFrame/MaxValue {
			t.Fatalf("%d messages pile up", left)
		}
		return !open
	})
	if ack, err := a.Set(t.Context(), "k2", json.RawMessage(`1`)); err != nil || len(ack.Applied) != 2 {
		t.Errorf("%+v %v", ack, err)
	}
}

// A config that names the node itself as a seed: it isn't its own peer, and does not wait for itself.
func TestSelfAsSeed(t *testing.T) {
	f := newFleet(t)
	ln, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := ln.LocalAddr().String()
	_ = ln.Close()
	a := f.start("a", func(o *Options) {
		o.Bind = netip.MustParseAddrPort(at)
		o.Join = []string{at, at}
	})
	begun := time.Now()
	<-a.Ready()
	if took := time.Since(begun); took > a.opt.ReadyWait/2 {
		t.Errorf("it waited for itself for %s", took)
	}
	if n := len(a.Members()); n != 1 || a.saw("node.duplicate a") || a.saw("mesh.refused a") {
		t.Errorf("%d members, %v", n, a.events)
	}
	b := f.start("b", nil, a)
	whole(t, a, b)
}

// Seeds that refuse: a node says what it waits for, and goes on alone well before its patience ends.
func TestSeedsThatRefuse(t *testing.T) {
	f := newFleet(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	seed := ln.Addr().String()
	_ = ln.Close()
	a := f.start("a", func(o *Options) { o.Join, o.ReadyWait = []string{seed}, time.Minute })
	eventually(t, "it says what it waits for", func() bool {
		select {
		case <-a.Ready():
			return true
		default:
		}
		w := a.Waiting()
		return strings.HasPrefix(w, "a peer: "+seed) && strings.Contains(w, "refused")
	})
	begun := time.Now()
	<-a.Ready()
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it waited for %s", took)
	}
	eventually(t, "it says so", func() bool { return a.saw("mesh.alone a") })
	if a.Waiting() != "" {
		t.Errorf("it still waits for %s", a.Waiting())
	}
}

// A clock that is minutes off is told, and drags nobody along: what the node writes bears the fleet's time.
func TestClockFarOff(t *testing.T) {
	f := newFleet(t)
	a := f.start("a", nil)
	b := f.start("b", nil, a)
	off := 5 * time.Minute
	c := f.start("c", func(o *Options) { o.Now = func() time.Time { return time.Now().Add(off) } }, a)
	whole(t, a, b, c)
	eventually(t, "it is told on both sides", func() bool { return a.saw("clock.skew c") && c.saw("clock.skew c") })
	if ack, err := c.Set(t.Context(), "k", json.RawMessage(`1`)); err != nil || len(ack.Applied) != 3 {
		t.Fatalf("%+v %v", ack, err)
	}
	if ahead := time.Until(a.Registers("k")[0].Stamp.Time()); ahead > MaxClockLead {
		t.Errorf("the write is %s ahead", ahead)
	}
	if _, err := a.Set(t.Context(), "k", json.RawMessage(`2`)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the later write holds everywhere", func() bool { return string(c.Registers("k")[0].Value) == `2` })
}

// A database that is damaged is kept aside, reported, and rebuilt from the peers.
func TestCorruptDatabaseIsRebuiltFromPeers(t *testing.T) {
	f := newFleet(t)
	a := f.start("a", nil)
	dir := t.TempDir()
	b := f.start("b", func(o *Options) { o.DataDir = dir }, a)
	whole(t, a, b)
	for _, k := range []string{"k1", "k2"} {
		if ack, err := a.Set(t.Context(), k, json.RawMessage(`1`)); err != nil || len(ack.Applied) != 2 {
			t.Fatalf("%+v %v", ack, err)
		}
	}
	b.kill()
	path := filepath.Join(dir, storeName)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, path, strings.Repeat("\x00\xff", len(raw)/2))
	b2 := f.start("b", func(o *Options) { o.DataDir = dir }, a)
	<-b2.Ready()
	if n := len(b2.Registers("")); n != 2 {
		t.Errorf("%d registers at readiness", n)
	}
	eventually(t, "it is reported", func() bool { return b2.saw("registers.corrupt b") })
	aside, err := filepath.Glob(path + ".corrupt-*")
	if err != nil || len(aside) != 1 {
		t.Errorf("%v %v", aside, err)
	}
	whole(t, a, b2)
	b2.kill()
	_, held, err := openStore(dir, time.Now())
	if err != nil || len(held.registers) != 2 || held.aside != "" {
		t.Errorf("on disk again: %+v %v", held, err)
	}
}

// One CA for two fleets: a certificate that names its fleet is good in that one alone.
func TestCertificateOfAnotherFleet(t *testing.T) {
	named := func(fleet string) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(1), URIs: []*url.URL{{Scheme: "https", Path: "/x"}, {Scheme: "landfall", Path: "/" + fleet + "/b"}}}
	}
	for fleet, want := range map[string]string{"test": "", "other": "other", "a/b": "a/b"} {
		if got := foreign(named(fleet), "test"); got != want {
			t.Errorf("%s: %q", fleet, got)
		}
	}
	if foreign(&x509.Certificate{}, "test") != "" {
		t.Error("a certificate that names no fleet is refused")
	}
	f := newFleet(t)
	f.uri = "landfall:/other/x"
	a := f.start("a", nil)
	f.uri = ""
	b := f.start("b", nil, a)
	eventually(t, "a is told", func() bool { return a.saw("mesh.refused b") || b.saw("node.unreachable a") })
	if m := b.sees("a"); m.Reachable {
		t.Errorf("%+v", m)
	}
}
