package mesh

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// What a node of a fleet of 300 costs, measured on a real process: real sockets, TLS and HTTP/2; its peers are puppets that
// beat as nodes do.
//
//	go test ./routing/mesh -run TestNodeCost -v -mesh.cost 60s
var (
	costSpan    = flag.Duration("mesh.cost", 0, "how long TestNodeCost measures")
	costProfile = flag.String("mesh.profile", "", "where TestNodeCost leaves the node's CPU profile")
)

const costDir = "MESH_COST_DIR"

func costNames(yield func(name, region string) bool) {
	for r := range 30 {
		for k := range 10 {
			if !yield(fmt.Sprintf("n%02d-%d", r, k), fmt.Sprintf("r%02d", r)) {
				return
			}
		}
	}
}

func costInfo(name, region string, at netip.AddrPort) info {
	return info{
		Started: 1, Seq: 1, State: Serving, Region: region, Boot: "boot-of-" + name, Version: "v1.0.0", Hash: "3f9a1c2b4d5e6f70", Peer: at, Admin: at,
		Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
	}
}

// counted counts the bytes of all connections: TLS records, as the kernel gets them.
type counted struct {
	net.Listener
	in, out *atomic.Int64
}

type countedConn struct {
	net.Conn
	in, out *atomic.Int64
}

func (l counted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return countedConn{c, l.in, l.out}, err
}

func (c countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.in.Add(int64(n))
	return n, err
}

func (c countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.out.Add(int64(n))
	return n, err
}

// puppets are all peers of the node that is measured, at one address; which one is meant, the TLS server name tells.
type puppets struct {
	f     *fleet
	at    netip.AddrPort
	links atomic.Int64
	first sync.Once
}

func (p *puppets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.TLS.ServerName
	in := bufio.NewReader(r.Body)
	if _, err := readFrame(in, maxGreeting); err != nil {
		return
	}
	var all []message
	costNames(func(n, region string) bool {
		i := costInfo(n, region, p.at)
		m := &soft{node: n, boot: i.Boot, version: 1, sections: []section{
			{sectionInfo, appendMeta(nil, i)}, {sectionReport, []byte(`{"pools":{"shop":"up","web":"up"},"load":120}`)},
			{sectionUnreachable, namesBody(nil)}, {sectionWatches, namesBody(costWatches(n))},
		}}
		if n == name {
			raw := encode(greeting{Speaks: protoVersion, Oldest: protoOldest, Fleet: "test", Node: n, Meta: appendMeta(nil, i)})
			_, _ = w.Write(append(binary.AppendUvarint(nil, uint64(len(raw))), raw...))
			_ = http.NewResponseController(w).Flush()
		}
		if n != "n00-0" {
			all = append(all, m)
		}
		return true
	})
	p.links.Add(1)
	defer p.links.Add(-1)
	out := puppetLink{w: w, beat: beat{flags: flagReady | flagHeard}}
	p.first.Do(func() {
		for _, m := range all {
			out.send(m)
		}
	})
	var beating sync.WaitGroup
	over := make(chan struct{})
	beating.Go(func() { out.run(over) })
	defer beating.Wait()
	defer close(over)
	for {
		raw, err := readFrame(in, maxFrame)
		if err != nil {
			return
		}
		if m, err := decodeMessage(raw); err == nil {
			if b, ok := m.(*beat); ok {
				out.hear(b)
			}
		}
	}
}

// costWatches is whom a peer watches: as many as a node of such a fleet does.
func costWatches(own string) (out []string) {
	k := 0
	costNames(func(n, _ string) bool {
		if k++; k%9 < 2 && n != own {
			out = append(out, n)
		}
		return true
	})
	return out
}

// puppetLink beats, and says again what digests it hears, as a peer does that agrees.
type puppetLink struct {
	w     http.ResponseWriter
	mu    sync.Mutex
	beat  beat
	at    time.Time
	beats int
}

func (l *puppetLink) send(m message) {
	body := appendMessage(nil, m)
	_, _ = l.w.Write(append(binary.AppendUvarint(nil, uint64(len(body))), body...))
	_ = http.NewResponseController(l.w).Flush()
}

func (l *puppetLink) hear(b *beat) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b.registers != l.beat.registers || b.soft != l.beat.soft {
		l.beats = 0
	}
	l.beat.registers, l.beat.soft, l.beat.echo, l.at = b.registers, b.soft, b.seq, time.Now()
}

func (l *puppetLink) run(done <-chan struct{}) {
	tick := time.NewTicker(defaultHeartbeat)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		l.mu.Lock()
		var m message = pulse{}
		if l.beats%(maxPulses+1) == 0 {
			l.beat.seq++
			b := l.beat
			b.hold, b.wall = uint64(time.Since(l.at).Microseconds()), time.Now().UnixMilli()
			m = &b
		}
		l.beats++
		l.mu.Unlock()
		l.send(m)
	}
}

func TestNodeCost(t *testing.T) {
	if *costSpan == 0 {
		t.Skip("it takes a while: -mesh.cost 60s")
	}
	f, dir := newFleet(t), t.TempDir()
	key, err := x509.MarshalPKCS8PrivateKey(f.key)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"ca": f.ca.Raw, "key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &puppets{f: f, at: ln.Addr().(*net.TCPAddr).AddrPort()}
	certs := map[string]*tls.Certificate{}
	costNames(func(n, _ string) bool {
		c := f.certificate(n)
		certs[n] = &c
		return true
	})
	var in, out atomic.Int64
	server := &http.Server{Handler: p, ErrorLog: log.New(io.Discard, "", 0), TLSConfig: &tls.Config{
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return certs[h.ServerName], nil },
	}}
	go func() { _ = server.ServeTLS(counted{ln, &in, &out}, "", "") }()
	defer func() { _ = server.Close() }()

	args := []string{"-test.run", "^TestNodeCostChild$", "-test.timeout", "0"}
	if *costProfile != "" { // it costs some itself
		args = append(args, "-test.cpuprofile", filepath.Join(dir, "cpu"))
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), costDir+"="+dir, "MESH_COST_PEER="+p.at.String())
	ask, _ := cmd.StdinPipe()
	answers, _ := cmd.StdoutPipe()
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := func() { _ = ask.Close(); _ = cmd.Wait() }
	defer stop()
	lines := json.NewDecoder(answers)
	cpu := func() time.Duration {
		var at costAt
		_, _ = io.WriteString(ask, "\n")
		if err := lines.Decode(&at); err != nil {
			t.Fatal(err)
		}
		t.Logf("messages sent so far: %v", at.Sent)
		return at.CPU
	}
	eventually(t, "the node has its links", func() bool { return p.links.Load() >= 67 })
	settle := time.NewTimer(20 * time.Second)
	<-settle.C
	cpu0, in0, out0, t0 := cpu(), in.Load(), out.Load(), time.Now()
	settle.Reset(*costSpan)
	<-settle.C
	used, got, sent, span := cpu()-cpu0, out.Load()-out0, in.Load()-in0, time.Since(t0)
	links := p.links.Load()
	if stop(); *costProfile != "" {
		_ = os.Rename(filepath.Join(dir, "cpu"), *costProfile)
	}
	kb := func(b int64) float64 { return float64(b) / span.Seconds() / 1000 }
	t.Logf("a node of 300 with %d links, over %s: %.2f KB/s sent, %.2f received, %.2f in all, TLS and HTTP/2 included; %.2f%% of a core",
		links, span.Round(time.Second), kb(sent), kb(got), kb(sent+got), 100*used.Seconds()/span.Seconds())
	// What the simulator takes a beat for: most are pulses.
	beats := span.Seconds() * 4 * float64(links)
	t.Logf("%.1f bytes a beat sent, %.1f received; a pulse alone is simulated as %d", float64(sent)/beats, float64(got)/beats, 1+overhead)
}

// costAt is what the node has used up to a moment.
type costAt struct {
	CPU  time.Duration
	Sent map[string]float64
}

// TestNodeCostChild is the node that TestNodeCost measures.
func TestNodeCostChild(t *testing.T) {
	dir := os.Getenv(costDir)
	if dir == "" {
		t.Skip("TestNodeCost runs it")
	}
	f := newFleet(t)
	ca, err := os.ReadFile(filepath.Join(dir, "ca"))
	if err == nil {
		f.ca, err = x509.ParseCertificate(ca)
	}
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	f.key = key.(*ecdsa.PrivateKey)
	n := f.start("n00-0", func(o *Options) { o.Region, o.Heartbeat, o.tune = "r00", 0, nil })
	at := netip.MustParseAddrPort(os.Getenv("MESH_COST_PEER"))
	costNames(func(name, region string) bool {
		if name != "n00-0" {
			n.step(func(c *core, now instant) *effects { return c.hint(now, name, costInfo(name, region, at), at, true) })
		}
		return true
	})
	in := bufio.NewReader(os.Stdin)
	for {
		if _, err := in.ReadString('\n'); err != nil {
			return
		}
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		at := costAt{time.Duration(u.Utime.Nano() + u.Stime.Nano()), map[string]float64{}}
		for _, kind := range []string{"beat", "pulse", "soft", "need", "held", "sums", "packet"} {
			at.Sent[kind] = gather(t, n)[fmt.Sprintf("landfall_mesh_messages_total{direction=%q,kind=%q}", "out", kind)]
		}
		_ = json.NewEncoder(os.Stdout).Encode(at)
	}
}
